"""Estimates with what is known of their noise, how many of them are tested at once, and what they could have shown.

Nothing here is drawn at random but `bootstrap_interval`, which the judge's ratios use. `bench.analysis.blocks` makes
estimates of differences between arms that were trained from several seeds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import (  # scipy.stats, which calls them, is slow to import
    chdtri,
    gammaln,
    nctdtr,
    ndtr,
    ndtri,
    stdtr,
    stdtrit,
)

from bench.metrics.metric import ScoreOfSum

_Array = NDArray[np.float64]
POWER = 0.8
MOST_SEEDS = 100
"""Up to so many are looked through for what would show a difference."""


@dataclass(frozen=True)
class Estimate:
    """A value with its variance in two parts: what one more seed would lessen, and what stays.

    Attributes:
        value: the estimate.
        spread: variance of what one seed adds; the value has `spread / seeds` of it.
        seeds: how many seeds it is the mean over.
        spread_df: degrees of freedom of `spread`.
        fixed: variance that more seeds do not lessen, since all share it: that of the examples.
        fixed_df: degrees of freedom of `fixed`.
    """

    value: float
    spread: float = 0.0
    seeds: int = 1
    spread_df: float = math.inf
    fixed: float = 0.0
    fixed_df: float = math.inf

    @property
    def standard_error(self) -> float:
        """Of the value."""
        return math.sqrt(self.spread / self.seeds + self.fixed)

    @property
    def df(self) -> float:
        """Degrees of freedom of the standard error: those of the spread, where one is known.

        Satterthwaite's (1946) for both parts are more where the spread came out small by chance, and with three
        seeds there were four times too many p-values below 0.25 %.
        """
        return self.fixed_df if math.isinf(self.spread_df) else self.spread_df

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Student's interval of a level in (0, 1)."""
        half = self.standard_error * _beyond(self.df, level) if self.standard_error else 0.0
        return self.value - half, self.value + half

    def p_above(self, threshold: float = 0.0) -> float:
        """One-sided p-value for the true value being above a threshold."""
        beyond = self.value - threshold
        if not self.standard_error:
            return 0.0 if beyond > 0 else 1.0
        t = -beyond / self.standard_error
        return float(ndtr(t) if math.isinf(self.df) else stdtr(self.df, t))

    def p_below(self, threshold: float = 0.0) -> float:
        """The same for its being below."""
        return replace(self, value=-self.value).p_above(-threshold)

    def p_value(self, threshold: float = 0.0) -> float:
        """Two-sided p-value."""
        return min(1.0, 2 * min(self.p_above(threshold), self.p_below(threshold)))

    def with_seeds(self, seeds: int) -> "Estimate":
        """What is expected of so many seeds; without a spread, nothing else than now."""
        df = self.spread_df * (seeds - 1) / max(1, self.seeds - 1)
        return replace(self, seeds=seeds, spread_df=df)

    def visible(self, level: float = 0.95) -> float:
        """The smallest true distance from a threshold that is found with probability `POWER`."""
        return detectable_difference(self.standard_error, level=level, df=self.df)

    def seeds_to_see(self, distance: float, level: float = 0.95) -> int | None:
        """How many seeds find a true distance with probability `POWER`; None where `MOST_SEEDS` do not."""
        if not distance or not self.spread:
            return None
        seeds = np.arange(2, MOST_SEEDS + 1)
        error = np.sqrt(self.spread / seeds + self.fixed)
        df = np.minimum(self.spread_df * (seeds - 1) / max(1, self.seeds - 1), 1e6)
        shift = np.minimum(abs(distance) / error, 30.0)  # beyond which it is found for certain
        enough = nctdtr(df, shift, stdtrit(df, 0.5 + level / 2)) <= 1 - POWER
        return int(seeds[enough.argmax()]) if enough.any() else None


def mean_of(values: ArrayLike) -> Estimate:
    """The mean of one or more values, one a seed; of a single one no spread is known."""
    found = np.asarray(values, dtype=np.float64)
    if len(found) < 2:
        return Estimate(float(found.mean()))
    return Estimate(float(found.mean()), float(found.var(ddof=1)), len(found), len(found) - 1)


def difference_of(a: ArrayLike, b: ArrayLike) -> Estimate:
    """The difference of two means, first less second, of values whose variances may differ (Welch 1947)."""
    first, second = mean_of(a), mean_of(b)
    parts = [(one.spread / one.seeds, one.spread_df) for one in (first, second)]
    seeds = min(first.seeds, second.seeds)
    return Estimate(
        first.value - second.value, seeds * sum(variance for variance, _ in parts), seeds, satterthwaite(parts)
    )


