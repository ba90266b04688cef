"""Files are written whole or not at all."""

import gzip
import subprocess
import sys
import textwrap

import pytest

from bench.system.errors import BenchError
from bench.system.files import read_json, read_jsonl_gz, sha256_of, write_bytes, write_json, write_jsonl_gz

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
