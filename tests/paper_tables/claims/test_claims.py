"""Verdicts on claims, from records for which each verdict is known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_ind

from bench.analysis.significance import Estimate
from bench.record.store import JUDGED, Store
from bench.system.files import write_json
from paper_tables.claims.comparisons import NOT_SCALED, SCALED, ClaimComparison
from paper_tables.claims.format import effect
from paper_tables.claims.verdicts import VERDICTS, ClaimVerdict, judge, power_of, verdicts
from paper_tables.numbers.probes import COEFFICIENTS
from paper_tables.numbers.runs import RunIndex
from paper_tables.paper.ablations import find_table
from paper_tables.paper.claim_specs import TESTS, ScoreTest, SpreadTest, TimeTest, claim_specs, timed_rows
from paper_tables.paper.published_values import published, sources
from paper_tables.paper.suites import run_specs
from tests.paper_tables.tables.test_tables_command import judged_result
from tests.records import SETS, noisy, rewrite, rouge_rows, write_record

SEEDS = (10, 20, 30)


def verdict(out, claim):
    (found,) = verdicts(RunIndex(Store(out), "tiny"), [claim])
    return found


def made(what: str, value: float, error: float) -> ClaimComparison:
    """A comparison that claims to be above 0, of a value with its standard error."""
    return ClaimComparison(what, "above", 0.0, "ROUGE-L", 0.0).with_effect(Estimate(value, error**2))


def losses(out, means, seeds=SEEDS):
    for method, mean in means.items():
        for seed in seeds:
            write_record(out, method, seed=seed, mean=mean, init="sft")


def test_a_difference_for_sure_reproduces_the_claim_and_its_opposite_refutes_it(tmp_path):
    losses(tmp_path, {"kld": 20.0, "skl": 35.0, "rkld": 35.0, "srkl": 20.0})
    good, bad = verdict(tmp_path, "skew-beats-kl"), verdict(tmp_path, "skew-beats-reverse-kl")
    assert good.verdict == "reproduced"
    assert bad.verdict == "not reproduced"
    assert len(good.comparisons) == 2
    for one in good.comparisons:
        assert one.holds is True
        assert 0 < one.low < one.effect < one.high
        assert one.effect == pytest.approx(15, abs=2)
        assert len(one.runs) == 6
    assert all(one.holds is False and one.high < 0 for one in bad.comparisons)
    assert bad.reason.startswith("0 of 2 comparisons hold, 2 the other way round (p = ")
    assert bad.p < 0.05


def test_what_cannot_be_told_is_not_enough_evidence(tmp_path):
    losses(tmp_path, {"kld": 30.0, "skl": 30.0})
    judged = verdict(tmp_path, "skew-beats-kl")
    assert judged.verdict == "not enough evidence"
    assert "cannot be told" in judged.reason


def test_one_comparison_the_other_way_refutes_whatever_the_others(tmp_path):
    losses(tmp_path, {"kld": 20.0, "rkld": 20.0, "jsd": 50.0, "skl": 20.0, "srkl": 35.0})
    judged = verdict(tmp_path, "srkl-beats-unskewed")
    assert judged.verdict == "not reproduced"
    assert judged.reason.startswith("4 of 6 comparisons hold, 2 the other way round (p = ")
    assert "JSD" in judged.deciding.what


@pytest.mark.parametrize(
    ("verdict", "decided_by"), [("not reproduced", "refuted"), ("not enough evidence", "open"), ("reproduced", "held")]
)
def test_what_decides_came_out_as_the_claim_did_however_large_the_other_effects(verdict, decided_by):
    found = (
        made("open", -6.0, 4.0),
        made("refuted", -4.0, 1.0),
        made("held", 1.0, 0.2),
        made("held for sure", 9.0, 0.2),
        replace(made("", 0.0, 1.0), effect=None, what="not measured", missing="no runs"),
    )
    judged = ClaimVerdict(claim_specs()[0], verdict, "", found)
    assert judged.deciding.what == decided_by


@pytest.mark.parametrize("seeds", [(10,), (10, 20)])
def test_fewer_than_three_training_seeds_are_not_enough(tmp_path, seeds):
    losses(tmp_path, {"kld": 20.0, "skl": 35.0}, seeds)
    judged = verdict(tmp_path, "skew-beats-kl")
    assert judged.verdict == "not enough evidence"
    assert f"{len(seeds)} of 3 training seeds: bench suite table1" in judged.reason
    assert judged.deciding.effect == pytest.approx(15, abs=2)


@pytest.mark.parametrize(
    ("far", "expected"), [(30.3, "reproduced"), (20.0, "not reproduced"), (27.7, "not enough evidence")]
)
def test_no_two_values_of_a_sweep_may_be_far_apart(tmp_path, far, expected):
    for row in find_table("alpha", "tiny").rows:
        for spec in row.specs.values():
            for seed in SEEDS:
                mean = far if (spec.method, row.name) == ("srkl", "0.7") else 30.0
                number = 100 * seed + int(100 * float(row.name)) + (spec.method == "skl")
                rows = rouge_rows(noisy(mean, number, SETS["dolly"], sd=2.0))
                write_record(tmp_path, spec.method, seed=seed, rows=rows, assignments=spec.options)
    judged = verdict(tmp_path, "alpha-robust")
    assert judged.verdict == expected
    assert len(judged.comparisons) == 2 * 15
    assert all(one.effect >= 0 and one.threshold == 2.28 for one in judged.comparisons)
    wide = [one for one in judged.comparisons if one.holds is not True]
    assert len(wide) == (0 if expected == "reproduced" else 5)
    assert all("α = 0.7" in one.what and one.effect == pytest.approx(30 - far, abs=1) for one in wide)


def test_a_spread_that_is_too_wide_pays_for_its_order_having_been_seen(tmp_path):
    for row in find_table("alpha", "tiny").rows:
        for seed in SEEDS:
            mean = 30.0 + 4 * (row.name == "0.9") + seed / 20 * (row.name in ("0.1", "0.9"))
            write_record(tmp_path, "skl", seed=seed, mean=mean, assignments=row.specs["skl"].options)
    found = [one for one in verdict(tmp_path, "alpha-robust").comparisons if one.p_fails is not None]
    one = max(found, key=lambda one: one.effect)
    assert one.p_fails == pytest.approx(2 * (1 - one.p_holds), abs=1e-9)
    assert len(found) == 15


def capacities(out, means, other_sets=0.0):
    """Runs for each capacity, by its number in the paper, that score otherwise on all sets but Dolly's own."""
    for row in find_table("buffer-capacity", "tiny").rows:
        (spec,) = row.specs.values()
        for seed in SEEDS:
            scores = noisy(means.get(row.name, 30.0), seed, SETS["dolly"], sd=2.0)
            more = other_sets * (row.name == "1000")
            scores = {name: values + more * (name != "test") for name, values in scores.items()}
            write_record(out, "distillm", seed=seed, rows=rouge_rows(scores), assignments=spec.options)


