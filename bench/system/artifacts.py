"""The artifact cache: what runs share, found by the hash of all that determines it, made once, locked while made.

An artifact is a folder of files: a fine-tuned teacher, an init student, a tokenizer, the scores of either. Methods
that are compared load the very same files. A damaged entry is noticed by its checksums and made again.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock
import platformdirs

from bench.system.errors import BenchError
from bench.system.files import WRITE_ERRORS, cannot_write, damage, is_of_writing, publish, remove, seal
from bench.system.hashing import digest

MANIFEST = "manifest.json"
WORK = "work"
ABANDONED_SECONDS = 30 * 24 * 3600.0


def default_root() -> Path:
    """Folder of the cache: `$BENCH_CACHE`, else the user's cache folder.

    Raises:
        BenchError: neither is known.
    """
    chosen = os.environ.get("BENCH_CACHE")
    found = Path(chosen) if chosen else Path(platformdirs.user_cache_dir("distillm-bench"))
    if str(found).startswith("~"):
        raise BenchError("no home folder is known: say where what runs share goes with the variable BENCH_CACHE")
    return found


class ArtifactCache:
    """Artifacts below one folder.

    Args:
        root: the folder; made when needed.
        note: told what a user should know (a damaged entry, waiting for another process).
    """

    def __init__(self, root: Path, note: Callable[[str], None]) -> None:
        self.root = root
        self.note = note

    def place(self, kind: str, key: Mapping[str, Any]) -> Path:
        """Where an artifact lies once it is made."""
        return self.root / kind / digest(key)[:16]

    def get(self, kind: str, key: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        """The folder of an artifact, made now if it is not there.

        Args:
            kind: what it is, a folder name.
            key: everything that determines its contents, as plain values.
            build: fills the folder it is given. That folder outlives a killed process, so that what was killed can
                go on from its own checkpoints; its sub-folder `work` is not kept in the finished artifact.

        Raises:
            BenchError: the cache cannot be written.
        """
        final = self.place(kind, key)
        name, partial = final.name, final.with_name(f"{final.name}.partial")
        work = final / WORK
        if damage(final / MANIFEST) is None:
            if work.is_dir():
                with suppress(OSError, filelock.Timeout), filelock.FileLock(final.with_suffix(".lock"), timeout=0):
                    remove(work)  # who may only read leaves it
            return final
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with locked(final.with_suffix(".lock"), f"the {kind} {name}", self.note):
                damaged = damage(final / MANIFEST)
                if damaged is not None:
                    if os.path.lexists(final):
                        self.note(f"cache: {kind} {name} is damaged ({damaged} was lost or changed); making it again")
                        remove(final)
                    self._remove_abandoned(final.parent)
                    self._begin(partial)
                    build(partial)
                    seal(partial / MANIFEST, leave_out=WORK, about={"kind": kind, "key": dict(key)})
                    publish(partial, final)
                remove(work)  # only now: until here a killed process goes on from it
        except WRITE_ERRORS as error:
            if not is_of_writing(final.parent, error):  # what `build` reads, asks for or has no memory for
                raise
            raise cannot_write(final, error) from error
        return final

    @staticmethod
    def _remove_abandoned(folder: Path) -> None:
        """Remove the work of killed processes that nobody went on with for a month; a lock shows the living."""
        long_ago = time.time() - ABANDONED_SECONDS
        for partial in folder.glob("*.partial"):
            with suppress(OSError, filelock.Timeout):
                if max(path.stat().st_mtime for path in (partial, *partial.glob(WORK))) < long_ago:
                    with filelock.FileLock(partial.with_suffix(".lock"), timeout=0):
                        remove(partial)

    @staticmethod
    def _begin(partial: Path) -> None:
        """Make the folder to be filled; of what a killed process left, only the work it can go on from stays."""
        if not partial.is_dir():
            remove(partial)
        partial.mkdir(exist_ok=True)
        for left in partial.iterdir():
            if left.name != WORK:
                remove(left)


class Busy(BenchError):
    """Another process holds the lock."""


def is_locked(path: Path) -> bool | None:
    """Whether a process holds a lock of `locked`; None where the file system does not say.

    To find out, a lock that several may share is asked for, and given back.
    """
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


@contextmanager
def locked(path: Path, what: str, note: Callable[[str], None], *, wait: bool = True) -> Iterator[None]:
    """Hold a lock between processes; says so if it has to wait.

    Raises:
        Busy: another process holds it, and `wait` is off.
        BenchError: the lock file cannot be made.
    """
    lock = filelock.FileLock(path)
    try:
        try:
            lock.acquire(timeout=0.2)
        except filelock.Timeout:
            if not wait:
                raise Busy(f"another process is making {what}") from None
            note(f"another process is making {what}; waiting for it")
            lock.acquire()
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield
    finally:
        lock.release()
