"""Runs of equal training time: steps by method from recorded times, in a preset."""

from __future__ import annotations

import pytest

from bench.record.store import Store
from bench.system import yaml_text
from bench.system.errors import BenchError
from paper_tables.numbers.runs import RunIndex
from paper_tables.paper.tables import MAIN_METHODS, tables
from paper_tables.suite.equal_time import equal_time_preset, write_preset
from tests.records import rewrite, write_record

BEFORE = {"seqkd": {"teacher responses": 13.0}, "distillm": {"init student": 2.0}}
SECONDS = {"distillm": 24.0, "imitkd": 40.0, "sft": 10.0}


@pytest.fixture
def out(tmp_path):
    """A run of 400 steps of every method of the main table."""
    for method in MAIN_METHODS:
        record = write_record(tmp_path, method, seconds=SECONDS.get(method, 20.0))
        rewrite(tmp_path, record, time__before={"init student": 0.0} | BEFORE.get(method, {}))
    return tmp_path


def planned(out, reference="distillm", names=("main",), only=()):
    return equal_time_preset(RunIndex(Store(out), "tiny"), names, reference, only)


def test_every_method_gets_the_steps_that_the_reference_has_time_for(out, command):
    path = out / "tiny-as-long-as-distillm.yaml"
    write_preset(path, planned(out))
    steps = {row.name: row.specs["dolly"].config(str(path)).training.steps for row in tables(str(path))["main"].rows}
    assert steps == dict.fromkeys(MAIN_METHODS, 520) | {  # 26 s at 20 s for 400
        "distillm": 400,
        "imitkd": 260,
        "sft": 1040,
        "seqkd": 260,  # half of the time goes into the teacher's responses
    }
    told = command("suite", "main", "--equal-time", "distillm", "--seeds", "10", "--dry-run", "--out", out)
    assert told.exit_code == 0, told.stderr
    assert "13 runs, 0 recorded, 13 to do" in told.stdout
    assert f"--method imitkd --task dolly --preset {path}" in told.stdout.replace("\n", "")


def test_steps_that_runs_were_begun_with_stay(out):
    path = out / "planned.yaml"
    write_preset(path, planned(out))
    rewrite(out, next(r for r in Store(out).all() if r.config.method.name == "kld"), time__training_seconds=40.0)
    again = planned(out)
    assert again["pairs"]["tiny-llama"]["methods"]["kld"]["training"]["steps"] == 260
    write_preset(path, again)
    assert yaml_text.read(path)["pairs"]["tiny-llama"]["methods"]["kld"]["training"]["steps"] == 520


def test_steps_are_planned_anew_when_asked(out, command):
    path = out / "tiny-as-long-as-distillm.yaml"
    write_preset(path, planned(out))
    rewrite(out, next(r for r in Store(out).all() if r.config.method.name == "kld"), time__training_seconds=40.0)
    # no method is left to run, so that nothing is trained
    asked = ("suite", "main", "--equal-time", "distillm", "--replan", "--out", out)
    refused = command(*asked, "--dry-run")
    assert (refused.exit_code, "--replan writes" in refused.stderr) == (2, True)
    command(*asked, "--seeds", "10", "--minutes", "0.001")
    assert yaml_text.read(path)["pairs"]["tiny-llama"]["methods"]["kld"]["training"]["steps"] == 260
    alone = command("suite", "main", "--replan", "--out", out)
    assert (alone.exit_code, "--replan goes with --equal-time" in alone.stderr) == (2, True)


def test_nothing_is_planned_by_a_dry_run(out, command):
    refused = command("suite", "main", "--equal-time", "distillm", "--dry-run", "--out", out)
    assert refused.exit_code == 2
    assert "is not planned yet" in refused.stderr
    assert not list(out.glob("*.yaml"))
    unknown = command("suite", "main", "--equal-time", "../distilm", "--out", out)
    assert (unknown.exit_code, "unknown method '../distilm'" in unknown.stderr) == (2, True)


def test_what_cannot_be_planned_is_told(out):
    with pytest.raises(BenchError, match="table 2 has skl in several ways"):
        planned(out, names=("2",))
    with pytest.raises(BenchError, match="taid: table main has no such row"):
        planned(out, "taid")
    with pytest.raises(BenchError, match="seqkd has time for 0 steps in the budget of 10 s"):
        planned(out, "sft")
    rewrite(out, next(r for r in Store(out).all() if r.config.method.name == "seqkd"), time__before={})
    rewrite(out, next(r for r in Store(out).all() if r.config.method.name == "gkd"), environment__other_load=1.0)
    with pytest.raises(BenchError, match="none of what came before it, of seqkd, gkd with models tiny-llama"):
        planned(out)
    assert planned(out, only=("kld",))["pairs"]["tiny-llama"]["methods"].keys() == {"kld", "distillm"}
