"""Bootstrap and Holm against scipy, sacreBLEU, closed forms and simulated truth."""

import dataclasses
import functools
import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest, Result

from bench.analysis import significance
from bench.analysis.significance import (
    Comparison,
    detectable_difference,
    hierarchical_bootstrap,
    hierarchical_comparison,
    holm,
)
from bench.metrics.bleu import bleu_from_statistics, bleu_statistics
from bench.metrics.registry import find_metric


def two_arms(n: int, effect: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores that share the examples' difficulty, as those of two models on one test set do."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(30, 20, n)
    return difficulty + effect + rng.normal(0, 5, n), difficulty + rng.normal(0, 5, n)


def paired_bootstrap(a: ArrayLike, b: ArrayLike, **options) -> Comparison:
    """The comparison of two arms of one training seed each."""
    return hierarchical_comparison(np.asarray(a)[None], np.asarray(b)[None], **options)


def seeded_arm(rng: np.random.Generator, difficulty: np.ndarray, seeds: int, seed_noise: float) -> np.ndarray:
    noise = rng.normal(0, seed_noise, (seeds, 1)) + rng.normal(0, 5, (seeds, len(difficulty)))
    return difficulty + noise


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_interval_is_that_of_scipy(level):
    a, b = two_arms(60, effect=1.0)
    ours = paired_bootstrap(a, b, level=level, seed=3)
    theirs = scipy.stats.bootstrap(
        (a, b),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        method="percentile",
        paired=True,
        n_resamples=10_000,
        confidence_level=level,
        rng=np.random.default_rng(5),
    )
    assert ours.difference == pytest.approx((a - b).mean())
    tolerance = 0.05 * theirs.standard_error * 2
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=tolerance)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=tolerance)
    assert ours.standard_error == pytest.approx(theirs.standard_error, rel=0.03)
    assert ours.n == 60


@pytest.mark.parametrize("effect", [0.0, 0.7, 1.4])
def test_p_value_is_near_that_of_the_paired_t_test(effect):
    a, b = two_arms(200, effect, seed=1)
    assert paired_bootstrap(a, b).p_value == pytest.approx(scipy.stats.ttest_rel(a, b).pvalue, abs=0.02)


def test_bleu_is_compared_as_by_sacrebleu():
    rng = np.random.default_rng(0)
    vocabulary = [f"w{i}" for i in range(30)]
    references = [" ".join(rng.choice(vocabulary, size=rng.integers(5, 15))) for _ in range(80)]

    def corrupted(rate: float) -> list[str]:
        return [
            " ".join(word if rng.random() > rate else rng.choice(vocabulary) for word in reference.split())
            for reference in references
        ]

    first, second = corrupted(0.25), corrupted(0.24)

    def by_sacrebleu(test: str) -> tuple[Result, Result]:
        systems, metrics = [("second", second), ("first", first)], {"BLEU": BLEU(references=[references])}
        _, scores = PairedTest(systems, metrics, None, test_type=test, n_samples=2000)()
        baseline, system = scores["BLEU"]
        return system, baseline

    theirs_first, theirs_second = by_sacrebleu("bs")
    randomised, _ = by_sacrebleu("ar")
    a, b = (
        [bleu_statistics(output, [reference]) for output, reference in zip(outputs, references, strict=True)]
        for outputs in (first, second)
    )
    ours = paired_bootstrap(a, b, score=bleu_from_statistics, resamples=2000)
    assert ours.difference == pytest.approx(theirs_first.score - theirs_second.score)
    assert 0.05 < ours.p_value < 0.5
    assert ours.p_value == pytest.approx(2 * theirs_first.p_value, abs=0.05)  # theirs counts one tail
    assert ours.p_value == pytest.approx(randomised.p_value, abs=0.05)
    arm = hierarchical_bootstrap([a], score=bleu_from_statistics, resamples=2000)
    assert arm.score == pytest.approx(theirs_first.score)
    assert (arm.high - arm.low) / 2 == pytest.approx(theirs_first.ci, rel=0.1)


def test_a_score_of_sums_that_is_the_mean_gives_what_the_mean_gives():
    a, b = two_arms(40, effect=2.0)
    plain = paired_bootstrap(a, b, resamples=500)
    by_sums = paired_bootstrap(a[:, None], b[:, None], score=lambda total: total[0] / 40, resamples=500)
    for field in ("difference", "low", "high", "p_value", "standard_error", "n"):
        assert getattr(by_sums, field) == pytest.approx(getattr(plain, field))


