"""What is published in results/ follows from the records beside it, to the byte."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench.analysis.timing import has_exclusive_timing
from bench.record.store import Store
from paper_tables import performance
from paper_tables.claims.format import as_markdown
from paper_tables.claims.verdicts import verdicts
from paper_tables.numbers.runs import RunIndex
from paper_tables.paper.own_task import own_task
from paper_tables.paper.suites import run_specs, timed_specs
from paper_tables.published import PAGES, replaced, sections
from paper_tables.regime import regime
from paper_tables.suite.plan import make_plan
from tests.conftest import invoke

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "results" / "paper-tiny"
EARLY = ROOT / "results" / "dolly-early-teacher"
"""Dolly with the teacher whose training ended early: the tables with five seeds, sweeps with three, at one rate."""
EARLY_SUITES, EARLY_SEEDS = ("main", "table1", "table2", "table4", "table5"), (10, 20, 30, 40, 50)
TABLE_SUITES = ("main", "table1", "table2", "table3", "table4", "table5")
SEEDS = (10, 20, 30)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The published records alone, in a folder of their own."""
    folder = tmp_path_factory.mktemp("published")
    shutil.copytree(PUBLISHED / "runs", folder / "runs")
    shutil.copytree(PUBLISHED / "model-probes", folder / "model-probes")
    return folder


@pytest.fixture(scope="module")
def index(out):
    return RunIndex(Store(out, refuse), "tiny", warn=refuse)


def refuse(message: str) -> None:
    raise AssertionError(message)


def test_the_records_are_of_the_suite_with_its_times_made_from_named_commits(monkeypatch):
    """The suite grows over several sittings: tables and times come first, then sweeps, then more seeds."""
    every = list(Store(PUBLISHED, refuse).all())
    records = [record for record in every if record.config.preset == "tiny"]
    (version,) = {record.environment.distillm_bench for record in records}
    monkeypatch.setattr("paper_tables.suite.plan.__version__", version)  # a later one would make them again
    timed = timed_specs("tiny")
    plan = make_plan(run_specs("paper", "tiny"), timed, records, preset="tiny", seeds=(10, 20, 30, 40, 50), jobs=2)
    assert len(plan.runs) - len(plan.to_do) == len(records)
    for suite, seeds in (("paper", SEEDS), *((table, (40, 50)) for table in TABLE_SUITES)):
        plan = make_plan(run_specs(suite, "tiny"), timed, records, preset="tiny", seeds=seeds, jobs=2, times=False)
        # the second student size has three seeds
        assert not [run for run in plan.to_do if run.seed in SEEDS or not run.spec.models.endswith("-small")]
    assert not make_plan(run_specs("paper", "tiny"), timed, records, preset="tiny", seeds=SEEDS, jobs=2).to_do
    rules = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert all(record.environment.git.commit[:7] in rules for record in every)
    assert not any(record.environment.git.changed for record in every)


@pytest.mark.parametrize("preset", ["tuning/tiny-tuned.yaml", "tiny-as-long-as-distillm.yaml"])
def test_presets_that_extend_the_published_one_have_their_runs(preset):
    made = [record for record in Store(PUBLISHED, refuse).all() if record.config.preset == Path(preset).stem]
    plan = make_plan(run_specs("main", str(PUBLISHED / preset)), {}, made, preset=str(PUBLISHED / preset), seeds=SEEDS)
    assert not plan.to_do
    others = make_plan(run_specs("table3", "tiny"), {}, [], preset="tiny", seeds=SEEDS)
    assert len(plan.runs) <= len(made) <= len(plan.runs) + len(others.runs)


def test_timed_training_takes_two_minutes_at_most():
    """Of the exclusively timed runs, all of them on Dolly, on one core."""
    seconds = [r.time.training_seconds for r in Store(PUBLISHED, refuse).all() if has_exclusive_timing(r)]
    assert len(seconds) >= 33
    assert max(seconds) < 120


