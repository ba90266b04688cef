"""Verdicts on claims, from records for which each verdict is known."""

from __future__ import annotations

import json

import pytest

from bench.files import write_json
from bench.store import Store
from paper_tables.claims import VERDICTS, claims, judge
from paper_tables.published import sources
from paper_tables.select import Library
from paper_tables.suites import arms
from paper_tables.sweeps import any_table
from tests.records import write_record

SEEDS = (10, 20, 30)


def verdict(out, claim):
    (judged,) = judge(Library(Store(out), "tiny"), out, [claim], resamples=400)
    return judged


def losses(out, means, seeds=SEEDS):
    for method, mean in means.items():
        for seed in seeds:
            write_record(out, method, seed=seed, mean=mean, init="init")


def test_a_difference_for_sure_reproduces_the_claim_and_its_opposite_refutes_it(tmp_path):
    losses(tmp_path, {"kld": 20.0, "skl": 35.0, "rkld": 35.0, "srkl": 20.0})
    good, bad = verdict(tmp_path, "skew-beats-kl"), verdict(tmp_path, "skew-beats-reverse-kl")
    assert good.verdict == "reproduced"
    assert bad.verdict == "not reproduced"
    assert len(good.comparisons) == 5
    for one in good.comparisons:
        assert one.holds is True
        assert 0 < one.low < one.effect < one.high
        assert one.effect == pytest.approx(15, abs=2)
        assert len(one.runs) == 6
    assert all(one.holds is False and one.high < 0 for one in bad.comparisons)
    assert bad.reason == "0 of 5 comparisons hold, 5 the other way round"


def test_what_cannot_be_told_is_not_enough_evidence(tmp_path):
    losses(tmp_path, {"kld": 30.0, "skl": 30.0})
    judged = verdict(tmp_path, "skew-beats-kl")
    assert judged.verdict == "not enough evidence"
    assert "cannot be told" in judged.reason


def test_one_comparison_the_other_way_refutes_whatever_the_others(tmp_path):
    losses(tmp_path, {"kld": 20.0, "rkld": 20.0, "jsd": 50.0, "skl": 20.0, "srkl": 35.0})
    judged = verdict(tmp_path, "srkl-best-loss")
    assert judged.verdict == "not reproduced"
    assert judged.reason == "15 of 20 comparisons hold, 5 the other way round"
    assert "JSD" in judged.deciding.what


@pytest.mark.parametrize("seeds", [(10,), (10, 20)])
def test_fewer_than_three_training_seeds_are_not_enough(tmp_path, seeds):
    losses(tmp_path, {"kld": 20.0, "skl": 35.0}, seeds)
    judged = verdict(tmp_path, "skew-beats-kl")
    assert judged.verdict == "not enough evidence"
    assert f"{len(seeds)} of 3 training seeds: bench suite table1" in judged.reason
    assert judged.deciding.effect == pytest.approx(15, abs=2)


def test_missing_runs_are_named_with_the_suite_that_makes_them(tmp_path):
    losses(tmp_path, {"kld": 20.0})
    judged = verdict(tmp_path, "skew-beats-kl")
    assert (judged.verdict, judged.reason) == ("not enough evidence", "no runs: bench suite table1")
    assert judged.deciding is None


@pytest.mark.parametrize(
    ("off", "expected"), [(32.0, "reproduced"), (20.0, "not reproduced"), (29.0, "not enough evidence")]
)
def test_no_loss_within_a_margin(tmp_path, off, expected):
    row = next(row for row in any_table("4", "tiny").rows if row.name == "distillm")
    for group, mean in (("on-policy", 30.0), ("off-policy", off)):
        arm = row.arms[group]
        for seed in SEEDS:
            write_record(tmp_path, arm.method, seed=seed, mean=mean, sgo=arm.sgo)
    assert verdict(tmp_path, "off-policy-free").verdict == expected


@pytest.mark.parametrize(("off", "expected"), [(20.0, "reproduced"), (40.0, "not reproduced")])
def test_a_claimed_loss_is_turned_round(tmp_path, off, expected):
    for row in any_table("4", "tiny").rows[:2]:
        for group, mean in (("on-policy", 30.0), ("off-policy", off)):
            arm = row.arms[group]
            for seed in SEEDS:
                write_record(tmp_path, arm.method, seed=seed, mean=mean, sgo=arm.sgo, assignments=arm.options)
    judged = verdict(tmp_path, "off-policy-costs-others")
    assert judged.verdict == expected
    assert judged.deciding.effect == pytest.approx(30 - off, abs=2)


