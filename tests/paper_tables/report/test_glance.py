"""The report's first screen, from records for which each line is known."""

from __future__ import annotations

import pytest

from bench.record.store import Store
from paper_tables.claims.verdicts import verdicts
from paper_tables.numbers.runs import RunIndex
from paper_tables.report.glance import at_a_glance
from paper_tables.tables.make import fill_table
from tests.records import rewrite, write_record

SEEDS = (10, 20, 30)


def glance(out):
    index = RunIndex(Store(out), "tiny")
    return at_a_glance(verdicts(index), [fill_table(index, name) for name in ("main", "3", "5")], index.records)


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
