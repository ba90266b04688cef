"""The artifact cache: made once, checked whenever it is used, made again where damaged, locked between processes."""

import errno
import os
import stat
import subprocess
import sys
import tempfile
import textwrap
import traceback
from pathlib import Path

import pytest

import bench.system.artifacts
from bench.system.artifacts import MANIFEST, WORK, ArtifactCache, default_root, locked
from bench.system.errors import BenchError

KEY = {"steps": 3, "data": "abc"}


class Builder:
    """Fills an artifact and counts how often it was asked to."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        (folder / "weights.bin").write_bytes(b"weights")
        (folder / "deep").mkdir(exist_ok=True)
        (folder / "deep" / "config.json").write_text("{}")


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path, notes) -> ArtifactCache:
    return ArtifactCache(tmp_path / "cache", notes.append)


def test_made_once_per_key_and_kind(cache, notes):
    build = Builder()
    first = cache.get("teacher", KEY, build)
    assert (first / "weights.bin").read_bytes() == b"weights"
    assert cache.get("teacher", dict(reversed(KEY.items())), build) == first
    assert build.calls == 1
    others = [cache.get("teacher", KEY | {"steps": 4}, build), cache.get("student", KEY, build)]
    assert len({first, *others}) == build.calls == 3
    assert notes == []


@pytest.mark.parametrize("name", ["weights.bin", "deep/config.json"])
@pytest.mark.parametrize("how", ["changed", "missing"])
def test_damaged_files_are_noticed_and_made_again(cache, notes, name, how):
    build = Builder()
    folder = cache.get("teacher", KEY, build)
    (folder / "left over from before").write_text("x")
    if how == "changed":
        (folder / name).write_bytes(b"weighty")
    else:
        (folder / name).unlink()
    assert cache.get("teacher", KEY, build) == folder
    assert build.calls == 2
    assert [("teacher" in note, "damaged" in note) for note in notes] == [(True, True)]
    assert (folder / "weights.bin").read_bytes() == b"weights"
    assert not (folder / "left over from before").exists()
    cache.get("teacher", KEY, build)
    assert build.calls == 2


@pytest.mark.parametrize(
    "manifest", [None, b"", b'{"files": {"weights.bin"', b"[]", b'{"kind": "teacher"}', b"\xff\xfe"]
)
def test_damaged_manifest_is_noticed(cache, notes, manifest):
    build = Builder()
    path = cache.get("teacher", KEY, build) / MANIFEST
    if manifest is None:
        path.unlink()
    else:
        path.write_bytes(manifest)
    cache.get("teacher", KEY, build)
    assert build.calls == 2
    assert len(notes) == 1


def test_a_failed_build_leaves_its_work_for_the_next_and_nothing_finished(cache, notes):
    def killed(folder: Path) -> None:
        (folder / WORK).mkdir()
        (folder / WORK / "step-7").write_text("state")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        cache.get("teacher", KEY, killed)
    assert not [p for p in (cache.root / "teacher").iterdir() if p.is_dir() and p.suffix != ".partial"]

    def resumed(folder: Path) -> None:
        assert (folder / WORK / "step-7").read_text() == "state"
        (folder / "weights.bin").write_bytes(b"weights")

    folder = cache.get("teacher", KEY, resumed)
    assert sorted(p.name for p in folder.iterdir()) == [MANIFEST, "weights.bin"]  # `work` is not kept
    assert [p.name for p in (cache.root / "teacher").iterdir() if p.is_dir()] == [folder.name]
    assert notes == []


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file", "/home/her/lexicon.txt"),
        ConnectionError("reset"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_what_a_build_reads_or_asks_for_is_no_fault_of_the_cache(cache, error):
    def build(folder: Path) -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        cache.get("teacher", KEY, build)
    assert raised.value is error


@pytest.mark.parametrize("name", [None, "weights.bin"])
def test_a_build_that_cannot_write_is_told(cache, name):
    def build(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", *([str(folder / name)] if name else []))

    with pytest.raises(BenchError, match=r"cannot write .*No space left.*Free some space"):
        cache.get("teacher", KEY, build)


def test_work_is_kept_until_the_artifact_is_final(cache, monkeypatch):
    """The end of a training is hashed for seconds: killed then, it is not to begin again."""

    def build(folder: Path) -> None:
        (folder / WORK).mkdir(exist_ok=True)
        (folder / WORK / "step-9").touch()
        (folder / "weights.bin").write_bytes(b"weights")

    def killed(partial: Path, final: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(bench.system.artifacts, "publish", killed)
        with pytest.raises(KeyboardInterrupt):
            cache.get("teacher", KEY, build)
    (partial,) = (cache.root / "teacher").glob("*.partial")
    assert (partial / WORK / "step-9").exists()
    (partial / ".tmpAb3xYz").write_bytes(b"half of the weights")
    folder = cache.get("teacher", KEY, build)
    assert sorted(p.name for p in folder.iterdir()) == [MANIFEST, "weights.bin"]
    # killed after that, its work goes with the next use
    (folder / WORK).mkdir()
    cache.get("teacher", KEY, Builder())
    assert sorted(p.name for p in folder.iterdir()) == [MANIFEST, "weights.bin"]


def test_work_that_nobody_went_on_with_for_a_month_is_removed(cache):
    folder = cache.root / "teacher"
    for name in ("abandoned", "recent", "locked"):
        (folder / f"{name}.partial" / WORK).mkdir(parents=True)
    for name in ("abandoned", "locked"):
        for path in (folder / f"{name}.partial" / WORK, folder / f"{name}.partial"):
            os.utime(path, (0, 0))
    with locked(folder / "locked.lock", "another teacher", print):
        cache.get("teacher", KEY, Builder())
    assert sorted(path.name for path in folder.glob("*.partial")) == ["locked.partial", "recent.partial"]


def test_a_second_user_can_read_and_with_the_umask_write(cache):
    def build(folder: Path) -> None:
        (folder / "weights.bin").touch(mode=0o600)  # as safetensors makes its files

    before = os.umask(0o002)
    try:
        folder = cache.get("teacher", KEY, build)
    finally:
        os.umask(before)
    modes = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in [folder.parent, *folder.parent.rglob("*")]}
    assert set(modes.values()) == {"0o775", "0o664"}, modes
    assert modes["weights.bin"] == modes[f"{folder.name}.lock"] == "0o664"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("told", ["the truth", "that all may be written"])  # by os.access, as on some network folders
def test_a_second_user_who_may_only_read_takes_what_is_there(monkeypatch, told):
    with tempfile.TemporaryDirectory() as folder:  # below pytest's own folders only their owner may read
        Path(folder).chmod(0o755)
        cache = ArtifactCache(Path(folder) / "cache", print)
        made = cache.get("teacher", KEY, Builder())
        (made / WORK).mkdir()  # of a process killed just before its end
        pid = os.fork()
        if pid == 0:
            try:
                os.setuid(65534)
                if told != "the truth":
                    monkeypatch.setattr(os, "access", lambda *_: True)
                build = Builder()
                found = cache.get("teacher", KEY, build)
                with pytest.raises(BenchError, match=r"cannot write .*BENCH_CACHE"):
                    cache.get("teacher", KEY | {"steps": 4}, build)
                os._exit(0 if found == made and build.calls == 0 else 1)
            except BaseException:
                traceback.print_exc()
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_two_processes_make_it_once(tmp_path):
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from bench.system.artifacts import ArtifactCache

        root = Path(sys.argv[1])

        def build(folder):
            with (root / "log").open("a") as log:
                log.write("built\\n")
            for _ in range(600):  # until the other process says that it waits
                if (root / "waiting").exists():
                    break
                time.sleep(0.05)
            (folder / "weights.bin").write_bytes(b"weights")

        def note(text):
            assert "another process" in text, text
            (root / "waiting").touch()

        print(ArtifactCache(root / "cache", note).get("teacher", {"a": 1}, build))
    """)
    command = [sys.executable, "-c", script, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert (tmp_path / "waiting").exists()
    assert (tmp_path / "log").read_text() == "built\n"
    assert answers[0] == answers[1]
    assert (Path(answers[0]) / "weights.bin").read_bytes() == b"weights"


def test_a_root_that_cannot_be_written_is_told(tmp_path, notes):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(BenchError, match=r"cannot write .*file.*BENCH_CACHE"):
        ArtifactCache(tmp_path / "file" / "cache", notes.append).get("teacher", KEY, Builder())


def test_the_variable_chooses_the_root(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("BENCH_CACHE")
    assert default_root().name == "distillm-bench"