@pytest.mark.parametrize(
    ("slow", "load", "expected"),
    [
        (60.0, 0.0, "reproduced"),
        (30.0, 0.0, "not reproduced"),
        (51.0, 0.0, "not enough evidence"),
        (60.0, 1.0, "not enough evidence"),
    ],
)
def test_times_count_only_from_runs_that_had_the_machine_to_themselves(tmp_path, slow, load, expected):
    for method, seconds in (("distillm", 20.0), ("minillm", slow), ("gkd", slow), ("imitkd", slow)):
        write_record(tmp_path, method, seconds=seconds, other_load=load)
    judged = verdict(tmp_path, "faster-than-recent")
    assert judged.verdict == expected
    if load:
        assert "had the machine to themselves: bench suite main" in judged.reason
    else:
        assert judged.deciding.effect == pytest.approx(slow / 20)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(25.0, "reproduced"), (40.0, "not reproduced"), (32.0, "not enough evidence")]
)
def test_at_most_so_much_slower(tmp_path, seconds, expected):
    write_record(tmp_path, "kld", seconds=20.0)
    write_record(tmp_path, "distillm", seconds=seconds)
    assert verdict(tmp_path, "near-kd-time").verdict == expected


@pytest.mark.parametrize(("best", "expected"), [(0.1, "reproduced"), (0.01, "not reproduced")])
def test_the_estimates_error_is_read_from_the_measurement(tmp_path, best, expected):
    write_record(tmp_path)
    assert "bench figures 3" in verdict(tmp_path, "alpha-0.1-best-estimate").reason
    errors = [
        {"loss": loss, "alpha": alpha, "n": 1, "normalised": 1.0 if alpha == best else 2.0}
        for loss in ("skl", "srkl")
        for alpha in (0.0, 0.01, 0.1, 0.5)
    ]
    write_json(tmp_path / "measurements" / "coefficients-tiny.json", {"found": {"errors": errors}})
    assert verdict(tmp_path, "alpha-0.1-best-estimate").verdict == expected


def test_bleu_is_compared_as_corpus_bleu(tmp_path):
    for method, mean in dict.fromkeys(("sft", "kld", "seqkd", "imitkd", "gkd", "minillm"), 30.0).items():
        for seed in SEEDS:
            write_record(tmp_path, method, "iwslt", seed, mean=mean)
            write_record(tmp_path, method, "samsum", seed, mean=mean)
    for task in ("iwslt", "samsum"):
        for seed in SEEDS:
            write_record(tmp_path, "distillm", task, seed, mean=70.0)
    judged = verdict(tmp_path, "best-task-specific")
    assert judged.verdict == "reproduced"
    assert {c.unit for c in judged.comparisons} == {"BLEU", "ROUGE-L"}


def test_every_claim_names_what_exists():
    seen = set()
    for claim in claims():
        assert claim.id not in seen
        seen.add(claim.id)
        assert sum(map(bool, (claim.quality, claim.time, claim.estimate))) == 1
        assert claim.sureness in {"H", "M", "L"}
        assert set(claim.source.replace(" ", "").split(",")) - {"P"} <= sources().keys()
        if claim.suite != "figures":
            assert arms(claim.suite, "tiny")
        test = claim.quality or claim.time
        if test:
            table = any_table(test["table"], "tiny")
            names = {row.name for row in table.rows}
            assert {*test.get("than", ()), *test.get("rows", ()), test.get("row", table.rows[0].name)} <= names
            columns = {column.name for column in table.columns}
            chosen = {*test.get("columns", ()), *(test[k] for k in ("column", "than_column") if k in test)}
            assert chosen <= columns


def test_the_command_prints_verdicts_as_text_json_and_markdown_and_ends_well(command, out):
    plain = command("claims", "--out", out, "--resamples", 100)
    assert plain.exit_code == 0, plain.output
    assert "16 claims: " in plain.stdout
    assert "preset tiny" in plain.stdout
    found = json.loads(command("claims", "--out", out, "--resamples", 100, "--json").stdout)
    assert len(found) == len(claims())
    assert {one["verdict"] for one in found} <= set(VERDICTS)
    by_id = {one["id"]: one for one in found}
    assert by_id["skew-beats-kl"]["comparisons"][0]["runs"]
    markdown = command("claims", "skew-beats-kl", "--out", out, "--resamples", 100, "--markdown").stdout
    assert "## skew-beats-kl" in markdown
    assert "| SKL − KLD, Dolly |" in markdown


def test_bad_input_is_told(command, out, tmp_path):
    wrong = command("claims", "skew-beat-kl", "--out", out)
    assert wrong.exit_code == 2
    assert "did you mean 'skew-beats-kl'" in wrong.stderr
    empty = command("claims", "--out", tmp_path / "nothing")
    assert empty.exit_code == 2
    assert "no records" in empty.stderr
