"""The artifact cache: what runs share, found by the hash of all that determines it, made once, locked while made.

An artifact is a folder of files: a fine-tuned teacher, an init student, a tokenizer, the scores of either. Methods
that are compared load the very same files. A damaged entry is noticed by its checksums and made again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import platformdirs

from bench.system.errors import BenchError
from bench.system.files import WRITE_ERRORS, cannot_write, read_json, sha256_of, write_json
from bench.system.hashing import digest

MANIFEST = "manifest.json"
WORK = "work"


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
        name = digest(key)[:16]
        final, partial = self.root / kind / name, self.root / kind / f"{name}.partial"
        if final.is_dir() and self._intact(final):
            return final
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with locked(final.with_suffix(".lock"), f"the {kind} {name}", self.note):
                if final.is_dir():
                    if self._intact(final):  # made by another process while this one waited
                        return final
                    self.note(f"cache: {kind} {name} is damaged (checksum differs); making it again")
                    shutil.rmtree(final)
                partial.mkdir(exist_ok=True)
                build(partial)
                shutil.rmtree(partial / WORK, ignore_errors=True)
                files = {p.relative_to(partial).as_posix(): sha256_of(p) for p in _files(partial)}
                write_json(partial / MANIFEST, {"kind": kind, "key": dict(key), "files": files})
                partial.replace(final)
        except WRITE_ERRORS as error:
            raise cannot_write(final, error) from error
        return final

    @staticmethod
    def _intact(folder: Path) -> bool:
        try:
            files: dict[str, str] = read_json(folder / MANIFEST)["files"]
            return all(sha256_of(folder / name) == checksum for name, checksum in files.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)


@contextmanager
def locked(path: Path, what: str, note: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock between processes; says so if it has to wait.

    Raises:
        BenchError: the lock file cannot be made.
    """
    lock = filelock.FileLock(path)
    try:
        try:
            lock.acquire(timeout=0.2)
        except filelock.Timeout:
            note(f"another process is making {what}; waiting for it")
            lock.acquire()
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield
    finally:
        lock.release()
