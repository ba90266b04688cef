"""Files are written whole or not at all."""

import gzip
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bench.system.errors import BenchError
from bench.system.files import (
    damage,
    publish,
    read_json,
    read_jsonl_gz,
    read_sealed_json,
    remove_leftovers,
    seal,
    sha256_of,
    write_bytes,
    write_json,
    write_jsonl_gz,
    write_sealed_json,
)

ROWS = [{"id": "a", "text": "Straße\nzwei", "score": 0.1}, {"id": "b", "text": "", "score": 1e-300}]


def test_written_into_a_new_folder_and_over_an_old_file(tmp_path):
    path = tmp_path / "new" / "file"
    write_bytes(path, b"one")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("before", [None, b"the old contents"])
def test_a_disk_that_fills_leaves_what_was_there(tmp_path, before):
    pytest.importorskip("resource", reason="file size limits are a POSIX feature")
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    script = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        from bench.system.errors import BenchError
        from bench.system.files import write_bytes

        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            write_bytes(Path(sys.argv[1]), bytes(100_000))
        except BenchError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert f"cannot write {path}" in done.stdout
    assert "too large" in done.stdout
    assert "--out" in done.stdout
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([] if before is None else [before])


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(BenchError, match="cannot write"):
        write_bytes(tmp_path / "file" / "record.json", b"x")
    with pytest.raises(BenchError, match="cannot write"):
        write_bytes(tmp_path / "file" / "deeper" / "record.json", b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_json_lines_round_trip_with_equal_bytes_for_equal_rows(tmp_path):
    first, second = tmp_path / "one.jsonl.gz", tmp_path / "another name.jsonl.gz"
    write_jsonl_gz(first, ROWS)
    write_jsonl_gz(second, iter(ROWS))
    assert read_jsonl_gz(first) == ROWS
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes()[4:8] == bytes(4), "the header holds the time of writing"
    assert gzip.decompress(first.read_bytes()).count(b"\n") == len(ROWS)
    write_jsonl_gz(second, ROWS[:1])
    assert sha256_of(first) != sha256_of(second)
    write_jsonl_gz(second, [])
    assert read_jsonl_gz(second) == []


def test_json_round_trip_is_readable(tmp_path):
    value = {"name": "Straße", "values": [1, 0.1, None, True], "deep": {"a": {}}}
    write_json(tmp_path / "value.json", value)
    assert read_json(tmp_path / "value.json") == value
    assert "Straße" in (tmp_path / "value.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused_before_anything_is_written(tmp_path, bad):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "value.json", {"loss": bad})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_jsonl_gz(tmp_path / "rows.jsonl.gz", [{"loss": 1.0}, {"loss": bad}])
    assert list(tmp_path.iterdir()) == []


def writer_that(ends: str, path) -> subprocess.Popen[str]:
    """A process that has begun to write a file, and then dies or goes on living until it reads a line."""
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        import bench.system.files as files

        def stop(descriptor):
            print("writing", flush=True)
            if sys.argv[1] == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            sys.stdin.readline()

        files.os.fsync = stop
        files.write_bytes(Path(sys.argv[2]), b"of the other process")
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", script, ends, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "writing\n"
    return process


def test_what_a_killed_writer_left_is_taken_over(tmp_path):
    path = tmp_path / "record.json"
    assert writer_that("dies", path).wait() == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name == ".record.json.part"
    write_bytes(path, b"mine")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("record.json", b"mine")]


def test_leftovers_go_but_not_those_of_the_living(tmp_path):
    (tmp_path / "deep" / ".student.part").mkdir(parents=True)
    (tmp_path / "deep" / ".student.part" / "weights").write_text("half")
    (tmp_path / "deep" / ".tmpAb3xYz").write_text("safetensors' own")
    (tmp_path / ".old.json.123.part").write_text("half")
    (tmp_path / "kept").write_text("whole")
    living = writer_that("lives", tmp_path / "answer.json")
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == [".answer.json.part", "deep", "kept"]
    living.communicate("\n", timeout=60)
    assert living.returncode == 0
    assert (tmp_path / "answer.json").read_bytes() == b"of the other process"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_kill_while_something_is_replaced_leaves_the_old_or_the_new(tmp_path, monkeypatch, kind):
    partial, final = tmp_path / ".student.part", tmp_path / "student"
    for path in (partial, final):
        weights = path if kind == "file" else path / "weights"
        weights.parent.mkdir(exist_ok=True)
        weights.write_text(path.name)

    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            publish(partial, final)
    (partial if kind == "file" else tmp_path / ".student.old.part").stat()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["student"]
    assert (final if kind == "file" else final / "weights").read_text() == "student"
    partial.mkdir()
    publish(partial, final)
    assert [path.name for path in tmp_path.rglob("*")] == ["student"]


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "gone", "a folder"])
def test_a_damaged_file_of_a_sealed_folder_is_named(tmp_path, how):
    (tmp_path / "part" / "deep").mkdir(parents=True)
    (tmp_path / "part" / "weights").write_bytes(b"weights")
    (tmp_path / "part" / "deep" / "more").write_bytes(b"more")
    (tmp_path / "final").write_text("in the way")
    seal(tmp_path / "part" / "manifest.json", about={"kind": "teacher"})
    publish(tmp_path / "part", tmp_path / "final")
    manifest, path = tmp_path / "final" / "manifest.json", tmp_path / "final" / "deep" / "more"
    assert damage(manifest) is None
    assert read_json(manifest)["kind"] == "teacher"
    spoil(path, how)
    assert damage(manifest) == "deep/more"
    spoil(manifest, how)
    assert damage(manifest) in ("manifest.json", "deep/more")


