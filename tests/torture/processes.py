"""`bench` in processes of its own, forked from one that has imported everything: a tenth of a second, not six."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.torture.warm"])
_MOMENTS = ("fsync", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
_NUMBERS = re.compile(r"[0-9a-f]{10,}|\d+")

Before = Callable[[Path], object]
"""Done in the new process before the command; told the folder of its logs."""


@dataclass(frozen=True)
class Ended:
    """What a process left: its exit code (negative: the signal that ended it) and what it wrote."""

    code: int
    stdout: str
    stderr: str

    def __str__(self) -> str:
        return f"exit code {self.code}\n{self.stdout[-1500:]}\n{self.stderr[-3000:]}"


@dataclass
class Moment:
    """Sends the process a signal as it is about to change a file below `root`.

    Opening to write, fsync, renaming, making and removing are moments; they come in every phase of a run. Without `at`
    it only writes down their names, which leave out numbers and hashes.

    Attributes:
        root: a folder.
        at: which moment: its number, from 1, or its name.
        signal: what is sent.
    """

    root: Path
    at: int | str = 0
    signal: signal.Signals = signal.SIGKILL

    def __call__(self, logs: Path) -> None:
        """Watch this process."""
        told = (logs / "moments").open("w", buffering=1)
        plain_fsync, seen = os.fsync, itertools.count(1)

        def watch(event: str, arguments: Sequence[object]) -> None:
            path = arguments[0] if event in _MOMENTS or (event == "open" and _writes(arguments)) else None
            if not isinstance(path, str | os.PathLike):
                return
            name = os.fspath(path)
            if name.startswith(str(self.root)) or not Path(name).is_absolute():  # relative: to a folder being removed
                pass_one(f"{event} {_NUMBERS.sub('#', name.removeprefix(str(self.root)))}")

        def pass_one(name: str) -> None:
            number = next(seen)
            told.write(f"{name}\n")
            if self.at in (number, name):
                self.at = 0
                os.kill(os.getpid(), self.signal)

        def fsync(descriptor: int) -> None:
            watch("fsync", [Path(f"/proc/self/fd/{descriptor}").readlink()])
            plain_fsync(descriptor)

        os.fsync = fsync
        sys.addaudithook(watch)


def _writes(arguments: Sequence[object]) -> bool:
    return isinstance(arguments[2], int) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))


def _child(arguments: tuple[str, ...], cache: Path, logs: Path, before: Before | None) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(logs / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["BENCH_CACHE"] = str(cache)
    from bench.cli.main import main

    if before is not None:
        before(logs)
    try:
        main(list(arguments), prog_name="bench")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def bench(
    *arguments: str, cache: Path, before: Before | None = None, kill_after: float | None = None, timeout: float = 120
) -> Ended:
    """`bench ARGUMENTS` to its end; one that takes longer than `timeout` hangs, which is an error.

    Args:
        arguments: of the command line.
        cache: of artifacts; logs go beside it.
        before: see `Before`.
        kill_after: SIGKILL after so many seconds.
        timeout: seconds.
    """
    logs = cache.parent / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    process = _FORKS.Process(target=_child, args=(arguments, cache, logs, before))
    process.start()
    process.join(timeout if kill_after is None else kill_after)
    hangs = process.exitcode is None
    if hangs:
        process.kill()
        process.join()
    ended = Ended(process.exitcode or 0, *((logs / name).read_text(errors="replace") for name in ("stdout", "stderr")))
    assert not hangs or kill_after is not None, f"hangs: bench {' '.join(arguments)}\n{ended}"
    return ended


def moments(cache: Path) -> list[str]:
    """The names of the moments that the last process with a `Moment` passed, in their order."""
    return (cache.parent / "logs" / "moments").read_text().splitlines()