def test_balanced_is_the_mean_over_the_five_sets(tmp_path):
    # below on Dolly, above on the four others: 0.2 * -10 + 0.8 * 10
    capacities(tmp_path, {"1000": 20.0}, other_sets=20.0)
    judged = verdict(tmp_path, "capacity-scaled-balanced")
    assert judged.verdict == "reproduced"
    assert [one.effect for one in judged.comparisons] == pytest.approx([6.0] * 4)
    assert {len(one.runs) for one in judged.comparisons} == {6}
    assert "mean of the five sets" in judged.comparisons[0].what


def test_a_capacity_of_1000_is_not_told_from_one_that_is_scaled(tmp_path):
    capacities(tmp_path, {"1000": 40.0})
    literal = verdict(tmp_path, "capacity-1000-balanced")
    assert (literal.verdict, literal.reason) == ("not enough evidence", SCALED)
    assert verdict(tmp_path, "capacity-scaled-balanced").verdict == "reproduced"


def test_where_the_buffer_is_not_scaled_the_capacities_are_the_papers(tmp_path):
    write_record(tmp_path, "distillm", preset="paper", models="gpt2-xl-to-gpt2")
    literal, scaled = verdicts(
        RunIndex(Store(tmp_path), "paper"), ["capacity-1000-balanced", "capacity-scaled-balanced"]
    )
    assert literal.reason == "no runs: bench suite buffer-capacity"
    assert scaled.reason == NOT_SCALED


def judge_of(out, means, half_width=1.0):
    """Runs with the score that a judge gave them on Dolly and SelfInst."""
    for method, mean in means.items():
        for number, seed in enumerate(SEEDS):
            record = write_record(out, method, seed=seed)
            made = judged_result(mean + 0.1 * number, sets=("test", "selfinst"))
            for result in made["results"].values():
                result["score"] |= {"low": mean - half_width, "high": mean + half_width}
            write_json(Store(out).folder(record.run_id) / JUDGED / "rating-a.json", made)


@pytest.mark.parametrize(
    ("mean", "half_width", "expected"),
    [
        (60.0, 1.0, "reproduced"),
        (40.0, 1.0, "not reproduced"),
        (60.0, 30.0, "not enough evidence"),
    ],
)
def test_what_a_judge_says_counts_with_its_noise_of_examples(tmp_path, mean, half_width, expected):
    judge_of(tmp_path, {"sft": 50.0, "kld": 50.0, "seqkd": 50.0, "distillm": mean}, half_width)
    judged = verdict(tmp_path, "best-judged")
    assert judged.verdict == expected
    assert [one.effect for one in judged.comparisons] == pytest.approx([mean - 50] * 6)
    spread = 2 * half_width * 2**0.5
    assert all(one.high - one.low >= 0.99 * spread for one in judged.comparisons)


def test_what_no_judge_has_seen_is_open(tmp_path):
    write_record(tmp_path, "distillm")
    judged = verdict(tmp_path, "best-judged")
    assert (judged.verdict, judged.reason) == ("not enough evidence", "not judged: bench judge")


