"""`import bench`, from a folder outside the repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import bench
from bench.record.store import RECORD
from bench.system.errors import BenchError
from tests.records import make_record, write_record


def test_records_of_a_folder(tmp_path):
    made = [write_record(tmp_path, method, "samsum") for method in ("kld", "srkl")]
    found = bench.records(tmp_path)
    assert found == sorted(made, key=lambda record: record.run_id)
    assert all(isinstance(record, bench.RunRecord) for record in found)
    assert bench.records(str(tmp_path)) == found


def test_by_default_those_of_the_folder_results_here(tmp_path, monkeypatch):
    made = write_record(tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    assert bench.records() == [made]


def test_a_folder_without_runs_has_no_records_and_no_folder_is_an_error(tmp_path):
    assert bench.records(tmp_path) == []
    with pytest.raises(BenchError, match=r"no folder .*nowhere"):
        bench.records(tmp_path / "nowhere")


def test_what_cannot_be_read_is_named_in_a_warning_at_the_callers_line(tmp_path):
    write_record(tmp_path, "kld")
    damaged = write_record(tmp_path, "srkl")
    (tmp_path / "runs" / damaged.run_id / RECORD).write_text("{")
    with pytest.warns(UserWarning, match=f"skipped .*{damaged.run_id}.*: damaged or cut off") as caught:
        assert len(bench.records(tmp_path)) == 1
    assert Path(caught[0].filename) == Path(__file__)


def test_the_import_is_cheap_and_what_is_not_there_is_told(tmp_path):
    code = (
        "import sys, bench\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pydantic'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
        "from bench import RunRecord\n"
        "assert bench.records('.') == []\n"
        "assert 'torch' not in sys.modules\n"
        "assert not hasattr(bench, 'recods')\n"
    )
    root = Path(bench.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(root)}, check=True)


def test_run_record_is_the_type_of_records():
    assert isinstance(make_record()[0], bench.RunRecord)