def spoil(path, how: str) -> None:
    data = path.read_bytes()
    path.unlink()
    if how == "a folder":
        path.mkdir()
    elif how != "gone":
        path.write_bytes({"flipped": bytes([data[0] ^ 1]) + data[1:], "cut": data[:-1], "empty": b""}[how])


def test_a_manifest_of_before_is_still_good(tmp_path):
    (tmp_path / "weights").write_bytes(b"weights")
    write_json(tmp_path / "manifest.json", {"files": {"weights": sha256_of(tmp_path / "weights")}})
    assert damage(tmp_path / "manifest.json") is None
    (tmp_path / "weights").write_bytes(b"weighty")
    assert damage(tmp_path / "manifest.json") == "weights"


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_sealed_files_have_the_mode_of_new_files(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        (tmp_path / "weights").touch(mode=0o600)
        seal(tmp_path / "manifest.json")
        write_json(tmp_path / "other.json", {})
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {mode}


def test_no_flipped_bit_of_a_sealed_file_is_read(tmp_path):
    path, value = tmp_path / "answer.json", {"content": "8 9", "tokens": 3}
    write_sealed_json(path, value)
    data = path.read_bytes()
    assert read_sealed_json(path) == value
    for at in range(len(data)):
        for bit in range(8):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
            try:
                found = read_sealed_json(path)
            except ValueError:
                continue
            # the checksum's own name may be hit: then the key that is left over tells
            assert found == value or found.keys() != value.keys(), (at, bit)
    write_json(path, value)
    assert read_sealed_json(path) == value, "without a checksum, such as one written before"


@pytest.mark.parametrize("text", [b"", b"[" * 100_000, b'{"a":' * 100_000, b"[1]", b"\xff", b"null"])
def test_what_is_no_json_object_is_a_value_error(tmp_path, text):
    path = tmp_path / "file"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=r"\S"):
        read_sealed_json(path)


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "no objects", "deep"])
def test_damaged_rows_are_a_value_error(tmp_path, how):
    path = tmp_path / "rows.jsonl.gz"
    write_jsonl_gz(path, ROWS)
    data = path.read_bytes()
    middle = len(data) // 2
    spoilt = {
        "flipped": data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :],
        "cut": data[:middle],
        "empty": b"",
        "no objects": gzip.compress(b"1\n2\n"),
        "deep": gzip.compress(b"[" * 100_000),
    }
    path.write_bytes(spoilt[how])
    with pytest.raises((ValueError, OSError)):
        read_jsonl_gz(path)