@pytest.mark.parametrize(
    ("phis", "fast", "expected"),
    [
        ((0.1, 0.1, 0.1), 25.0, "reproduced"),
        ((0.0, 0.1, 0.19), 25.0, "mechanism not active"),
        ((0.0, 0.1, 0.21), 25.0, "reproduced"),
        ((0.0, 0.0, 0.0), 40.0, "mechanism not active"),
        ((0.5, 0.5, 0.5), 40.0, "not reproduced"),
    ],
)
def test_a_distillm_that_hardly_used_student_outputs_is_neither_fast_nor_slow(tmp_path, phis, fast, expected):
    for number, seed in enumerate(SEEDS):
        write_record(tmp_path, "kld", seed=seed, seconds=20.0 + number / 5)
        record = write_record(tmp_path, "distillm", seed=seed, seconds=fast + number / 5)
        rewrite(tmp_path, record, curve=[{"step": step, "phi": phis[number] * step / 150} for step in (100, 200)])
    judged = verdict(tmp_path, "near-kd-time")
    assert judged.verdict == expected
    (one,) = judged.comparisons
    assert one.holds is (fast < 30), "what was measured is still shown"
    if expected == "mechanism not active":
        mean = sum(phis) / 3
        assert f"DistiLLM, dolly, tiny-llama, sft init student, buffer of 64: {mean:.3f}" in judged.reason
        assert judged.p is None
        assert judged.deciding == one
    assert f"adaptive φ {sum(phis) / 3:.2f} on average" in judged.scope


def test_what_was_not_active_takes_no_part_in_the_correction():
    claims = [CLAIM.model_copy(update={"id": f"{number}"}) for number in range(20)]
    found = {claim: many(HELD if number == 0 else (0.1, 1.0)) for number, claim in enumerate(claims)}
    with_all, alone = judge(found), judge(found, inactive={f"{number}": ("an arm",) for number in range(1, 20)})
    assert (with_all[0].verdict, alone[0].verdict) == ("not enough evidence", "reproduced")
    assert {one.verdict for one in alone[1:]} == {"mechanism not active"}


def test_a_claim_without_adaptive_use_needs_no_phi(tmp_path):
    timed(tmp_path, {"kld": 20.0} | dict.fromkeys(OTHERS, 100.0))
    judged = verdict(tmp_path, "others-slow")
    assert judged.verdict == "reproduced"
    assert "φ" not in judged.scope


def test_each_verdict_says_in_its_own_line_what_it_speaks_of(tmp_path, command):
    losses(tmp_path, {"kld": 20.0, "skl": 35.0, "rkld": 20.0, "srkl": 30.0})
    line = "Preset tiny; tiny-llama (teacher 1,234,567, student 123,456 parameters); cpu (A CPU & Co, 2 threads)."
    assert verdict(tmp_path, "skew-beats-kl").scope == line
    record = next(record for record in Store(tmp_path).all() if record.config.method.name == "skl")
    rewrite(tmp_path, record, environment__threads=1)
    both = verdict(tmp_path, "skew-beats-kl").scope
    assert "cpu (A CPU & Co, 1 thread)" in both
    assert "cpu (A CPU & Co, 2 threads)" in both
    assert verdict(tmp_path, "best-samsum").scope == "Preset tiny; nothing measured."
    asked = ("skew-beats-reverse-kl", "best-samsum", "--out", tmp_path)
    markdown = command("claims", *asked, "--markdown").stdout
    assert f"\n{line}\n" in markdown
    plain = " ".join(command("claims", *asked).stdout.split())
    assert "student 123,456 parameters" in plain
    assert [one["scope"] for one in json.loads(command("claims", *asked, "--json").stdout)] == [
        line,
        "Preset tiny; nothing measured.",
    ]


def test_missing_runs_are_named_with_the_suite_that_makes_them(tmp_path):
    losses(tmp_path, {"kld": 20.0})
    judged = verdict(tmp_path, "skew-beats-kl")
    assert (judged.verdict, judged.reason) == ("not enough evidence", "no runs: bench suite table1")
    assert judged.deciding is None


@pytest.mark.parametrize(
    ("off", "expected"), [(36.0, "reproduced"), (20.0, "not reproduced"), (29.0, "not enough evidence")]
)
def test_no_loss_within_a_margin(tmp_path, off, expected):
    row = next(row for row in find_table("4", "tiny").rows if row.name == "distillm")
    for group, mean in (("on-policy", 30.0), ("off-policy", off)):
        spec = row.specs[group]
        for seed in SEEDS:
            write_record(tmp_path, spec.method, seed=seed, mean=mean, sgo=spec.output_source)
    assert verdict(tmp_path, "off-policy-free").verdict == expected


