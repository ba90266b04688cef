"""The report's first screen, from records for which each line is known."""

from __future__ import annotations

import re

import pytest

from bench.record.store import Store
from paper_tables.claims.beside import ONE_RATE, beside
from paper_tables.claims.verdicts import verdicts
from paper_tables.numbers.runs import RunIndex
from paper_tables.report.glance import at_a_glance
from paper_tables.tables.make import fill_table
from tests.records import noisy, rewrite, rouge_rows, write_record

SEEDS = (10, 20, 30)


def glance(out):
    index = RunIndex(Store(out), "tiny")
    tables = [fill_table(index, name) for name in ("main", "3", "5")]
    return at_a_glance(verdicts(index), tables, index.records, beside(index))


def runs(out, method, mean, task="dolly", **fields):
    return [
        write_record(out, method, task, seed, mean=mean + number / 10, **fields) for number, seed in enumerate(SEEDS)
    ]


def test_the_best_stands_with_what_is_not_told_apart_and_the_fastest_of_these(tmp_path):
    runs(tmp_path, "kld", 29.0, seconds=20.0)
    runs(tmp_path, "skl", 29.3, seconds=25.0)
    runs(tmp_path, "sft", 29.1, seconds=10.0)
    runs(tmp_path, "rkld", 15.0, seconds=5.0)
    runs(tmp_path, "kld", 30.0, "samsum")
    runs(tmp_path, "sft", 20.0, "samsum")
    dolly, samsum = glance(tmp_path).use
    best, rest = dolly.split(" is highest of 4; not told apart from it: ")
    others, fastest = rest.split("; least training time of these: ")
    named = [part.split()[0] for part in (best.removeprefix("Dolly (ROUGE-L): "), *others.split(", "))]
    assert sorted(named) == ["KLD", "SFT", "SKL"]
    assert fastest == "SFT, 0.50 times that of KLD."
    assert samsum.startswith("SAMSum (ROUGE-L), tiny-t5: KLD ")
    assert samsum.endswith(" is highest of 2; significantly above all others.")


def test_what_is_too_noisy_to_tell_stands_apart_from_what_is_not_told_apart(tmp_path):
    means = {"kld": (33.0, 33.1, 32.9), "sft": (32.9, 33.1, 32.95), "gkd": (30.0, 30.0, 30.1), "minillm": (18, 31, 30)}
    for method, of_seed in means.items():
        for seed, mean in zip(SEEDS, of_seed, strict=True):
            rows = rouge_rows(noisy(mean, 0, ("test",), sd=0))
            write_record(tmp_path, method, "samsum", seed, rows=rows)
    (line,) = glance(tmp_path).use
    assert re.search(
        r"KLD \d\d\.\d\d is highest of 4; not told apart from it: SFT \d\d\.\d\d; too noisy to tell: MiniLLM", line
    )


def test_of_one_method_alone_nothing_is_said(tmp_path):
    runs(tmp_path, "kld", 30.0)
    assert glance(tmp_path).use == ()


@pytest.mark.parametrize(
    ("init", "expected"),
    [("sft", ("MiniLLM (Dolly)", "MiniLLM (SFT init student)")), ("pretrained", ())],  # never had that student
)
def test_a_method_below_the_init_student_that_it_began_from_is_named(tmp_path, init, expected):
    runs(tmp_path, "kld", 30.0, init=init)
    for record in runs(tmp_path, "minillm", 20.0, init=init):
        start = {name: one.model_copy(deep=True).model_dump(mode="json") for name, one in record.scores.items()}
        start["test"]["metrics"]["rouge_l"]["mean"] = 25.0
        rewrite(tmp_path, record, init_scores=start)
    assert glance(tmp_path).warnings == expected


def test_what_runs_with_other_settings_say_stands_beside_each_verdict(tmp_path):
    tuned = tmp_path / "tuning" / "tiny-tuned.yaml"
    tuned.parent.mkdir()
    tuned.write_text("extends: tiny\nsummary: tiny, tuned\n")
    for method, mean, other in (("kld", 20.0, 35.0), ("skl", 35.0, 20.0)):
        runs(tmp_path, method, mean)
        runs(tmp_path, method, other, preset=str(tuned))
    runs(tmp_path, "distillm", 30.0, seconds=20.0)
    columns = glance(tmp_path).columns
    assert list(columns) == [ONE_RATE, "tuned"], "no run takes equal time"
    assert [column["skew-beats-kl"] for column in columns.values()] == [
        "holds (2, 0 of 2)",
        "does not hold (0, 2 of 2)",
    ]
    assert columns[ONE_RATE]["near-kd-time"].startswith("holds (1, 0")
    assert columns["tuned"]["near-kd-time"] == "", "times are those of the runs with one rate"
    assert columns["tuned"]["best-samsum"] == "", "none of its runs is recorded"


def test_each_task_says_whether_the_criteria_of_the_regime_hold(tmp_path):
    runs(tmp_path, "sft", 20.0)
    runs(tmp_path, "kld", 21.0)
    for record in [*Store(tmp_path).all()]:
        teacher = {name: one.model_copy(deep=True).model_dump(mode="json") for name, one in record.scores.items()}
        teacher["test"]["metrics"]["rouge_l"]["mean"] = 50.0
        rewrite(tmp_path, record, teacher_scores=teacher)
    (line,) = glance(tmp_path).regime
    assert line.startswith("Dolly (tiny-llama) fails criterion 1: SFT's validation loss is least at 100% of training; ")
    assert re.search(r"criterion 2: SFT reaches \d+\.\d of the teacher's 50\.0 points", line)
    assert re.search(r"criterion 3: KLD on fixed data gains -?\d\.\d of \d+\.\d points", line)
    assert "criterion 5" not in line