def satterthwaite(parts: Sequence[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of variances, each with its own; without any variance, the most of one part."""
    total = sum(variance for variance, _ in parts)
    if not total:
        return max(df for _, df in parts)
    known = sum(variance**2 / df for variance, df in parts)
    return float(total**2 / known) if known else math.inf


def detectable_difference(
    standard_error: float, *, level: float = 0.95, power: float = POWER, df: float = math.inf
) -> float:
    """The smallest true difference that a comparison finds with probability `power`.

    Args:
        standard_error: of the comparison.
        level: of the interval that has to leave out zero.
        power: the probability, at least 1 - `level`.
        df: degrees of freedom of the standard error.
    """
    from scipy.optimize import brentq  # here, because most that compares runs does not ask for this

    beyond = _beyond(df, level)
    if df > 1e6:
        return float(standard_error * (beyond + ndtri(power)))
    # the true difference shifts Student's t, and the shift itself is divided by an uncertain standard error
    return float(standard_error * brentq(lambda shift: 1 - nctdtr(df, shift, beyond) - power, 0.0, 10 * beyond))


def _beyond(df: float, level: float) -> float:
    return float(ndtri(0.5 + level / 2) if math.isinf(df) else stdtrit(df, 0.5 + level / 2))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for testing all of them, by Holm's step-down procedure (1979); in the order given.

    Raises ValueError for a p-value outside [0, 1].
    """
    p = _checked_p(p_values)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return [float(value) for value in adjusted]


def p_values_of_best(differences: Sequence[Estimate]) -> list[float]:
    """P-values of how far other arms are below the one that scored highest, for testing all of them.

    Which arm is highest was read off the same scores, so the largest difference is the range of all arms: it is held to
    the studentized range (Tukey 1949), and so is every other, with its own standard error (Kramer 1956; Games and
    Howell 1976 for unequal variances). Correcting for the number of comparisons alone would mark one of 13 equal arms
    three times as often as it should.
    """
    arms = len(differences) + 1
    return [
        float(_beyond_range(abs(one.value) / one.standard_error * math.sqrt(2), arms, one.df))
        if one.standard_error
        else float(not one.value)
        for one in differences
    ]


@lru_cache(1024)  # a table asks for few degrees of freedom, many times
def level_of_best(level: float, arms: int, df: float) -> float:
    """The two-sided level of a single comparison at which `p_values_of_best` says 1 - `level`, with 0.5 < level < 1."""
    from scipy.optimize import brentq  # as in `detectable_difference`

    t = brentq(lambda t: _beyond_range(t * math.sqrt(2), arms, df) - (1 - level), 0.0, 1e4)
    return float(1 - 2 * (ndtr(-t) if math.isinf(df) else stdtr(df, -t)))


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(96)


def _beyond_range(q: float, arms: int, df: float) -> float:
    """The upper tail of the studentized range, as `scipy.stats.studentized_range.sf` and a hundred times as fast."""
    # the scale's own distribution, chi over the root of its degrees of freedom, without what is below 1e-13 of it
    scale, density = np.ones(1), np.ones(1)
    if df < 1e6:
        low, high = (math.sqrt(chdtri(df, tail) / df) for tail in (1 - 1e-13, 1e-13))
        scale = (high + low) / 2 + (high - low) / 2 * _NODES
        log_density = math.log(2) + df / 2 * math.log(df / 2) - gammaln(df / 2) + (df - 1) * np.log(scale)
        density = np.exp(log_density - df * scale**2 / 2) * _WEIGHTS * (high - low) / 2
    # of so many normal variables, the least at z and all others within the range above it
    z = 8.5 * _NODES
    least = arms * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * 8.5 * _WEIGHTS
    within = (ndtr(z + q * scale[:, None]) - ndtr(z)) ** (arms - 1) @ least
    return float(np.clip(density @ (1 - within), 0.0, 1.0))


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that, of all that pass a level, that share is false on average (1995); in the order given.

    Raises ValueError for a p-value outside [0, 1].
    """
    p = _checked_p(p_values)
    order = np.argsort(p, kind="stable")[::-1]
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.minimum.accumulate(p[order] * len(p) / np.arange(len(p), 0, -1)), 1.0)
    return [float(value) for value in adjusted]


def _checked_p(p_values: Sequence[float]) -> _Array:
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must lie in [0, 1], got {list(p_values)}")
    return p


_RESAMPLES, _LEVEL = 10_000, 0.95
# the counts (resamples, examples) of one chunk: 32 MiB at this many
_CHUNK = 2**22


def bootstrap_interval(sums: ArrayLike, score: ScoreOfSum) -> tuple[float, float]:
    """95 % percentile interval of a score of summed statistics (n, k), over examples drawn with replacement.

    Raises:
        ValueError: another shape, fewer than two examples, or values not finite.
    """
    examples = np.asarray(sums, dtype=np.float64)
    if examples.ndim != 2 or len(examples) < 2:
        raise ValueError(f"expected statistics of shape (two examples or more, statistics), got {examples.shape}")
    if not np.isfinite(examples).all():
        raise ValueError(f"scores must be finite, got {np.count_nonzero(~np.isfinite(examples))} that are not")
    rng, n = np.random.default_rng(0), len(examples)
    size = max(1, _CHUNK // n)
    found: list[float] = []
    for start in range(0, _RESAMPLES, size):
        rows = min(size, _RESAMPLES - start)
        drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)
        found += [score(summed) for summed in counts @ examples]
    low, high = np.quantile(found, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)