@pytest.mark.parametrize(
    ("off", "expected", "outcome"),
    [(20.0, "reproduced", "holds"), (40.0, "not reproduced", "the other way round")],
)
def test_a_claimed_loss_is_a_difference_below_zero(tmp_path, off, expected, outcome):
    for row in find_table("4", "tiny").rows[:3]:
        for group, mean in (("on-policy", 30.0), ("off-policy", off)):
            spec = row.specs[group]
            for seed in SEEDS:
                fields = {"sgo": spec.output_source, "assignments": spec.options}
                write_record(tmp_path, spec.method, seed=seed, mean=mean, **fields)
    judged = verdict(tmp_path, "off-policy-costs-others")
    assert judged.verdict == expected
    assert [c.what for c in judged.comparisons] == [
        f"{name}: off-policy − on-policy" for name in ("MiniLLM", "GKD", "ImitKD")
    ]
    for one in judged.comparisons:
        assert one.effect == pytest.approx(off - 30, abs=2)
        assert (one.side, one.threshold, one.outcome) == ("below", 0.0, outcome)
        assert effect(one).endswith("ROUGE-L, claimed < 0")
        assert effect(one).startswith("-" if off < 30 else "+")


def timed(out, seconds, *, load=0.0, threads=2, jitter=0.02, seeds=SEEDS):
    """Runs of some methods that took so long, a little more or less from seed to seed."""
    for method, mean in seconds.items():
        for number, seed in enumerate(seeds):
            factor = 1 + jitter * (number - 1)
            record = write_record(out, method, seed=seed, seconds=mean * factor, other_load=load)
            rewrite(out, record, environment__threads=threads)


OTHERS = ("minillm", "gkd", "imitkd")


@pytest.mark.parametrize(
    ("slow", "jitter", "expected", "reason"),
    [
        (60.0, 0.02, "reproduced", "3 of 3 comparisons hold"),
        (45.0, 0.02, "not reproduced", "0 of 3 comparisons hold, 3 falling short"),
        (10.0, 0.02, "not reproduced", "0 of 3 comparisons hold, 3 the other way round"),
        (51.0, 0.02, "not enough evidence", "0 of 3 comparisons hold, the others cannot be told"),
        (60.0, 0.2, "not enough evidence", "0 of 3 comparisons hold, the others cannot be told"),
    ],
)
def test_times_are_told_apart_by_their_spread(tmp_path, slow, jitter, expected, reason):
    timed(tmp_path, {"distillm": 20.0} | dict.fromkeys(OTHERS, slow), jitter=jitter)
    judged = verdict(tmp_path, "faster-than-recent")
    assert judged.verdict == expected
    assert judged.reason.startswith(f"{reason} (p = ")
    assert judged.deciding.effect == pytest.approx(slow / 20, rel=0.01)
    if expected == "not enough evidence":
        assert "smallest visible distance from the limit: a factor of " in judged.reason


def test_the_interval_of_a_ratio_of_times_is_welchs_at_95_percent(tmp_path):
    timed(tmp_path, {"distillm": 20.0} | dict.fromkeys(OTHERS, 60.0))
    one = verdict(tmp_path, "faster-than-recent").comparisons[0]
    logs = [np.log([mean * f for f in (0.98, 1.0, 1.02)]) for mean in (60.0, 20.0)]
    theirs = ttest_ind(*logs, equal_var=False).confidence_interval(0.95)
    assert (one.low, one.high) == pytest.approx(tuple(np.exp([theirs.low, theirs.high])))
    assert len(one.runs) == 6


def many(*pairs: tuple[float, float]) -> tuple[ClaimComparison, ...]:
    return tuple(made(f"{number}", *pair) for number, pair in enumerate(pairs))


CLAIM = next(claim for claim in claim_specs() if claim.id == "skew-beats-kl")
UP_TO = next(claim for claim in claim_specs() if claim.id == "up-to-4.3-times-faster")
HELD, FAILED, OPEN = (2.2, 1.0), (-2.2, 1.0), (1.0, 1.0)  # two-sided p-values 0.028, 0.028 and 0.32


def test_all_of_many_hold_each_at_its_own_level_and_one_that_fails_is_corrected_for_their_number():
    assert judge({CLAIM: many(*[HELD] * 15)})[0].verdict == "reproduced"
    cases = many(FAILED), many(FAILED, OPEN), many((-5, 1), OPEN)
    refuted, open_, sure = (judge({CLAIM: found})[0] for found in cases)
    assert {one.verdict for one in (refuted, sure)} == {"not reproduced"}
    assert open_.verdict == "not enough evidence"
    assert open_.p == pytest.approx(2 * refuted.p)
    assert open_.reason.startswith("0 of 2 comparisons hold, 1 the other way round, the whole cannot be told")


def test_of_an_up_to_all_have_to_fail_and_one_that_holds_is_corrected():
    assert judge({UP_TO: many(*[FAILED] * 15)})[0].verdict == "not reproduced"
    assert judge({UP_TO: many(HELD, OPEN)})[0].verdict == "not enough evidence"
    assert judge({UP_TO: many((5, 1), OPEN, FAILED)})[0].verdict == "reproduced"


