"""`--task` of tables, claims and report: the paper's rows, asked of the runs of one other task and pair."""

from __future__ import annotations

import csv
import json
import re

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
    assert any("bench suite main --task samsum --models tiny-t5" in reason for reason in lacking)
    assert all("--task samsum --models tiny-t5" in reason for reason in lacking if "bench suite" in reason)


def test_a_suite_of_the_task_makes_the_runs_that_its_table_lacks(command, both):
    asked = ("--task", "samsum", "--models", "tiny-t5", "--out", both)
    planned = command("suite", "table1", *asked, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert "15 runs, 12 recorded, 3 to do" in planned.stdout
    lacking = [line for line in command("tables", "1", *asked).stdout.splitlines() if "bench run" in line]
    commands = [line for line in planned.stdout.splitlines() if line.startswith("bench run")]
    assert len(commands) == 3
    assert {line[line.index("bench run") :] for line in lacking} == set(commands)
    assert all("--method srkl --task samsum --preset tiny" in line for line in commands)
    # what can be shown is told of these runs, not of Dolly's
    assert "  table1: test " in planned.stdout


def test_a_suite_of_another_pair_and_of_a_task_file(command, tmp_path):
    given = ("--seeds", "10", "--dry-run", "--out", tmp_path / "none")
    other = command("suite", "main", "--preset", "paper", "--task", "dolly", "--models", "opt-2.7b-to-opt-125m", *given)
    assert other.exit_code == 0, other.output
    commands = [line for line in other.stdout.splitlines() if line.startswith("bench run")]
    assert len(commands) == 13
    assert all("--task dolly --preset paper" in line and "--models opt-2.7b-to-opt-125m" in line for line in commands)
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\nmetrics: [rouge_l]\nprompt_columns: [question]\nresponse_column: answer\n"
        'templates: {plain: "{question}\\n"}\n'
    )
    (tmp_path / "data").mkdir()
    for split in ("train", "validation", "test"):
        (tmp_path / "data" / f"{split}.jsonl").write_text('{"question": "a?", "answer": "b"}\n')
    own = command("suite", "table4", "--task", file, "--data-dir", tmp_path / "data", *given)
    assert own.exit_code == 0, own.output
    commands = [line for line in own.stdout.splitlines() if line.startswith("bench run")]
    assert len(commands) == 8
    assert all(f"--task {file} --preset tiny" in line and "data.dir=" in line for line in commands)


@pytest.mark.parametrize("preset", ["tiny", "paper"])
@pytest.mark.parametrize("task", ["dolly", "samsum"])
def test_every_suite_can_be_asked_of_every_task(command, tmp_path, preset, task):
    """Ablations, which nothing is published of, and the weight of plain text, which SAMSum has none of, among them."""
    given = ("--preset", preset, "--task", task, "--seeds", "10", "--dry-run", "--out", tmp_path)
    whole = command("suite", "paper", *given)
    assert whole.exit_code == 0, whole.output
    commands = [line for line in whole.stdout.splitlines() if line.startswith("bench run")]
    assert len(commands) > 40
    parts = [command("suite", "paper", *given, "--shard", f"{part}/3").stdout.splitlines() for part in (1, 2, 3)]
    assert sorted(line for part in parts for line in part if line.startswith("bench run")) == sorted(commands)


def test_capacities_of_the_ablation_are_shares_of_the_tasks_own(command, tmp_path):
    given = ("--task", "iwslt", "--seeds", "10", "--dry-run", "--out", tmp_path)
    told = command("suite", "buffer-capacity", *given).stdout
    assert re.findall(r"sgo.capacity=(\d+)", told) == ["20", "40", "160", "320"]  # of 80; on Dolly of 32
    write_record(tmp_path, "distillm", "iwslt")
    made = command("tables", "buffer-capacity", "--task", "iwslt", "--out", tmp_path)
    assert made.exit_code == 0, made.output
    (page,) = (tmp_path / "tables").glob("buffer-capacity-tiny-task-iwslt-*-measured.md")
    assert re.findall(r"(\d+) responses", page.read_text(encoding="utf-8")) == ["20", "40", "80", "160", "320"]


def test_published_values_stand_beside_runs_of_their_pair(command, tmp_path):
    pair = "openllama2-7b-to-openllama2-3b"
    for seed in (10, 20):
        write_record(tmp_path, "kld", seed=seed, preset="paper", models=pair)
    result = command("tables", "main", "--preset", "paper", "--task", "dolly", "--models", pair, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    (file,) = (tmp_path / "tables").glob("main-paper-task-dolly-*-side-by-side.csv")
    found = {(line["row"], line["column"]): line for line in csv.DictReader(file.open(encoding="utf-8"))}
    assert found["kld", "dolly"]["published"] == "20.95"
    assert found["kld", "dolly"]["measured"]
    assert {line["published_for"] for line in found.values()} == {pair}


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


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--models", "tiny-t5"], "--models tiny-t5 goes with --task"),
        (["--task", "dolyl"], "unknown task 'dolyl': did you mean 'dolly'?"),
        (["--task", "samsum", "--models", "tiny-t6"], "tiny-t6"),
        (["--task", "samsum", "--equal-time", "distillm"], "--equal-time goes with the paper's tasks"),
        (["--set", "models.name=tiny-t5"], "choose them with --task and --models"),
    ],
)
def test_a_suite_of_what_is_not_there_is_refused(command, tmp_path, more, told):
    result = command("suite", "table1", "--out", tmp_path, "--dry-run", *more)
    assert result.exit_code == 2
    assert told in result.stderr
