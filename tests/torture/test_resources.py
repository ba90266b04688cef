"""A machine that runs out of something: one message that says of what, and the same command ends well afterwards."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.torture.processes import Before, bench
from tests.torture.test_kills import command, made


def _limit(what: int, most: int) -> None:
    resource.setrlimit(what, (most, resource.getrlimit(what)[1]))  # the hard limit is not ours to raise


@dataclass(frozen=True)
class Limit:
    """A limit of the operating system on the new process."""

    what: int
    most: int

    def __call__(self, logs: Path) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write is refused, as by a full disk
        _limit(self.what, self.most)


@dataclass(frozen=True)
class Memory:
    """So many bytes beyond what the process has."""

    more: int

    def __call__(self, logs: Path) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + self.more)


@dataclass(frozen=True)
class ReadOnly:
    """Files are written as by a user who owns none of them."""

    def __call__(self, logs: Path) -> None:
        ctypes.CDLL(None).setfsuid(65534)


@dataclass(frozen=True)
class Output:
    """Standard output goes elsewhere."""

    path: str

    def __call__(self, logs: Path) -> None:
        os.dup2(os.open(self.path, os.O_WRONLY), 1)


CASES: dict[str, Before] = {
    **{f"files of {size} bytes": Limit(resource.RLIMIT_FSIZE, size) for size in (1_000, 30_000, 300_000, 1_000_000)},
    **{f"{files} open files": Limit(resource.RLIMIT_NOFILE, files) for files in (8, 10, 12, 14, 18)},
    **{f"{mebibytes} MiB more": Memory(mebibytes << 20) for mebibytes in (1, 8, 20, 48, 128, 150)},
    "read-only folders": ReadOnly(),
    **({"a full output": Output("/dev/full")} if Path("/dev/full").exists() else {}),
}


ABORTED = (-signal.SIGABRT, 127)
"""How glibc and libraries in Rust end a process that has no memory for a thread of theirs: nobody can catch it."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("whole")
    ended = bench(*command(folder / "out", "distillm"), cache=folder / "cache")
    assert ended.code == 0, str(ended)
    return made(folder / "out", ended.stdout)


@pytest.mark.parametrize("case", CASES)
def test_without(case, whole, tmp_path):
    arguments, cache = command(tmp_path / "out", "distillm"), tmp_path / "cache"
    first = bench(*arguments, cache=cache, before=CASES[case])
    assert "Traceback" not in first.stderr, str(first)
    if isinstance(CASES[case], Memory) and "error: " in first.stderr:  # not that a folder holds no model
        assert "error: out of memory" in first.stderr, str(first)
    if not (isinstance(CASES[case], Memory) and first.code in ABORTED):
        assert first.code in (0, 2), str(first)
        assert first.code == 0 or "error: " in first.stderr, str(first)
    again = bench(*arguments, cache=cache)
    assert again.code == 0, f"{first}\n{again}"
    assert made(tmp_path / "out", again.stdout) == whole


@dataclass(frozen=True)
class AnotherUser:
    """The process belongs to a user who owns nothing here."""

    def __call__(self, logs: Path) -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_runs_with_a_cache_that_he_may_only_read():
    with tempfile.TemporaryDirectory() as name:  # below pytest's own folders only their owner may read
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "his").mkdir()
        os.chown(folder / "his", 65534, 65534)
        first = bench(*command(folder / "mine", "sft"), cache=folder / "cache")
        assert first.code == 0, str(first)
        again = bench(*command(folder / "his" / "same", "sft"), cache=folder / "cache", before=AnotherUser())
        assert again.code == 0, str(again)
        assert made(folder / "his" / "same", again.stdout) == made(folder / "mine", first.stdout)
        recorded = bench(*command(folder / "mine", "sft"), cache=folder / "cache", before=AnotherUser())
        assert recorded.code == 0, str(recorded)
        other = bench(*command(folder / "his" / "other", "srkl"), cache=folder / "cache", before=AnotherUser())
        assert other.code == 0, str(other)
        unshared = [*command(folder / "his" / "third", "sft"), "--set", "init_training.steps=5"]
        missing = bench(*unshared, cache=folder / "cache", before=AnotherUser())
        assert (missing.code, missing.stdout) == (2, ""), str(missing)
        assert {"cannot", "write", "BENCH_CACHE"} <= set(re.findall(r"\w+", missing.stderr)), str(missing)
