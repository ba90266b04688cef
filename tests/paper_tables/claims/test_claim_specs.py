"""What each claim tests, against the paper's words and its published values."""

from __future__ import annotations

import pytest

from paper_tables.paper.ablations import find_table
from paper_tables.paper.claim_specs import TESTS, ScoreTest, SpreadTest, TimeTest, claim_specs, timed_rows
from paper_tables.paper.published_values import published, sources
from paper_tables.paper.suites import run_specs


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