@pytest.mark.parametrize("name", list(PAGES))
def test_pages_tell_what_the_records_say(name):
    page = (ROOT / name).read_text(encoding="utf-8")
    assert replaced(page, sections(PUBLISHED)[PAGES[name]]) == page, "python -m paper_tables.published"


def test_the_page_of_the_speed_has_the_newest_record_and_a_reason_for_each_target_that_is_missed():
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    made = performance.section(ROOT / "results")
    assert replaced(page, made, performance.BEGIN, performance.END) == page, "python -m paper_tables.published"
    assert performance.records_of(ROOT / "results", "cpu")
    _, _, reasons = page.partition("## Targets that are missed")
    for target in performance.missed(ROOT / "results", "cpu"):
        assert f"**{target.comparison}**" in reasons, f"say why: {target}"


def test_the_page_of_the_regime_has_the_table_of_the_records():
    table = regime(Store(PUBLISHED, refuse), "tiny").round(2).to_string(index=False)
    assert f"```text\n{table}\n```" in (ROOT / "docs" / "tiny-regime.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("folder", [PUBLISHED, EARLY], ids=lambda folder: folder.name)
def test_everything_published_follows_from_the_records(folder):
    """Tables, verdicts, figures' data and the report, cell by cell, as readers can check it themselves."""
    result = invoke("verify", str(folder), "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    derived = [*folder.glob("tables/*"), *folder.glob("figures/*")]
    count = sum(path.suffix in {".csv", ".tex", ".md", ".txt"} for path in derived) + 2  # claims and report
    assert found["checked"]["files"] == count
    assert not [reason for reason in found["not_checked"] if "no record makes it" in reason]


def test_with_the_early_teacher_all_criteria_hold_and_the_page_has_the_table():
    records = list(Store(EARLY, refuse).all())
    assert {record.config.models.name for record in records} == {"tiny-llama-early"}
    assert not any(record.environment.git.changed for record in records)
    (found,) = regime(Store(EARLY, refuse), "tiny").to_dict("records")
    assert found["missed"] == "none"
    own = own_task("dolly", "tiny", "tiny-llama-early")
    tuned = str(EARLY / "tuning" / "tiny-tuned-tiny-llama-early.yaml")
    tables = dict.fromkeys(spec for suite in EARLY_SUITES for spec in run_specs(suite, "tiny", own))
    made = set()
    for preset, specs, seeds in (
        ("tiny", tables, EARLY_SEEDS),
        ("tiny", run_specs("paper", "tiny", own), SEEDS),
        (tuned, run_specs("main", tuned, own_task("dolly", tuned, "tiny-llama-early")), SEEDS),
    ):
        plan = make_plan(specs, {}, records, preset=preset, seeds=seeds, times=False)
        assert plan.to_do == ()
        made.update((preset, run) for run in plan.runs)
    assert len(made) == len(records)
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    report = (EARLY / "report-tiny-task-dolly-tiny-llama-early.html").read_text(encoding="utf-8")
    assert report.count("is highest of") == 1  # the same runs stand in the main table and in Table 3
    for name in ("tiny", "tiny-tuned-tiny-llama-early"):
        table = (EARLY / "tables" / f"main-{name}-task-dolly-tiny-llama-early-measured.md").read_text(encoding="utf-8")
        for line in table.splitlines()[5:20]:
            assert " | ".join(line.split(" | ")[:6]) in page


def test_with_the_early_teacher_sft_at_its_own_rate_leaves_nothing_to_gain():
    (found,) = regime(Store(EARLY, refuse), str(EARLY / "tuning" / "tiny-tuned-tiny-llama-early.yaml")).to_dict(
        "records"
    )
    assert (found["seeds"], found["missed"]) == (3, "2, 3")
    assert found["sft"] > found["kld"]


def test_verdicts_follow_from_the_records(index):
    assert as_markdown(verdicts(index), "tiny") + "\n" == (PUBLISHED / "claims.md").read_text(encoding="utf-8")