def test_what_one_claim_shows_may_be_chance_among_many():
    names = [CLAIM.model_copy(update={"id": f"{number}"}) for number in range(20)]
    alone = judge({names[0]: many(HELD)})[0]
    among = judge({names[0]: many(HELD)} | {name: many((0.1, 1.0)) for name in names[1:]})[0]
    assert (alone.verdict, among.verdict) == ("reproduced", "not enough evidence")
    assert among.reason.startswith("1 of 1 comparisons hold; among 20 claims this may be chance (p = 0.28)")
    # where half of them are decided, no more is asked for
    half = judge({name: many(HELD if number < 10 else (0.1, 1.0)) for number, name in enumerate(names)})
    assert [one.verdict for one in half] == ["reproduced"] * 10 + ["not enough evidence"] * 10


def test_an_open_comparison_says_what_it_could_have_shown(tmp_path):
    found = made("", 1.0, 1.0)
    assert found.visible == pytest.approx(2.8016, abs=1e-3)
    assert "smallest visible distance from the limit: 2.80 ROUGE-L (80 % power)" in power_of(found)
    seen = ClaimComparison("", "above", 0.0, "ROUGE-L", 0.0).with_effect(Estimate(1.0, 3.0, 3, 8))
    assert power_of(seen).endswith("for the distance seen, +1.00, 25 would do")
    assert power_of(made("", 5.0, 1.0)) == ""


def test_a_verdict_is_the_same_whichever_claims_are_asked_for(tmp_path):
    losses(tmp_path, {"kld": 28.0, "skl": 31.0, "rkld": 30.0, "srkl": 31.0, "jsd": 29.0})
    whole = verdicts(RunIndex(Store(tmp_path), "tiny"))
    assert sum(one.p is not None for one in whole) > 2
    for one in whole[:2]:
        assert verdict(tmp_path, one.claim.id) == one


@pytest.mark.parametrize(("options", "counted"), [({"load": 1.0}, "0"), ({"load": None}, "0"), ({"seeds": (10,)}, "1")])
def test_fewer_than_two_exclusively_timed_runs_say_nothing_of_time(tmp_path, options, counted):
    timed(tmp_path, {"distillm": 20.0} | dict.fromkeys(OTHERS, 60.0), **options)
    judged = verdict(tmp_path, "faster-than-recent")
    assert (judged.verdict, judged.reason) == ("not enough evidence", f"{counted} of 2 timed runs: bench suite main")
    assert (judged.deciding.effect if counted == "1" else judged.deciding) == (
        pytest.approx(3.0) if counted == "1" else None
    )


def test_times_of_other_hardware_than_most_do_not_count(tmp_path):
    timed(tmp_path, dict.fromkeys(OTHERS, 60.0))
    timed(tmp_path, {"distillm": 20.0}, threads=1)
    judged = verdict(tmp_path, "faster-than-recent")
    assert (judged.verdict, judged.reason) == ("not enough evidence", "0 of 2 timed runs: bench suite main")


@pytest.mark.parametrize(
    ("seconds", "expected", "outcome"),
    [
        (25.0, "reproduced", "holds"),
        (40.0, "not reproduced", "beyond the limit"),
        (32.0, "not enough evidence", "open"),
    ],
)
def test_at_most_so_much_slower(tmp_path, seconds, expected, outcome):
    timed(tmp_path, {"kld": 20.0, "distillm": seconds})
    judged = verdict(tmp_path, "near-kd-time")
    assert judged.verdict == expected
    (one,) = judged.comparisons
    assert (one.outcome, one.effect) == (outcome, pytest.approx(seconds / 20, rel=0.01))
    assert effect(one).endswith("times, claimed < 1.6")


@pytest.mark.parametrize(
    ("slowest", "expected"), [(100.0, "reproduced"), (70.0, "not reproduced"), (86.0, "not enough evidence")]
)
def test_up_to_so_much_has_to_be_reached_once(tmp_path, slowest, expected):
    timed(tmp_path, {"distillm": 20.0, "gkd": 40.0, "imitkd": 60.0, "minillm": slowest})
    judged = verdict(tmp_path, "up-to-4.3-times-faster")
    assert judged.verdict == expected
    assert judged.deciding.what == "time of MiniLLM / DistiLLM"


@pytest.mark.parametrize(
    ("slow", "expected"), [(100.0, "reproduced"), (50.0, "not reproduced"), (180.0, "not reproduced")]
)
def test_a_range_of_times_has_two_ends(tmp_path, slow, expected):
    timed(tmp_path, {"kld": 20.0} | dict.fromkeys(OTHERS, slow))
    judged = verdict(tmp_path, "others-slow")
    assert judged.verdict == expected
    assert [(c.side, c.threshold) for c in judged.comparisons] == [("above", 3.0), ("below", 7.0)] * 3


@pytest.mark.parametrize(("share", "expected"), [(0.9, "reproduced"), (0.6, "not reproduced")])
def test_the_share_of_generation_is_that_of_the_longest(tmp_path, share, expected):
    for method, its in (("imitkd", share), ("gkd", 0.3), ("minillm", 0.5)):
        for seed in SEEDS:
            record = write_record(tmp_path, method, seed=seed, seconds=50.0)
            rewrite(tmp_path, record, time__phases__generation=50.0 * (its + seed / 10_000))
    judged = verdict(tmp_path, "generation-takes-most")
    assert judged.verdict == expected
    assert judged.deciding.effect == pytest.approx(share, abs=0.01)
    assert judged.comparisons[1].outcome == "falling short"


