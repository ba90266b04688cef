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
from tests.records import SETS, noisy, rewrite, rouge_rows, write_record

SEEDS = (10, 20, 30)


def glance(out):
    index = RunIndex(Store(out), "tiny")
    tables = [fill_table(index, name) for name in ("3", "5", "main")]
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
    dolly, samsum = (one.line for one in glance(tmp_path).best)
    best, rest = dolly.split(" is highest of 4; not told apart from it: ")
    others, fastest = rest.split("; least training time of these: ")
    named = [part.split()[0] for part in (best.removeprefix("Dolly (ROUGE-L): "), *others.split(", "))]
    assert sorted(named) == ["KLD", "SFT", "SKL"]
    assert fastest.startswith("SFT, 0.50 times that of KLD; this is the set Dolly alone: by the mean of all 5 sets ")
    assert samsum.startswith("SAMSum (ROUGE-L), tiny-t5: KLD ")
    assert samsum.endswith(" is highest of 2; significantly above all others.")


def test_what_is_too_noisy_to_tell_stands_apart_from_what_is_not_told_apart(tmp_path):
    means = {"kld": (33.0, 33.1, 32.9), "sft": (32.9, 33.1, 32.95), "gkd": (30.0, 30.0, 30.1), "minillm": (18, 31, 30)}
    for method, of_seed in means.items():
        for seed, mean in zip(SEEDS, of_seed, strict=True):
            rows = rouge_rows(noisy(mean, 0, ("test",), sd=0))
            write_record(tmp_path, method, "samsum", seed, rows=rows)
    line = glance(tmp_path).best[0].line
    assert re.search(
        r"KLD \d\d\.\d\d is highest of 4; not told apart from it: SFT \d\d\.\d\d; too noisy to tell: MiniLLM", line
    )


def test_of_one_method_alone_nothing_is_said(tmp_path):
    runs(tmp_path, "kld", 30.0)
    assert glance(tmp_path).best == ()


@pytest.mark.parametrize(
    ("init", "expected"),
    [("sft", ("MiniLLM (SFT init student)", "MiniLLM (Dolly)")), ("pretrained", ())],  # never had that student
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
        "holds (2, 0 of 2); other sets (3, 0 of 3)",
        "does not hold (0, 2 of 2); other sets (0, 3 of 3)",
    ]
    (told,) = glance(tmp_path).elsewhere.values()
    assert "decide nothing here: one rate, 3 of 3 comparisons hold; tuned, 0 of 3 comparisons hold, 3 the other" in told
    assert re.search(r"the other way round \(SKL − KLD, Dolly: -1\d\.", told)
    assert columns[ONE_RATE]["near-kd-time"].startswith("holds (1, 0")
    assert columns["tuned"]["near-kd-time"] == "", "times are those of the runs with one rate"
    assert columns["tuned"]["best-samsum"] == "", "none of its runs is recorded"


def test_what_is_best_stands_with_every_setting_and_in_short(tmp_path):
    as_long = tmp_path / "tiny-as-long-as-distillm.yaml"
    as_long.write_text("extends: tiny\nsummary: equal time\n")
    for method, mean, other in (("kld", 35.0, 20.0), ("sft", 20.0, 40.0)):
        runs(tmp_path, method, mean)
        for record in runs(tmp_path, method, other, preset=str(as_long)):
            losses = [{"step": step, "loss": loss} for step, loss in ((0, 2.0), (900, 4.0))]
            rewrite(tmp_path, record, training__steps=900, validations=losses)
    found = glance(tmp_path)
    assert [(one.setting, one.method) for one in found.best] == [(ONE_RATE, "KLD"), ("equal time", "SFT")]
    assert [one.line.partition(" SFT")[0].partition(" KLD")[0] for one in found.best] == [
        "Dolly (ROUGE-L), one rate:",
        "Dolly (ROUGE-L), equal time:",
    ]
    assert found.claims.startswith("0 of 30 claims hold here. ")
    assert found.claims.endswith(" are open.")
    assert found.highest == (("setting", "Dolly"), (ONE_RATE, "KLD"), ("equal time", "SFT"))
    assert re.fullmatch(
        r"Dolly \(tiny-llama\), equal time: with 900 steps in place of 400 SFT's score changes by "
        r"\+\d+\.\d\d, \+\d+\.\d\d, \+\d+\.\d\d \(seeds 10, 20, 30\), while its validation loss goes "
        r"from 2\.00 to 4\.00: it overfits in loss, and in score it has not converged at the preset's steps\.",
        found.regime[-1],
    )


def test_the_set_that_is_told_of_is_named_where_another_method_is_best_over_all_sets(tmp_path):
    for method, dolly, rest in (("kld", 40.0, 20.0), ("skl", 30.0, 30.0)):
        for seed in SEEDS:
            rows = rouge_rows(
                {name: noisy(dolly if name == "test" else rest, 0, (name,))[name] for name in SETS["dolly"]}
            )
            write_record(tmp_path, method, seed=seed, rows=rows)
    (best,) = glance(tmp_path).best
    assert (best.method, best.by_all_sets) == ("KLD", "SKL")
    assert glance(tmp_path).highest == (("setting", "Dolly"), ("", "KLD; by the mean of all sets SKL"))
    told = re.search(r"set Dolly alone: by the mean of all 5 sets \(no test\) SKL is, (\S+) to (\S+)\.$", best.line)
    assert [round(float(one)) for one in told.groups()] == pytest.approx([30, 24], abs=2)


def test_a_best_method_that_used_no_student_output_is_said_to_be_training_on_fixed_data(tmp_path):
    runs(tmp_path, "kld", 20.0, "samsum")
    runs(tmp_path, "distillm", 35.0, "samsum", phi=0.0)
    write_record(tmp_path, "distillm", "samsum", 40, mean=35.0, phi=0.5)
    (best,) = glance(tmp_path).best
    assert "; DistiLLM: in 3 of 4 runs φ stayed 0 and no batch was of student outputs: the same as " in best.line
    assert glance(tmp_path).highest == (
        ("setting", "SAMSum with tiny-t5"),
        ("", "DistiLLM; DistiLLM in 3 of 4 runs on fixed data alone"),
    )


def test_a_claim_that_holds_stands_with_what_speaks_against_it(tmp_path):
    for method, dolly, rest in (("kld", 40.0, 20.0), ("skl", 30.0, 30.0)):
        for seed in SEEDS:
            rows = rouge_rows(
                {name: noisy(dolly if name == "test" else rest, seed, (name,))[name] for name in SETS["dolly"]}
            )
            write_record(tmp_path, method, seed=seed, rows=rows)
    runs(tmp_path, "distillm", 10.0, seconds=20.0)
    held = glance(tmp_path).claims
    assert "2 of 30 claims hold here: SKL scores higher than KLD on S-NI and UnNI (the opposite on Dolly); " in held
    assert "DistiLLM takes at most 1.6 times the time of KLD, here with 50 % of batches generated. " in held


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
