"""Verdicts on claims, from records for which each verdict is known."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from bench.analysis.significance import Estimate
from bench.record.store import JUDGED, Store
from bench.system.files import write_json
from paper_tables.claims.comparisons import NOT_SCALED, SCALED, ClaimComparison
from paper_tables.claims.format import effect, of_scores
from paper_tables.claims.verdicts import VERDICTS, ClaimVerdict, judge, power_of, verdicts
from paper_tables.numbers.probes import COEFFICIENTS
from paper_tables.numbers.runs import RunIndex
from paper_tables.paper.ablations import find_table
from paper_tables.paper.claim_specs import claim_specs
from paper_tables.paper.tables import STUDENT_SIZES
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
    assert bad.reason.startswith("0 of 2 comparisons hold, 2 the other way round (p < 0.001)")
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
    assert judged.reason.startswith("4 of 6 comparisons hold, 2 the other way round (p < 0.001)")
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
@pytest.mark.parametrize("counted", [True, False])
def test_a_distillm_that_hardly_used_student_outputs_is_neither_fast_nor_slow(tmp_path, counted, phis, fast, expected):
    for number, seed in enumerate(SEEDS):
        write_record(tmp_path, "kld", seed=seed, seconds=20.0 + number / 5)
        record = write_record(tmp_path, "distillm", seed=seed, seconds=fast + number / 5)
        used = round(1000 * phis[number])
        counts = {"dataset": 1000 - used, "generate": used - used // 3, "replay": used // 3} if counted else {}
        steps = {kind: {"count": count, "median": 0.1} for kind, count in counts.items() if count}
        curve = [{"step": step, "phi": phis[number] * step / 150} for step in (100, 200)]
        rewrite(tmp_path, record, time__steps=steps, **({} if counted else {"curve": curve}))
    judged = verdict(tmp_path, "near-kd-time")
    assert judged.verdict == expected
    (one,) = judged.comparisons
    assert one.holds is (fast < 30), "what was measured is still shown"
    if expected == "mechanism not active":
        mean = sum(phis) / 3
        none = f", none at all in {phis.count(0)} of 3 runs" if 0 in phis else ""
        assert f"DistiLLM, dolly, tiny-llama, sft init student, buffer of 32: {mean:.1%}{none});" in judged.reason
        assert (none or "generated for their step") in judged.scope
        assert judged.p is None
        assert judged.deciding == one
    assert f"{sum(phis) / 3:.0%} of batches with adaptive φ were student outputs, " in judged.scope


@pytest.mark.parametrize(
    ("generated", "expected"),
    [(60, "reproduced"), (40, "mechanism not active")],  # replayed batches cost next to nothing
)
def test_a_claim_about_time_asks_for_generated_batches(tmp_path, generated, expected):
    """As many as the replay rule gives at a φ of a tenth throughout: half of the tenth, with a buffer."""
    for seed in SEEDS:
        write_record(tmp_path, "kld", seed=seed, seconds=20.0 + seed / 100, init="sft")
        record = write_record(tmp_path, "distillm", seed=seed, seconds=25.0 + seed / 100, mean=60.0)
        counts = {"dataset": 800, "generate": generated, "replay": 200 - generated}
        steps = {kind: {"count": count, "median": 0.1} for kind, count in counts.items() if count}
        rewrite(tmp_path, record, time__steps=steps)
    judged = verdict(tmp_path, "near-kd-time")
    assert judged.verdict == expected
    assert f"20% of batches with adaptive φ were student outputs, {generated / 1000:.0%} generated" in judged.scope
    assert judged.title == f"{judged.claim.claim}, here with {generated / 10:.0f} % of batches generated"
    if expected == "mechanism not active":
        told = (
            "generated than the replay rule gives at φ = 0.1 (DistiLLM, dolly, tiny-llama, sft init student, buffer of"
        )
        assert told in judged.reason
        assert "32: 4.0% of 5%)" in judged.reason
    # of scores, what is drawn from the buffer counts as well
    for method in ("sft", "seqkd", "imitkd", "gkd", "minillm"):
        losses(tmp_path, {method: 30.0})
    assert verdict(tmp_path, "best-instruction").verdict == "reproduced"


def test_what_was_not_active_takes_no_part_in_the_correction():
    claims = [CLAIM.model_copy(update={"id": f"{number}"}) for number in range(20)]
    found = {claim: many(HELD if number == 0 else (0.1, 1.0)) for number, claim in enumerate(claims)}
    with_all, alone = judge(found), judge(found, inactive={f"{number}": "an arm" for number in range(1, 20)})
    assert (with_all[0].verdict, alone[0].verdict) == ("not enough evidence", "reproduced")
    assert {one.verdict for one in alone[1:]} == {"mechanism not active"}


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


def test_claims_that_nobody_reports_are_counted_apart_and_sources_are_explained(tmp_path, command):
    losses(tmp_path, {"kld": 20.0, "skl": 35.0})
    told = " ".join(command("claims", "--out", tmp_path, "--markdown").stdout.split())
    assert "30 claims: 26 that others report the paper to make (1 reproduced, 25 not enough evidence); " in told
    assert "| medium | 1 | 0 | 0 |" in told
    assert "| none: inferred by us | 0 | 0 | 0 | 4 |" in told
    assert "4 that nobody reports, inferred by us (4 not enough evidence)." in told
    assert "| SKL scores higher than KLD on S-NI and UnNI | Table 1, section 3; M | reproduced |" in told
    assert "Confidence that the paper makes a claim: H = high, M = medium, L = low." in told
    tags = {tag for claim in claim_specs() for tag in claim.sources}
    assert {tag for tag in tags if f" - {tag}: " in told} == tags
    assert " - ABKD: " not in told, "the source of no claim"
    terminal = " ".join(command("claims", "skew-beats-kl", "--out", tmp_path).stdout.split())
    assert "section 3; M)" in terminal


def test_the_correction_is_told_with_all_claims_that_it_is_over(tmp_path, command):
    losses(tmp_path, {"kld": 20.0, "skl": 35.0, "rkld": 30.0, "srkl": 31.0, "jsd": 29.0})
    whole, some = (
        " ".join(command("claims", *names, "--out", tmp_path).stdout.split())
        for names in ((), ("skew-beats-kl", "best-samsum"))
    )
    (count,) = re.findall(r"Corrected for (\d+) claims with evidence", whole)
    assert int(count) > 2
    assert f"Corrected for {count} claims with evidence" in some


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


def test_a_claim_about_scores_says_what_would_be_of_it_without_those_about_time():
    names = [CLAIM.model_copy(update={"id": f"{number}"}) for number in range(4)]
    times = {UP_TO.model_copy(update={"id": f"time {number}"}): many((9.0, 1.0)) for number in range(4)}
    score = {names[0]: many((2.1, 1.0))} | {name: many((0.1, 1.0)) for name in names[1:]}
    first, *others = judge(times | score, ["0", "1", "time 0"])
    assert (first.verdict, first.scores_corrected_for) == ("reproduced", 4)
    assert first.p <= 0.05 < first.p_of_scores
    assert first.p_of_scores == judge(score)[0].p, "the same correction over fewer"
    assert f"among the 4 claims about scores alone it would be open (p = {first.p_of_scores:.2g})" in first.reason
    assert of_scores(first) == (
        f"corrected among all 8 claims: p = {first.p:.2g}; among the 4 about scores alone: p = {first.p_of_scores:.2g}"
    )
    assert [bool(of_scores(one)) for one in others] == [True, False]
    assert not any("scores alone" in one.reason for one in others), "of those that are open, or about time"


def test_sets_that_a_claim_does_not_name_are_told_and_decide_nothing(tmp_path, command):
    """SKL is above KLD on the two that are named, and below it on Dolly."""
    for seed in SEEDS:
        for method, dolly, rest in (("kld", 40.0, 20.0), ("skl", 30.0, 30.0)):
            means = {name: dolly if name == "test" else rest for name in SETS["dolly"]}
            rows = rouge_rows({name: noisy(mean, seed, (name,))[name] for name, mean in means.items()})
            write_record(tmp_path, method, seed=seed, rows=rows)
    judged = verdict(tmp_path, "skew-beats-kl")
    assert judged.verdict == "reproduced"
    assert [c.what for c in judged.elsewhere] == [f"SKL − KLD, {name}" for name in ("Dolly", "SelfInst", "Vicuna")]
    assert not {c.what for c in judged.elsewhere} & {c.what for c in judged.comparisons}
    told = "On the other sets of its table, which decide nothing here: 2 of 3 comparisons hold, 1 the other way round ("
    assert f"{told}SKL − KLD, Dolly: -10." in command("claims", "--out", tmp_path, "--markdown").stdout
    assert verdict(tmp_path, "alpha-0.1-best-skl").elsewhere == ()


def test_one_claim_is_told_in_the_singular(tmp_path, command):
    losses(tmp_path, {"kld": 20.0, "skl": 35.0})
    said = " ".join(command("claims", "skew-beats-kl", "--out", tmp_path).stdout.split())
    assert "1 claim: 1 that others report the paper to make (1 reproduced)." in said


def test_an_open_comparison_says_what_it_could_have_shown(tmp_path):
    found = made("", 1.0, 1.0)
    assert found.visible == pytest.approx(2.8016, abs=1e-3)
    assert "smallest visible distance from the limit: 2.80 ROUGE-L (80 % power)" in power_of([found])
    seen = ClaimComparison("", "above", 0.0, "ROUGE-L", 0.0).with_effect(Estimate(1.0, 3.0, 3, 8))
    assert power_of([seen]).endswith("with the distance seen, +1.00, 25 training seeds would reproduce it")
    assert power_of([made("", 5.0, 1.0)]) == ""


def test_the_seeds_that_a_claim_needs_are_those_of_the_comparison_that_decides_it():
    """All have to be seen of a claim that holds; one that fails refutes it, whatever the others do."""
    easy, hard = (replace_what(name, Estimate(value, 3.0, 3, 8)) for name, value in (("easy", 1.5), ("hard", 1.0)))
    against = replace_what("against", Estimate(-1.2, 3.0, 3, 8))
    assert "of hard from" in power_of([easy, hard])
    assert power_of([easy, hard]).endswith("25 training seeds would reproduce it")
    told = power_of([easy, against, hard])
    assert "of against from" in told
    assert told.endswith("would refute it")
    assert power_of([easy, replace_what("lost", Estimate(-9.0, 1.0, 3, 8))]) == ""
    missing = ClaimComparison("missing", "above", 0.0, "ROUGE-L", 0.0).without_effect("no runs")
    assert power_of([easy, missing]) == "", "no seeds of one decide it while the other has no runs"
    assert power_of([easy, missing], any_one=True).endswith("would reproduce it")
    # where one has to hold, the easiest does; all have to fail
    assert "of easy from" in power_of([easy, hard], any_one=True)
    less = replace_what("less", Estimate(-1.0, 3.0, 3, 8))
    assert "of less from" in power_of([against, less], any_one=True)


def replace_what(what: str, found: Estimate) -> ClaimComparison:
    return ClaimComparison(what, "above", 0.0, "ROUGE-L", 0.0).with_effect(found)


def test_what_says_more_than_a_refuted_claim_is_refuted_with_it():
    less, more, other = (CLAIM.model_copy(update={"id": name}) for name in ("less", "more", "other"))
    # six comparisons ask for more than one
    failing = made("a", -2.3, 1.0)
    rest = tuple(made(name, 0.2, 1.0) for name in "bcdef")
    assert judge({more: (failing, *rest)})[0].verdict == "not enough evidence"
    judged = judge({less: (failing,), more: (failing, *rest), other: rest})
    assert [one.verdict for one in judged] == ["not reproduced", "not reproduced", "not enough evidence"]
    assert "it says all that less says, which is not reproduced" in judged[1].reason
    assert judged[1].p == judged[0].p
    assert judge({less: (failing,), more: (failing, *rest)}, ["more"])[0].verdict == "not reproduced"
    up_to = UP_TO.model_copy(update={"id": "up to"})
    assert judge({less: (failing,), up_to: (failing, *rest)})[1].verdict == "not enough evidence"


def test_a_verdict_is_the_same_whichever_claims_are_asked_for(tmp_path):
    losses(tmp_path, {"kld": 28.0, "skl": 31.0, "rkld": 30.0, "srkl": 31.0, "jsd": 29.0})
    whole = verdicts(RunIndex(Store(tmp_path), "tiny"))
    assert sum(one.p is not None for one in whole) > 2
    for one in whole[:2]:
        assert verdict(tmp_path, one.claim.id) == one


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
    judged = verdict(tmp_path, "skew-bounds-gradients")
    assert judged.verdict == expected
    # a theorem whose bound is reached
    assert effect(judged.comparisons[0]) == f"{beyond:.2f} times, claimed ≤ 1 (equal up to 1e-09)"


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
                for models in STUDENT_SIZES["tiny", task]:
                    mean = own if method == "distillm" else 30.0
                    write_record(tmp_path, method, task, seed, mean=mean, models=models)
    for claim, expected, unit in (("best-iwslt", "reproduced", "BLEU"), ("best-samsum", "not reproduced", "ROUGE-L")):
        judged = verdict(tmp_path, claim)
        assert judged.verdict == expected
        assert [c.unit for c in judged.comparisons] == [unit] * len(rivals) * 2


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
    assert f"{len(claim_specs())} claims: " in plain.stdout
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