@pytest.mark.parametrize(("skewed", "expected"), [(20.0, "reproduced"), (5.0, "not reproduced")])
def test_convergence_is_of_the_whole_course_of_training(tmp_path, skewed, expected):
    for method, level in (("kld", 12.0), ("rkld", 12.0), ("skl", skewed), ("srkl", skewed)):
        for seed in SEEDS:
            record = write_record(tmp_path, method, seed=seed, init="sft")
            # equal in the end
            validations = [
                {"step": step, "loss": 2.0, "metric": metric}
                for step, metric in ((100, level + seed / 100), (200, level), (300, 30.0))
            ]
            rewrite(tmp_path, record, validations=validations)
    judged = verdict(tmp_path, "skew-converges-faster")
    assert judged.verdict == expected
    assert judged.deciding.effect == pytest.approx((skewed - 12) * 2 / 3)


def write_coefficients(out, *, best=0.1, students=1, beyond=1.0):
    errors = [
        {"seed": student, "loss": loss, "alpha": alpha, "n": n, "divergence": 1.0, "sampled": 1.0}
        # the claim is about samples of 64; with fewer another skew is best
        | {"normalised": (1.0 if alpha == best or n < 64 else 2.0) + student / 50}
        for student in range(students)
        for loss in ("skl", "srkl")
        for alpha in (0.01, 0.1, 0.5)
        for n in (16, 64)
    ]
    largest = [
        {"loss": loss, "alpha": alpha, "bound": bound}
        | dict.fromkeys(("q0", "q0.01", "q0.05", "q0.25", "q0.5", "q0.75", "q0.95", "q0.99"), 0.0)
        | {"q1": 100.0 if bound is None else beyond * bound}
        for loss in ("skl", "srkl")
        for alpha, bound in ((0.0, None), (0.1, 9.0), (0.5, 1.0))
    ]
    found = {"students": list(range(students)), "positions": 1, "errors": []}
    (record,) = Store(out).all()
    probe = {
        "name": "coefficients",
        "version": COEFFICIENTS.version,
        "config": {},
        "config_hash": "c" * 64,
        "data": "d" * 64,
        "environment": record.environment.model_dump(),
        "seconds": 1.0,
        "found": found | {"plug_in": errors, "coefficients": largest},
    }
    write_json(out / "model-probes" / "coefficients-tiny.json", probe)


@pytest.mark.parametrize(
    ("best", "students", "expected"),
    [(0.1, 3, "reproduced"), (0.01, 3, "not reproduced"), (0.1, 1, "not enough evidence")],
)
def test_the_estimates_error_is_judged_over_several_students(tmp_path, best, students, expected):
    write_record(tmp_path)
    assert verdict(tmp_path, "alpha-0.1-best-estimate").reason == "not probed yet: bench figures 3"
    write_coefficients(tmp_path, best=best, students=students)
    judged = verdict(tmp_path, "alpha-0.1-best-estimate")
    assert judged.verdict == expected
    if students == 1:
        assert judged.reason.startswith("1 of 3 students probed")
        assert judged.deciding.effect == pytest.approx(2.0)


@pytest.mark.parametrize(("beyond", "expected"), [(1.0, "reproduced"), (1.01, "not reproduced")])
def test_gradient_coefficients_are_held_to_their_bounds(tmp_path, beyond, expected):
    write_record(tmp_path)
    write_coefficients(tmp_path, beyond=beyond)
    assert verdict(tmp_path, "skew-bounds-gradients").verdict == expected


def test_a_damaged_probe_is_told(tmp_path, command):
    write_record(tmp_path)
    write_coefficients(tmp_path)
    (tmp_path / "model-probes" / "coefficients-tiny.json").write_text('{"found": {"err')
    result = command("claims", "skew-bounds-gradients", "--out", tmp_path)
    assert result.exit_code == 2
    assert "coefficients-tiny.json: damaged; probe again with: bench figures 3 --fresh" in result.stderr


def test_bleu_is_compared_as_corpus_bleu(tmp_path):
    rivals = ("sft", "kld", "seqkd", "imitkd", "gkd", "minillm")
    for task, own in (("iwslt", 70.0), ("samsum", 20.0)):
        for method in (*rivals, "distillm"):
            for seed in SEEDS:
                write_record(tmp_path, method, task, seed, mean=own if method == "distillm" else 30.0)
    for claim, expected, unit in (("best-iwslt", "reproduced", "BLEU"), ("best-samsum", "not reproduced", "ROUGE-L")):
        judged = verdict(tmp_path, claim)
        assert judged.verdict == expected
        assert [c.unit for c in judged.comparisons] == [unit] * len(rivals)


