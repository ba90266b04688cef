"""Estimates, corrections and the bootstrap against scipy, closed forms and simulated truth."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.analysis.significance import (
    MOST_SEEDS,
    Estimate,
    benjamini_hochberg,
    bootstrap_interval,
    detectable_difference,
    difference_of,
    holm,
    level_of_best,
    mean_of,
    p_values_of_best,
)

LEVELS = np.array([10.0, 12.0, 17.0]), np.array([11.0, 9.0, 8.5, 10.0])


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_a_difference_of_means_is_welchs_and_a_mean_is_students(level):
    found, theirs = difference_of(*LEVELS), scipy.stats.ttest_ind(*LEVELS, equal_var=False)
    assert found.value == pytest.approx(LEVELS[0].mean() - LEVELS[1].mean())
    assert found.df == pytest.approx(theirs.df)
    assert found.p_value() == pytest.approx(theirs.pvalue)
    assert found.interval(level) == pytest.approx(tuple(theirs.confidence_interval(level)))
    one, single = mean_of(LEVELS[0]), scipy.stats.ttest_1samp(LEVELS[0], 11)
    assert one.p_value(11) == pytest.approx(single.pvalue)
    assert one.interval(level) == pytest.approx(tuple(single.confidence_interval(level)))


def test_one_sided_p_values_are_the_halves_of_the_two_sided_one():
    found = difference_of(*LEVELS)
    assert found.p_above(1.0) == pytest.approx(found.p_value(1.0) / 2)
    assert found.p_above(1.0) + found.p_below(1.0) == pytest.approx(1.0)


def test_without_noise_there_is_no_chance():
    exact = Estimate(2.0)
    assert exact.interval() == (2.0, 2.0)
    assert (exact.p_above(1.0), exact.p_below(1.0), exact.p_above(2.0), exact.p_value(2.0)) == (0.0, 1.0, 1.0, 1.0)


def test_the_degrees_of_freedom_are_those_of_the_seeds_where_these_are_known():
    found = Estimate(0.0, spread=6.0, seeds=3, spread_df=4, fixed=1.0, fixed_df=99)
    assert found.standard_error == pytest.approx(math.sqrt(3))
    assert found.df == 4
    assert Estimate(0.0, fixed=1.0, fixed_df=99).df == 99


def test_detectable_difference():
    # The textbook's 2.8 standard errors at 5% and 80%.
    assert detectable_difference(1.0) == pytest.approx(1.959964 + 0.841621, abs=1e-5)
    assert detectable_difference(2.0, level=0.9, power=0.5) == pytest.approx(2 * 1.644854, abs=1e-5)
    assert detectable_difference(1.0, df=1e6) == pytest.approx(detectable_difference(1.0), abs=1e-4)


def test_the_detectable_difference_is_found_that_often_also_with_few_degrees_of_freedom():
    rng = np.random.default_rng(0)
    shift = detectable_difference(1.0, df=4)
    assert shift > 3.5
    found = rng.normal(shift, 1, 20_000) / np.sqrt(rng.chisquare(4, 20_000) / 4)
    assert np.mean(found > scipy.stats.t.ppf(0.975, 4)) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("fixed", [0.0, 0.05])
@pytest.mark.parametrize("distance", [0.7, 1.0, 3.0])
def test_the_seeds_that_show_a_distance_are_the_fewest_to_which_it_is_visible(fixed, distance):
    found = Estimate(distance, spread=2.0, seeds=3, spread_df=8, fixed=fixed, fixed_df=99)
    seeds = found.seeds_to_see(distance)
    if seeds is None:
        assert found.with_seeds(MOST_SEEDS).visible() > distance
    else:
        assert found.with_seeds(seeds).visible() <= distance
        assert seeds == 2 or found.with_seeds(seeds - 1).visible() > distance


def test_what_the_examples_hide_no_number_of_seeds_shows():
    found = Estimate(0.5, spread=2.0, seeds=3, spread_df=8, fixed=1.0, fixed_df=99)
    assert found.seeds_to_see(0.5) is None
    assert found.seeds_to_see(0.0) is None
    assert Estimate(0.5, spread=2.0, seeds=3, spread_df=8).seeds_to_see(1e6) == 2


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


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_benjamini_hochberg_is_that_of_scipy(p_values):
    assert benjamini_hochberg(p_values) == pytest.approx(list(scipy.stats.false_discovery_control(p_values)))


@pytest.mark.parametrize("correct", [holm, benjamini_hochberg])
@pytest.mark.parametrize("p_value", [-0.1, 1.1, math.nan])
def test_p_values_out_of_range_are_refused(correct, p_value):
    with pytest.raises(ValueError, match=r"p-values must lie in \[0, 1\]"):
        correct([0.5, p_value])


def ratio(summed: np.ndarray) -> float:
    return float(summed[0] / summed[1])


def test_the_bootstrap_is_that_of_scipy():
    rng = np.random.default_rng(0)
    sums = rng.uniform(1, 9, (60, 2))
    theirs = scipy.stats.bootstrap(
        (sums[:, 0], sums[:, 1]),
        lambda x, y, axis: np.sum(x, axis=axis) / np.sum(y, axis=axis),
        method="percentile",
        paired=True,
        n_resamples=10_000,
        rng=np.random.default_rng(5),
    )
    found = bootstrap_interval(sums, ratio)
    low, high = theirs.confidence_interval
    assert found == pytest.approx((low, high), abs=0.06 * (high - low))


@pytest.mark.parametrize(
    ("sums", "message"),
    [
        ([[1, 2]], "two examples or more"),
        ([1, 2], "two examples or more"),
        ([[1, math.nan], [1, 2]], "scores must be finite, got 1 that"),
    ],
)
def test_what_cannot_be_resampled_is_refused(sums, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(sums, ratio)


@pytest.mark.parametrize("arms", [2, 3, 13, 30])
@pytest.mark.parametrize("df", [2.0, 4.5, 48.3, 1e9, math.inf])
def test_differences_to_the_best_have_the_tail_of_the_studentized_range(arms, df):
    values = [0.1, 1.0, 2.5, 3.5, 6.0] * arms
    found = p_values_of_best([Estimate(value, 1.0, 1, df) for value in values[: arms - 1]])
    theirs = scipy.stats.studentized_range.sf(np.array(values[: arms - 1]) * math.sqrt(2), arms, df)
    assert found == pytest.approx(theirs, rel=1e-5, abs=1e-9)
    t = scipy.stats.t.isf((1 - level_of_best(0.95, arms, df)) / 2, df)
    assert scipy.stats.studentized_range.sf(t * math.sqrt(2), arms, df) == pytest.approx(0.05, abs=1e-6)


def test_two_arms_are_held_to_students_t():
    found = Estimate(2.0, 3.0, 3, 4)
    assert p_values_of_best([found]) == pytest.approx([found.p_value()])
    assert level_of_best(0.95, 2, 4) == pytest.approx(0.95)


def test_of_equal_arms_one_in_twenty_worlds_marks_one():
    """The range of 13 means; a correction for 12 comparisons marks in one of seven."""
    rng = np.random.default_rng(0)
    marked = []
    for _ in range(1000):
        means = np.sort(rng.normal(0, 1, 13))[::-1]
        spread = rng.chisquare(48) / 48
        marked.append(min(p_values_of_best([Estimate(means[0] - one, 2 * spread, 1, 48) for one in means[1:]])) < 0.05)
    assert 0.035 <= np.mean(marked) <= 0.065


def test_differences_without_noise_are_certain():
    assert p_values_of_best([Estimate(0.0), Estimate(1.0)]) == [1.0, 0.0]
