"""`--task` of tables, claims and report: the paper's rows, asked of the runs of one other task and pair."""

from __future__ import annotations

import csv
import json

import pytest

from bench.record.store import Store
from tests.paper_tables.conftest import MEANS
from tests.records import make_record, noisy, rouge_rows, write_record

STEM = "table1-tiny-task-samsum-tiny-t5-measured"


@pytest.fixture
def both(out):
    """Table 1's runs on Dolly, the same on SAMSum with other scores, and trials of tuning there."""
    for method, mean in MEANS.items():
        for seed in (10, 20, 30):
            write_record(out, method, "samsum", seed=seed, mean=mean - 10, init="sft")
            rows = rouge_rows(noisy(90.0, seed, ("validation",)))
            options = ("score_on=validation", "training.learning_rate=1e-3")
            Store(out).write(*make_record(method, "samsum", seed, rows=rows, init="sft", assignments=options))
    return out


def test_a_table_has_that_tasks_runs_and_the_others_file_stays(command, both):
    assert command("tables", "1", "--out", both).exit_code == 0
    before = {path: path.read_bytes() for path in (both / "tables").iterdir()}
    result = command("tables", "1", "--task", "samsum", "--out", both)
    assert result.exit_code == 0, result.output
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in set((both / "tables").iterdir()) - set(before)} == {
        f"{STEM}.{ending}" for ending in ("csv", "tex", "md")
    }
    lines = list(csv.DictReader((both / "tables" / f"{STEM}.csv").open(encoding="utf-8")))
    found = {line["row"]: float(line["mean"]) for line in lines if line["method"] and line["mean"]}
    scores = {}
    for record in Store(both).all():
        if record.task == "samsum" and record.config.score_on == "test":
            scores.setdefault(record.config.method.name, []).append(record.scores["test"].primary.mean)
    assert sorted(found.values()) == pytest.approx(sorted(sum(own) / 3 for own in scores.values()), abs=0.01)
    assert "--method srkl --task samsum --preset tiny --seed 30" in result.stdout


def test_claims_are_judged_by_that_tasks_runs(command, both):
    known = [one["id"] for one in json.loads(command("claims", "--json", "--out", both).stdout)]
    asked = ("claims", "--json", "--out", both)
    ours = {one["id"]: one for one in json.loads(command(*asked, "--task", "samsum").stdout)}
    assert list(ours) == [name for name in known if name not in ("best-samsum", "best-iwslt")]
    refused = command(*asked, "--task", "samsum", "best-iwslt")
    assert (refused.exit_code, "is about one of the paper's tasks" in refused.stderr) == (2, True)
    runs = {run for one in ours.values() for c in one["comparisons"] for run in c["runs"]}
    assert runs
    assert all(run.startswith("samsum-") for run in runs)
    lacking = [one["reason"] for one in ours.values() if "no runs" in one["reason"]]
    assert any("bench tables main --task samsum names them" in reason for reason in lacking)
    assert not any("bench suite" in reason for reason in lacking)


def test_the_report_names_the_task(command, both):
    result = command("report", "--task", "samsum", "--out", both)
    assert result.exit_code == 0, result.output
    page = (both / "report-tiny-task-samsum-tiny-t5.html").read_text(encoding="utf-8")
    assert "preset tiny, task samsum, models tiny-t5" in page
    assert "dolly-kld" not in page


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--models", "tiny-t5"], "--models goes with --task"),
        (["--task", "iwslt"], "no runs on iwslt"),
        (["--task", "samsum", "--models", "tiny-llama"], "with models tiny-llama (recorded: tiny-t5)"),
    ],
)
def test_what_is_not_there_is_told(command, both, more, told):
    result = command("tables", "1", "--out", both, *more)
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())