def test_identical_arms_do_not_differ():
    a, _ = two_arms(50)
    result = paired_bootstrap(a, a)
    assert (result.difference, result.low, result.high, result.p_value) == (0.0, 0.0, 0.0, 1.0)
    a_seeds = np.stack([a, a + 1, a - 2])
    result = hierarchical_comparison(a_seeds, a_seeds)
    assert (result.difference, result.p_value) == (0.0, 1.0)
    assert result.low < 0 < result.high  # the seeds of two arms are not the same seeds


def test_pairing_narrows_the_interval_and_swapping_mirrors_it():
    a, b = two_arms(100, effect=2.0)
    paired = paired_bootstrap(a, b)
    assert paired.p_value < 0.02
    assert paired.low > 0
    shuffled = paired_bootstrap(a, np.random.default_rng(0).permutation(b))
    assert shuffled.high - shuffled.low > 2 * (paired.high - paired.low)
    swapped = paired_bootstrap(b, a)
    assert (swapped.low, swapped.high) == pytest.approx((-paired.high, -paired.low))
    assert swapped.p_value == paired.p_value


def test_the_seed_decides():
    a, b = two_arms(30)
    assert paired_bootstrap(a, b, seed=1) == paired_bootstrap(a, b, seed=1)
    assert paired_bootstrap(a, b, seed=1) != paired_bootstrap(a, b, seed=2)


def test_many_examples_are_resampled_in_several_chunks():
    a, b = two_arms(10_000, effect=0.1)
    result = paired_bootstrap(a, b, resamples=1000)
    assert result.standard_error == pytest.approx((a - b).std() / 100, rel=0.1)


def test_one_training_seed_is_the_plain_bootstrap():
    a, _ = two_arms(50)
    arm = hierarchical_bootstrap([a])
    theirs = scipy.stats.bootstrap((a,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1))
    assert (arm.score, arm.n, arm.seeds) == (pytest.approx(a.mean()), 50, 1)
    assert arm.low == pytest.approx(theirs.confidence_interval.low, abs=0.3)
    assert arm.high == pytest.approx(theirs.confidence_interval.high, abs=0.3)


def test_seed_noise_widens_what_examples_alone_would_give():
    # No noise but the seeds': the variance of their mean is the unbiased one of the S values over S.
    levels = np.array([10.0, 12.0, 17.0, 11.0])
    arm = hierarchical_bootstrap(np.tile(levels[:, None], 20))
    assert arm.score == pytest.approx(12.5)
    assert arm.standard_error == pytest.approx(levels.std(ddof=1) / 2, rel=0.03)
    flat = hierarchical_comparison(np.tile(levels[:, None], 20), np.full((2, 20), 12.5))
    assert flat.standard_error == pytest.approx(levels.std(ddof=1) / 2, rel=0.03)
    assert flat.difference == pytest.approx(0.0)


def test_examples_are_shared_by_the_seeds_and_by_the_arms():
    # No noise but the examples': many seeds do not narrow an arm's interval, and a difference has none.
    scores, _ = two_arms(50)
    arm = hierarchical_bootstrap(np.tile(scores, (10, 1)))
    assert arm.standard_error == pytest.approx(scores.std() / math.sqrt(50), rel=0.05)
    difference = hierarchical_comparison(np.tile(scores, (10, 1)) + 1, np.tile(scores, (3, 1)))
    assert (difference.low, difference.high) == pytest.approx((1.0, 1.0))
    assert difference.p_value < 0.01


def test_with_seeds_alone_the_comparison_is_welchs_t_test():
    levels = np.array([10.0, 12.0, 17.0]), np.array([11.0, 9.0, 8.5, 10.0])
    ours = hierarchical_comparison(*(np.tile(values[:, None], 20) for values in levels), level=0.9, resamples=40_000)
    theirs = scipy.stats.ttest_ind(*levels, equal_var=False)
    assert ours.df == pytest.approx(theirs.df)
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=0.03)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval(0.9)), rel=0.03)
    one = hierarchical_bootstrap(np.tile(levels[0][:, None], 20), resamples=40_000)
    theirs = scipy.stats.ttest_1samp(levels[0], 0).confidence_interval(0.95)
    assert (one.df, one.low, one.high) == pytest.approx((2, theirs.low, theirs.high), rel=0.03)