def test_every_claim_names_what_exists():
    claims = claim_specs()
    assert len({claim.id for claim in claims}) == len(claims)
    assert {type(claim.test) for claim in claims} == set(TESTS.values())
    for claim in claims:
        assert claim.confidence in {"H", "M", "L"}
        assert set(claim.source.replace(" ", "").split(",")) - {"P", "none"} <= sources().keys()
        assert claim.source != "none" or (claim.confidence == "L" and "nferred" in claim.note)
        if claim.suite != "figures":
            assert run_specs(claim.suite, "tiny")
        test = claim.test.model_dump()
        if "table" in test:
            table = find_table(test["table"], "tiny")
            named = [value for key in ("than", "rows", "of") for value in test.get(key, ())]
            named += [test[key] for key in ("row", "over") if key in test]
            assert set(named) <= {row.name for row in table.rows}
            columns = {column.name for column in table.columns}
            assert test.get("task", "") in {"", *(column.task for column in table.columns)}
            chosen = {*test.get("columns", ()), *(test[k] for k in ("column", "than_column") if k in test)}
            assert chosen <= columns


def test_a_claim_about_time_without_a_limit_is_refused():
    with pytest.raises(ValueError, match="give at_least, at_most or both"):
        TimeTest(table="main", of=("gkd",), over="kld")


EXPECTED = {
    "skew-beats-kl": "1 skl > kld in sinst uinst",
    "skew-beats-reverse-kl": "1 srkl > rkld in sinst uinst",
    "srkl-beats-unskewed": "1 srkl > kld rkld jsd in sinst uinst",
    "skew-converges-faster": "1 skl srkl > kld rkld",
    "alpha-0.1-best-skl": "alpha 0.1 > 0.01 0.3 0.5 0.7 0.9 in skl",
    "alpha-0.1-best-srkl": "alpha 0.1 > 0.01 0.3 0.5 0.7 0.9 in srkl",
    "alpha-robust": "alpha spread in skl srkl < 2.28",
    "alpha-0.1-best-estimate": "plug-in error of 64 tokens least at 0.1",
    "skew-bounds-gradients": "bounds of skl srkl",
    "adaptive-beats-on-policy": "2 skl-adaptive > skl-on-policy in dolly",
    "adaptive-off-policy-best-skl": "2 skl-adaptive-off-policy > skl-on-policy skl-mixed in dolly",
    "adaptive-off-policy-best-srkl": "2 srkl-adaptive-off-policy > srkl-on-policy srkl-mixed in dolly",
    "sgo-ratio-robust": "sgo-ratio spread of 0.25 0.5 0.75 1.0 in mixed off-policy < 2.28",
    "off-policy-free": "4 distillm: off-policy - on-policy > -1",
    "off-policy-costs-others": "4 minillm gkd imitkd: off-policy - on-policy < 0",
    "best-from-pretrained": "5 distillm > minillm gkd imitkd in pretrained",
    "init-student-robust": "5 distillm: pretrained - sft > -2.28",
    "best-instruction": "main distillm > sft kld seqkd imitkd gkd minillm in dolly sinst",
    "best-judged": "main judge of distillm > sft kld seqkd in dolly selfinst",
    "best-samsum": "3 distillm > sft kld seqkd imitkd gkd minillm on samsum",
    "best-iwslt": "3 distillm > sft kld seqkd imitkd gkd minillm on iwslt",
    "generation-takes-most": "any of main imitkd gkd minillm: generation > 0.8",
    "on-policy-slow": "any of main time imitkd / kld > 5.5",
    "others-slow": "main time minillm gkd imitkd / kld > 3 < 7",
    "adaptive-off-policy-fast": "2 time srkl-on-policy srkl-mixed / srkl-adaptive-off-policy > 2.2",
    "faster-than-recent": "main time minillm gkd imitkd / distillm > 2.5",
    "up-to-4.3-times-faster": "any of main time minillm gkd imitkd / distillm > 4.3",
    "near-kd-time": "main time distillm / kld < 1.6",
    "capacity-1000-balanced": "buffer-capacity mean of sets 1000 > 250 500 2000 4000 unscaled",
    "capacity-scaled-balanced": "buffer-capacity mean of sets 1000 > 250 500 2000 4000 scaled",
}


def in_short(claim):
    """What a claim tests, every number and name of it, in one line."""
    kind = next(kind for kind, test in TESTS.items() if test is type(claim.test))
    test = claim.test.model_dump(exclude_unset=True)
    names = {key: " ".join(test.pop(key)) for key in ("rows", "than", "of", "columns", "losses") if key in test}
    prefix = "any of " * test.pop("any", False) + f"{test.pop('table', '')} "
    match kind:
        case "column_score":
            less = "<" if test.pop("lower", False) else ">"
            ends = f"{test.pop('column')} - {test.pop('than_column')} {less} {test.pop('margin', 0):g}"
            text = f"{names.pop('rows')}: {ends}"
        case "score" | "judge":
            text = "mean of sets " * test.pop("mean", False) + "judge of " * (kind == "judge")
            text += f"{test.pop('row')} > {names.pop('than')}"
            text += f" in {names.pop('columns')}" if "columns" in names else ""
            text += f" on {test.pop('task')}" if "task" in test else ""
            text += {True: " scaled", False: " unscaled", None: ""}[test.pop("scaled", None)]
        case "spread":
            text = "spread" + (f" of {names.pop('rows')}" if "rows" in names else "")
            text += f" in {names.pop('columns')} < {test.pop('below'):g}"
        case "convergence":
            text = f"{names.pop('rows')} > {names.pop('than')}"
        case "time":
            text = f"time {names.pop('of')} / {test.pop('over')}"
            for key, sign in (("at_least", ">"), ("at_most", "<")):
                text += f" {sign} {test.pop(key):g}" if key in test else ""
        case "time_share":
            text = f"{names.pop('rows')}: {test.pop('phase')} > {test.pop('at_least'):g}"
        case "estimation_error":
            text = f"plug-in error of {test.pop('tokens')} tokens least at {test.pop('alpha'):g}"
        case "coefficient_bound":
            text = f"bounds of {names.pop('losses')}"
    assert not test, f"{claim.id}: {test}"
    assert not names, f"{claim.id}: {names}"
    return (prefix + text).strip()


