"""Comparisons within seeds, against closed forms, scipy, sacreBLEU and simulated truth."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest

from bench.analysis.blocks import HOMOGENEITY, Arm, compare_among, compare_arms, levels, seed_noise
from bench.metrics.bleu import bleu_from_statistics, bleu_statistics
from bench.metrics.registry import find_metric
from bench.record.store import Store
from paper_tables.claims.verdicts import judge, p_values, verdicts
from paper_tables.numbers.runs import RunIndex
from tests.records import SETS, rouge_rows, write_record
from tests.simulate_statistics import CLAIM, SCENARIOS, Truth, among_claims, comparisons, drawn, marked, rates

SEEDS = (10, 20, 30)


def flat(scores: dict[int, float], examples: int = 20) -> Arm:
    """An arm without noise of examples."""
    return Arm(tuple(scores), np.tile(np.array(list(scores.values()))[:, None], examples))


def pool(*rows: list[float]) -> dict[str, dict[int, float]]:
    return {str(i): dict(zip(range(len(row)), row, strict=True)) for i, row in enumerate(rows)}


def test_residuals_are_those_of_the_analysis_of_variance():
    table = np.random.default_rng(0).normal(30, 2, (4, 5)) + np.arange(5) * 10  # large blocks
    noise = seed_noise(pool(*table.tolist()))
    residuals = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    assert noise.residual == pytest.approx(((residuals**2).sum() / 12, 12))
    assert noise.within == pytest.approx((table.var(axis=1, ddof=1).mean(), 16))


def test_with_seeds_alone_two_arms_are_the_paired_t_test():
    a, b = ([10.0, 12.0, 17.0, 11.0], [9.0, 11.5, 14.0, 10.5])
    scores = pool(a, b)
    found = compare_arms(flat(scores["0"]), flat(scores["1"]), seed_noise(scores))
    theirs = scipy.stats.ttest_rel(a, b)
    assert (found.df, found.p_value()) == pytest.approx((3, theirs.pvalue))
    assert found.interval() == pytest.approx(tuple(theirs.confidence_interval()))


def test_residuals_of_more_arms_give_more_degrees_of_freedom():
    rng = np.random.default_rng(3)
    scores = pool(*(rng.normal(0, 1, (6, 4)) + rng.normal(0, 5, 4)).tolist())
    noise = seed_noise(scores)
    assert not noise.louder
    found = compare_arms(flat(scores["0"]), flat(scores["1"]), noise)
    assert found.df == pytest.approx(15)
    assert found.standard_error == pytest.approx(math.sqrt(2 * noise.residual[0] / 4))


def test_arms_that_are_louder_keep_their_own_variance_and_leave_the_others_theirs():
    rng = np.random.default_rng(0)
    table = rng.normal(0, 1, (8, 4))
    table[5] *= 20
    table[7] *= 60
    scores = pool(*table.tolist())
    noise, rest = seed_noise(scores), seed_noise({name: found for name, found in scores.items() if name not in "57"})
    assert list(noise.louder) == ["7", "5"]
    assert noise.p_equal < HOMOGENEITY
    assert noise.residual == pytest.approx(rest.residual)
    arms = {name: flat(found) for name, found in scores.items()}
    quiet = compare_among(arms, "0", "1", noise)
    assert (quiet.df, quiet.spread) == pytest.approx((15, 2 * rest.residual[0]))
    one = compare_among(arms, "0", "5", noise)
    assert (one.df, one.spread) == pytest.approx((3, rest.residual[0] + noise.louder["5"][0]))
    two = compare_among(arms, "7", "5", noise)
    assert (two.df, two.spread) == pytest.approx((3, noise.louder["7"][0] + noise.louder["5"][0]))


def test_a_louder_arms_variance_is_its_own():
    """Blocks are fitted to it, too: of three arms a third of its residuals would be taken for blocks."""
    found = []
    for number in range(400):
        table = np.random.default_rng(number).normal(0, 1, (3, 5))
        table[2] *= 400
        noise = seed_noise(pool(*table.tolist()))
        assert list(noise.louder) == ["2"]
        found.append(noise.louder["2"][0])
    assert np.mean(found) == pytest.approx(400**2, rel=0.08)


def test_seeds_that_no_other_arm_has_tell_nothing_of_residuals():
    rng = np.random.default_rng(4)
    scores = pool(*rng.normal(0, 1, (13, 3)).tolist())
    scores["0"] = {seed: 30 * score for seed, score in scores["0"].items()} | {40: 1.0, 50: 2.0}
    noise = seed_noise(scores)
    assert noise.louder["0"][1] == 2


def test_of_two_arms_no_one_is_louder():
    noise = seed_noise(pool([1.0, 2.0, 30.0], [1.0, 1.1, 1.2]))
    assert (noise.louder, noise.p_equal) == ({}, 1.0)


@pytest.mark.parametrize(("arms", "seeds"), [(3, 3), (7, 3), (13, 5)])
def test_the_test_of_equal_variances_has_its_level(arms, seeds):
    rng = np.random.default_rng(1)
    failed = [bool(seed_noise(pool(*rng.normal(0, 1, (arms, seeds)).tolist())).louder) for _ in range(2000)]
    assert HOMOGENEITY * 0.75 <= np.mean(failed) <= HOMOGENEITY * 1.15


def test_missing_seeds_leave_the_others_of_use():
    """Least squares by hand: what is left after the best additive fit."""
    scores = {"a": {1: 1.0, 2: 3.0, 3: 2.0}, "b": {1: 0.5, 2: 2.0}, "c": {2: 4.0, 3: 2.5}, "d": {9: 7.0}}
    cells = [(arm, seed, score) for arm, found in scores.items() if len(found) > 1 for seed, score in found.items()]
    design = np.array([[arm == a for a in "abc"] + [seed == s for s in (1, 2, 3)] for arm, seed, _ in cells], float)
    rank = np.linalg.matrix_rank(design)
    fitted = design @ np.linalg.pinv(design) @ np.array([score for *_, score in cells])
    squares = float(np.sum((fitted - [score for *_, score in cells]) ** 2))
    noise = seed_noise(scores)
    assert noise.residual == pytest.approx((squares / (len(cells) - rank), len(cells) - rank))
    found = compare_arms(flat(scores["a"]), flat(scores["b"]), noise)
    assert found.value == pytest.approx(((1 - 0.5) + (3 - 2)) / 2)  # over the seeds that both have
    assert found.seeds == 2


def test_arms_without_a_common_seed_are_compared_as_by_welch():
    first, second = {1: 10.0, 2: 12.0, 3: 17.0}, {4: 11.0, 5: 9.0, 6: 8.5, 7: 10.0}
    found = compare_arms(flat(first), flat(second), seed_noise({"a": first, "b": second}))
    theirs = scipy.stats.ttest_ind(list(first.values()), list(second.values()), equal_var=False)
    assert (found.df, found.p_value()) == pytest.approx((theirs.df, theirs.pvalue))


def test_a_single_seed_takes_the_spread_of_the_others_or_is_taken_as_given():
    one, other = flat({1: 10.0}), flat({2: 12.0})
    assert compare_arms(one, other).standard_error == 0
    noise = seed_noise({"a": {1: 10.0, 3: 14.0}, "b": {2: 12.0}})
    assert compare_arms(one, other, noise).standard_error == pytest.approx(math.sqrt(2 * 8.0))
    assert seed_noise({"a": {1: 10.0}, "b": {2: 12.0}}) is None


def test_with_examples_alone_it_is_the_paired_t_test():
    a, b = np.random.default_rng(0).normal(30, 5, (2, 40))
    found, theirs = compare_arms(Arm((10,), a[None]), Arm((10,), b[None])), scipy.stats.ttest_rel(a, b)
    assert (found.df, found.p_value()) == pytest.approx((39, theirs.pvalue))
    many = compare_arms(*(Arm(SEEDS, np.tile(values, (3, 1))) for values in (a, b)))
    assert many.standard_error == pytest.approx(found.standard_error)  # all seeds answer the same examples


def test_noise_of_single_responses_counts_once():
    """Nothing but responses: the variance of the difference is theirs, not twice as much."""
    rng = np.random.default_rng(0)
    variances = []
    for _ in range(300):
        arms = [Arm(SEEDS, rng.normal(0, 1, (3, 100))) for _ in range(8)]
        noise = seed_noise({str(i): arm.scores for i, arm in enumerate(arms)})
        variances.append(compare_arms(arms[0], arms[1], noise).standard_error ** 2)
    assert np.mean(variances) == pytest.approx(2 / 300, rel=0.25)  # twice would be 4 / 300
    assert np.mean(variances) > 2 / 300  # what is subtracted is not let below 0


def test_the_examples_of_corpus_bleu_are_its_jackknife_and_its_test_is_near_sacrebleus():
    rng = np.random.default_rng(0)
    vocabulary = [f"w{i}" for i in range(30)]
    references = [" ".join(rng.choice(vocabulary, size=rng.integers(5, 15))) for _ in range(80)]

    def corrupted(rate: float) -> list[str]:
        return [
            " ".join(word if rng.random() > rate else rng.choice(vocabulary) for word in reference.split())
            for reference in references
        ]

    outputs = corrupted(0.25), corrupted(0.24)
    counts = [
        np.array([[bleu_statistics(text, [reference]) for text, reference in zip(output, references, strict=True)]])
        for output in outputs
    ]
    arms = [Arm.of((10,), each, find_metric("bleu").score_of_sum) for each in counts]
    for arm, each in zip(arms, counts, strict=True):
        assert arm.scores[10] == pytest.approx(bleu_from_statistics(each[0].sum(axis=0)))
        slow = Arm.of((10,), each, bleu_from_statistics)  # a score that takes one sum at a time
        assert slow.values == pytest.approx(arm.values)
    systems = [("second", outputs[1]), ("first", outputs[0])]
    _, scores = PairedTest(systems, {"BLEU": BLEU(references=[references])}, None, test_type="ar", n_samples=2000)()
    assert compare_arms(*arms).p_value() == pytest.approx(scores["BLEU"][1].p_value, abs=0.05)


def mean_of_first(total: np.ndarray) -> float:
    return float(total[0] / total[1])


@pytest.mark.parametrize(
    ("scores", "score", "message"),
    [
        ([[1.0]], None, "two examples at least"),
        ([[1.0, math.nan]], None, "scores must be finite, got 1 that"),
        ([1.0, 2.0], None, "expected scores of shape"),
        ([[1.0, 2.0], [3.0, 4.0]], None, "for 1 seeds"),
        ([[1.0, 2.0]], mean_of_first, r"expected scores of shape .*statistics"),
    ],
)
def test_what_is_no_arm_is_refused(scores, score, message):
    with pytest.raises(ValueError, match=message):
        Arm.of((10,), scores, score)


def test_arms_of_other_examples_are_refused():
    with pytest.raises(ValueError, match="must share their examples, got 3 and 2"):
        compare_arms(Arm.of((10,), [[1.0, 2.0, 3.0]]), Arm.of((10,), [[1.0, 2.0]]))


def test_a_score_of_sums_that_is_the_mean_gives_what_the_mean_gives():
    values = np.random.default_rng(0).normal(30, 5, (3, 4))
    counted = np.stack([values, np.ones_like(values)], axis=-1)
    assert Arm.of(SEEDS, counted, mean_of_first).values == pytest.approx(values)


def test_one_loud_method_neither_marks_others_nor_hides_them():
    truth = Truth(uneven=(*(1.0,) * 12, 4.0))
    wrong, _ = marked(truth, 150)
    assert wrong <= 0.12  # 5 % of many worlds
    _, seen = marked(replace(truth, gap=2.0 * Truth(uneven=(1.0,) * 13).unit / truth.unit), 150)
    _, without = marked(Truth(uneven=(1.0,) * 12, gap=2.0), 150)
    assert seen >= 0.85 * without


@pytest.mark.slow
def test_intervals_cover_the_truth_verdicts_are_seldom_wrong_and_five_seeds_are_enough():
    """A small version of `python -m tests.simulate_statistics`, whose tables the docs show."""
    for name, truth in SCENARIOS.items():
        equal = rates(truth, 300)
        twice = "twice" in name  # which no test of five seeds tells for sure
        assert (0.87 if twice else 0.93) <= equal.coverage <= 0.97, name
        assert max(equal.reproduced, equal.refuted) <= 0.05, name
    assert rates(Truth(gap=2.0), 300).reproduced >= 0.8
    seen, wrong = among_claims(Truth(), 10, 300)
    assert seen >= 0.75  # 0.83 of 1,000 worlds
    assert wrong <= 0.05


def test_recorded_runs_come_out_as_the_simulation_has_them(tmp_path):
    """The simulation's arms as records, through the code behind `bench claims`."""
    truth = Truth(seeds=3, uneven=(1.0, 1.3, 0.8, 1.0), gap=1.0)
    methods = ("srkl", "kld", "rkld", "jsd")
    worlds = {name: drawn(truth, np.random.default_rng(number)) for number, name in enumerate(SETS["dolly"])}
    for place, method in enumerate(methods):
        for number, seed in enumerate(SEEDS):
            scores = {name: np.round(arms[place].values[number], 4)[None].repeat(2, 0) for name, arms in worlds.items()}
            write_record(tmp_path, method, seed=seed, rows=rouge_rows(scores), init="sft")
    (found,) = verdicts(RunIndex(Store(tmp_path), "tiny"), ["srkl-beats-unskewed"])
    ours = [one for name in ("sinst", "uinst") for one in comparisons(worlds[name])]
    assert len(found.comparisons) == len(ours) == 6
    for theirs, one in zip(found.comparisons, ours, strict=True):
        for field in ("effect", "low", "high", "p_holds", "p_fails", "visible"):
            assert getattr(theirs, field) == pytest.approx(getattr(one, field), abs=2e-3)
    assert p_values(found.claim, found.comparisons) == pytest.approx(p_values(CLAIM, ours), abs=2e-3)
    assert judge({found.claim: found.comparisons})[0].comparisons == found.comparisons


def test_the_best_is_told_by_seeds_that_arms_share():
    full = {10: 20.0, 20: 30.0, 30: 32.0}  # the seed 10 is bad for everybody
    scores = {"a": full, "b": {20: 29.0, 30: 31.0}, "c": {seed: value - 3 for seed, value in full.items()}}
    found = levels(scores)
    assert found["a"] - found["b"] == pytest.approx(1.0)
    assert found["a"] - found["c"] == pytest.approx(3.0)
    assert levels({"a": full, "c": scores["c"]})["a"] == pytest.approx(82 / 3)
    assert levels({"a": {10: 1.0, 20: 3.0}, "b": {30: 5.0}}) == {"a": 2.0, "b": 5.0}  # nothing connects them