def test_with_examples_alone_several_seeds_are_the_paired_t_test():
    a, b = two_arms(40, effect=1.0)
    ours = hierarchical_comparison(np.tile(a, (3, 1)), np.tile(b, (2, 1)), resamples=40_000)
    assert ours.df == pytest.approx(39)
    assert ours.p_value == pytest.approx(scipy.stats.ttest_rel(a, b).pvalue, abs=0.01)


@pytest.mark.parametrize("seed_noise", [2.0, 0.4], ids=["of seeds", "mixed"])
def test_with_three_seeds_intervals_cover_the_truth_and_tests_keep_their_level(seed_noise):
    covered, rejected, covered_arm = [], [], []
    for trial in range(400):
        rng = np.random.default_rng(trial)
        difficulty = rng.normal(30, 10, 300)
        a, b = (seeded_arm(rng, difficulty + rng.normal(0, 4, 300), 3, seed_noise) for _ in range(2))
        result = hierarchical_comparison(a, b, resamples=200, seed=trial)
        covered.append(result.low <= 0.0 <= result.high)
        rejected.append(result.p_value < 0.05)
        arm = hierarchical_bootstrap(a, resamples=200, seed=trial)
        covered_arm.append(arm.low <= 30.0 <= arm.high)
    # the binomial standard deviation at 95 % is 1.1 points
    assert 0.93 <= np.mean(covered) <= 0.98
    assert 0.91 <= np.mean(covered_arm) <= 0.98  # half the seeds, and so half the degrees of freedom
    assert 0.02 <= np.mean(rejected) <= 0.07


def test_coverage_of_the_paired_bootstrap():
    results = [paired_bootstrap(*two_arms(40, 1.0, seed=i), resamples=400, seed=i) for i in range(300)]
    coverage = np.mean([result.low <= 1.0 <= result.high for result in results])
    assert 0.90 <= coverage <= 0.98


def test_detectable_difference():
    # The textbook's 2.8 standard errors at 5% and 80%.
    assert detectable_difference(1.0) == pytest.approx(1.959964 + 0.841621, abs=1e-5)
    assert detectable_difference(2.0, level=0.9, power=0.5) == pytest.approx(2 * 1.644854, abs=1e-5)
    assert detectable_difference(1.0, df=1e6) == pytest.approx(detectable_difference(1.0), abs=1e-4)


def test_bleu_on_arrays_gives_the_very_comparison_of_the_general_path():
    rng = np.random.default_rng(0)
    totals = rng.integers(4, 30, (2, 3, 40, 1)) - np.arange(4)
    matched = (totals * rng.random(totals.shape) * [0.8, 0.5, 0.3, 0.1]).astype(int)
    lengths = totals[..., :1] + rng.integers(-2, 3, (2, 3, 40, 2)) * [0, 1]
    arms = np.concatenate([lengths, matched, totals], axis=-1)
    found = [
        hierarchical_comparison(*arms, score=score, resamples=500)
        for score in (find_metric("bleu").score_of_sum, bleu_from_statistics)
    ]
    assert found[0] == found[1]
    assert 0 < found[0].standard_error < 20


def test_the_detectable_difference_is_found_that_often_also_with_few_degrees_of_freedom():
    rng = np.random.default_rng(0)
    shift = detectable_difference(1.0, df=4)
    assert shift > 3.5
    found = rng.normal(shift, 1, 20_000) / np.sqrt(rng.chisquare(4, 20_000) / 4)
    assert np.mean(found > scipy.stats.t.ppf(0.975, 4)) == pytest.approx(0.8, abs=0.01)


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1; the last two held up by the larger before them.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p_values):
    indices = range(len(p_values))
    subsets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(indices, size)]
    closed = [max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in subsets if i in s) for i in indices]
    assert holm(p_values) == pytest.approx(closed)


@pytest.mark.parametrize("p_value", [-0.1, 1.1, math.nan])
def test_p_values_out_of_range_are_refused(p_value):
    with pytest.raises(ValueError, match=r"p-values must lie in \[0, 1\]"):
        holm([0.5, p_value])


