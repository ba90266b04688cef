"""`bench.run` and `bench.records`, as a notebook uses them."""

import subprocess
import sys

import pytest

import bench
from bench.system.errors import BenchError
from tests.conftest import SHORT, invoke

SETTINGS = {**SHORT, "evaluation.seeds": [10]}


def test_a_run_from_python_is_the_run_of_the_command(cache, tmp_path):
    record = bench.run("srkl", "iwslt", settings=SETTINGS, seed=20, out=tmp_path)
    assert isinstance(record, bench.RunRecord)
    assert (record.config.method.name, record.task, record.seed) == ("srkl", "iwslt", 20)
    words = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    result = invoke("run", "--task", "iwslt", "--seed", "20", "--out", str(tmp_path), *words)
    assert result.exit_code == 0, result.output
    assert "recorded before" in result.stdout
    assert [one.run_id for one in bench.records(tmp_path)] == [record.run_id]


@pytest.mark.slow
def test_a_recorded_configuration_runs_again(cache, tmp_path):
    first = bench.run(task="iwslt", settings=SETTINGS, out=tmp_path / "first")
    path = tmp_path / "first" / "runs" / first.run_id / "record.json"
    for config in (path, str(path), first.config.canonical()):
        again = bench.run(config=config, out=tmp_path / "again")
        assert again.run_id == first.run_id
        assert again.scores == first.scores
    other = bench.run(config=path, seed=30, settings={"training.steps": 4}, out=tmp_path / "again")
    assert (other.seed, other.training.steps) == (30, 4)


def test_choices_that_a_configuration_has_made_are_refused():
    with pytest.raises(BenchError, match="sgo, method: the configuration has made that choice"):
        bench.run("kld", sgo="mixed", config={"preset": "tiny"})


def test_importing_bench_imports_no_library():
    code = "import sys, bench; print(sorted({'torch', 'transformers', 'pandas', 'pydantic'} & sys.modules.keys()))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