def test_each_claim_tests_what_it_says():
    assert {claim.id: in_short(claim) for claim in claim_specs()} == EXPECTED


def test_no_claim_says_more_than_its_source():
    by_id = {claim.id: claim for claim in claim_specs()}
    values = {(v.row, v.column): v.number for v in published("1")}
    assert values["skl", "sinst"] > values["srkl", "sinst"]
    scores = [claim.test for claim in claim_specs() if isinstance(claim.test, ScoreTest)]
    assert not any(test.row == "srkl" and "skl" in test.than for test in scores)
    assert not any(row == "rkld" for row, _ in values)
    assert {by_id[name].confidence for name in ("skew-beats-reverse-kl", "srkl-beats-unskewed")} == {"L"}


def test_robust_is_less_than_the_lead_that_the_paper_reports():
    values = {v.row: v.number for v in published("main") if (v.models, v.column) == ("gpt2-xl-to-gpt2", "dolly")}
    own = values.pop("distillm")
    lead = own - max(values.values())
    tests = [claim.test for claim in claim_specs() if claim.id.endswith("-robust")]
    assert [abs(t.below if isinstance(t, SpreadTest) else t.margin) for t in tests] == pytest.approx([lead] * 3)


def test_claims_on_some_sets_are_on_those_whose_values_are_known():
    for name in ("skew-beats-kl", "skew-beats-reverse-kl", "srkl-beats-unskewed", "adaptive-beats-on-policy"):
        (claim,) = (claim for claim in claim_specs() if claim.id == name)
        assert set(claim.test.columns) == {v.column for v in published(claim.test.table) if v.row == claim.test.row}
    (best,) = (claim for claim in claim_specs() if claim.id == "best-instruction")
    columns = {column.name for column in find_table("main", "paper").columns}
    known = {v.column for v in published("main") if v.row == "distillm"}
    assert set(best.test.columns) == known & columns


def test_claims_of_time_rest_on_these_rows():
    assert timed_rows() == {
        *(("2", f"srkl-{source}") for source in ("on-policy", "mixed", "adaptive-off-policy")),
        *(("main", method) for method in ("kld", "imitkd", "gkd", "minillm", "distillm")),
    }


@pytest.mark.parametrize("mean", [20.0, 35.0])
def test_the_exit_code_is_zero_whatever_the_verdict(command, tmp_path, mean):
    losses(tmp_path, {"kld": 27.0, "skl": mean})
    for options in ((), ("--json",), ("--markdown",)):
        result = command("claims", "skew-beats-kl", "--out", tmp_path, *options)
        assert result.exit_code == 0
        if options == ("--json",):
            (found,) = json.loads(result.stdout)
            assert found["verdict"] == ("not reproduced" if mean < 27 else "reproduced")
            assert {c["outcome"] for c in found["comparisons"]} == {"the other way round" if mean < 27 else "holds"}


@pytest.mark.slow
def test_the_command_prints_verdicts_as_text_json_and_markdown_and_ends_well(command, out):
    plain = command("claims", "--out", out)
    assert plain.exit_code == 0, plain.output
    assert f"{len(EXPECTED)} claims: " in plain.stdout
    assert "preset tiny" in plain.stdout
    found = json.loads(command("claims", "--out", out, "--json").stdout)
    assert len(found) == len(claim_specs())
    assert {one["verdict"] for one in found} <= set(VERDICTS)
    by_id = {one["id"]: one for one in found}
    assert by_id["skew-beats-kl"]["comparisons"][0]["runs"]
    markdown = command("claims", "skew-beats-kl", "--out", out, "--markdown").stdout
    assert "## skew-beats-kl" in markdown
    assert "| SKL − KLD, S-NI |" in markdown


def test_bad_input_is_told(command, out, tmp_path):
    wrong = command("claims", "skew-beat-kl", "--out", out)
    assert wrong.exit_code == 2
    assert "did you mean 'skew-beats-kl'" in wrong.stderr
    empty = command("claims", "--out", tmp_path / "nothing")
    assert empty.exit_code == 2
    assert "no records" in empty.stderr