def mean_of_first(total: np.ndarray) -> float:
    return float(total[0])


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        ([1, 2, 3], [1, 2], {}, "must share their examples, got 3 and 2"),
        ([1], [2], {}, "two examples at least"),
        ([], [], {}, "two examples at least"),
        ([1, math.nan], [1, 2], {}, "scores must be finite, got 1 that"),
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]], {}, "expected scores of shape"),
        ([1, 2], [3, 4], {"score": mean_of_first}, "expected scores of shape .*statistics"),
        ([[1, 2], [3, 4]], [[1], [2]], {"score": mean_of_first}, "statistics differ in length: 2 and 1"),
        ([1, 2], [3, 4], {"resamples": 1}, "resamples must be at least 2, got 1"),
        ([1, 2], [3, 4], {"level": 1.0}, r"level must lie in \(0, 1\), got 1.0"),
    ],
)
def test_what_cannot_be_compared_is_refused(a, b, options, message):
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(a, b, **options)


def plainly_resampled(a: np.ndarray, b: np.ndarray, resamples: int, chunk: int) -> np.ndarray:
    """The replicates of a difference of means: chunk by chunk of resamples, examples for both, then seeds for each."""
    rng, n, replicates = np.random.default_rng(0), a.shape[1], []
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.integers(n, size=(rows, n))
        by_examples = [arm[:, drawn].mean(axis=2).mean(axis=0) for arm in (a, b)]
        by_seeds = []
        for arm in (a, b):
            deviations = arm.mean(axis=1) - arm.mean(axis=1).mean()
            seeds = len(arm)
            mean = deviations[rng.integers(seeds, size=(rows, seeds))].mean(axis=1)
            by_seeds.append(mean * math.sqrt(seeds / max(1, seeds - 1)))
        replicates.append(by_examples[0] - by_examples[1] + by_seeds[0] - by_seeds[1])
    return np.concatenate(replicates)


@pytest.mark.parametrize(("n", "seeds"), [(12, (5, 3)), (50, (1, 1)), (50, (40, 7))])
def test_what_is_remembered_and_done_in_parts_changes_no_number(monkeypatch, n, seeds):
    rng = np.random.default_rng(1)
    a, b = (seeded_arm(rng, rng.normal(30, 20, n), count, 2.0) for count in seeds)
    monkeypatch.setattr(significance, "_CHUNK", 300 * n)  # of 300 resamples, four in all
    whole = hierarchical_comparison(a, b, resamples=1000)
    assert whole.standard_error == pytest.approx(plainly_resampled(a, b, 1000, 300).std(ddof=1), rel=1e-12)
    for held in (2**23, 100):  # in parts of a few resamples
        monkeypatch.setattr(significance, "_HELD", held)
        monkeypatch.setattr(significance, "_MEANS", significance._Recent(1024))
        for _ in range(2):  # made, then remembered
            again = hierarchical_comparison(a, b, resamples=1000)
            assert dataclasses.astuple(again) == pytest.approx(dataclasses.astuple(whole), rel=1e-12)


def test_an_arm_is_resampled_once_in_whatever_comparisons_it_stands(monkeypatch):
    made: list[int] = []
    means = significance._mean_scores

    def counting(arm, counts, score):
        made.append(len(arm))
        return means(arm, counts, score)

    monkeypatch.setattr(significance, "_mean_scores", counting)
    monkeypatch.setattr(significance, "_MEANS", significance._Recent(1024))
    rng = np.random.default_rng(2)
    arms = [seeded_arm(rng, rng.normal(30, 20, 40), 3, 2.0) for _ in range(5)]
    first = [hierarchical_comparison(a, b, resamples=200) for a, b in itertools.permutations(arms, 2)]
    assert len(made) == len(arms)
    assert first == [hierarchical_comparison(a.copy(), b, resamples=200) for a, b in itertools.permutations(arms, 2)]
    assert len(made) == len(arms)
    hierarchical_comparison(arms[0] + 1, arms[1], resamples=200)
    assert len(made) == len(arms) + 1


def test_only_the_arrays_asked_for_last_are_kept():
    kept = significance._Recent[int](2)
    made: list[str] = []

    def make(key: str) -> int:
        made.append(key)
        return len(made)

    for key in "abacab":
        kept.get(key, functools.partial(make, key))
    assert made == ["a", "b", "c", "b"]
