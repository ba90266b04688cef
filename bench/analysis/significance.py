"""Bootstrap intervals and tests for differences between arms, and the correction for testing many of them.

An example's score is either a number, with the arm's score its mean over examples, or a vector of sufficient
statistics, with the arm's score a function of their sum (corpus BLEU). A resample draws the n examples with
replacement, the same ones for both arms. Where arms were trained from several seeds, it also draws each arm's seeds:
the deviations of S seeds' scores from their mean, times sqrt(S / (S - 1)), since those of a few seeds from their own
mean are too small by that much.

With one seed to each arm, intervals are percentile intervals. The p-value is two-sided: the share of resamples whose
difference, shifted to mean zero, is at least as large in size as the one observed (Riezler and Maxwell 2005), and at
least 1 / (resamples + 1). sacreBLEU's paired bootstrap counts one tail of these and so gives half; its randomisation
test is two-sided like this one. With several seeds, a few numbers make up the noise, and percentiles would not see how
little is known of it: interval and two-sided p-value are then Student's, of the bootstrap's standard error, with the
degrees of freedom of Satterthwaite (1946) for its parts, S - 1 of each arm's seeds and n - 1 of the examples. Such a
p-value has no lowest value.

How far to trust the 95 % intervals of a difference, by simulation with 300 examples: with three seeds to each arm they
hold 96 % of the time where the seeds' own noise prevails or equals that of examples, 99 % where noise of single outputs
does, which counts as noise of its seed besides; with two seeds 94 to 98 %, with five 95 to 96 %, and 99 % as before.
Those of one arm's score, with fewer seeds behind them, hold 92 to 95 % with three, 87 to 95 % with two. One seed says
nothing of seed noise, and its interval is too narrow by all of it.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import nctdtr, ndtri, stdtr, stdtrit  # what scipy.stats calls, which takes a second to import

from bench.metrics.metric import ScoreOfSum, ScoreOfSums

_Array = NDArray[np.float64]
_Value = TypeVar("_Value")
# The counts (resamples, examples) of one chunk: 32 MiB at this many.
_CHUNK = 2**22
# Scores (resamples, seeds) held at once: 64 MiB at this many.
_HELD = 2**23


@dataclass(frozen=True)
class Interval:
    """An arm's score with its interval; `n` is the number of examples, `seeds` that of training seeds.

    `df` are the degrees of freedom of the standard error, infinite with one seed.
    """

    score: float
    low: float
    high: float
    standard_error: float
    n: int
    seeds: int
    df: float = math.inf


@dataclass(frozen=True)
class Comparison:
    """The difference of two arms, first minus second, with its interval; `n` is the number of examples.

    `df` are the degrees of freedom of the standard error, infinite with one seed to each arm.
    """

    difference: float
    low: float
    high: float
    p_value: float
    standard_error: float
    n: int
    df: float = math.inf


def hierarchical_bootstrap(
    scores: ArrayLike, *, score: ScoreOfSum | None = None, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Interval:
    """The score of one arm with its interval over training seeds and examples.

    Args:
        scores: (training seeds, n), or statistics (training seeds, n, k) together with `score`. With one
            training seed the run is taken as given: the interval leaves out what another seed would have changed.
        score: the corpus score of summed statistics (k,); None for the mean of scores.
        resamples: number of bootstrap resamples.
        seed: of the resampling.
        level: of the interval, in (0, 1).

    Raises:
        ValueError: a shape that is none of these, fewer than two examples, values not finite, options out of range.
    """
    arm = _checked(scores, score, resamples, level)
    found = _resample([(1, arm)], score, resamples, seed)
    low, high = found.interval(level)
    return Interval(
        score=found.observed,
        low=low,
        high=high,
        standard_error=found.standard_error,
        n=arm.shape[1],
        seeds=arm.shape[0],
        df=found.df,
    )


def hierarchical_comparison(
    a: ArrayLike,
    b: ArrayLike,
    *,
    score: ScoreOfSum | None = None,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """Compare two arms over training seeds, drawn for each arm by itself, and examples, drawn for both alike.

    With one training seed to each arm this is the paired bootstrap over examples.

    Args:
        a: scores of the first arm; these and the options are as for `hierarchical_bootstrap`.
        b: the same of the second arm, in the same order of examples; its number of training seeds may differ.

    Raises:
        ValueError: as for `hierarchical_bootstrap`, or the arms' examples differ in number.
    """
    first, second = (_checked(arm, score, resamples, level) for arm in (a, b))
    if first.shape[1:] != second.shape[1:]:
        raise ValueError(
            f"the arms must share their examples, got {first.shape[1]} and {second.shape[1]} of them"
            if first.shape[1] != second.shape[1]
            else f"the arms' statistics differ in length: {first.shape[2]} and {second.shape[2]}"
        )
    found = _resample([(1, first), (-1, second)], score, resamples, seed)
    low, high = found.interval(level)
    return Comparison(
        difference=found.observed,
        low=low,
        high=high,
        p_value=found.p_value(),
        standard_error=found.standard_error,
        n=first.shape[1],
        df=found.df,
    )


def mean_interval(values: ArrayLike, *, level: float = 0.95) -> tuple[float, float, float]:
    """The mean of two or more values with Student's interval: (mean, low, high)."""
    return _student(float(np.mean(np.asarray(values))), [_variance_of_mean(values)], level)


def welch_interval(a: ArrayLike, b: ArrayLike, *, level: float = 0.95) -> tuple[float, float, float]:
    """The difference of two means with Welch's interval, first less second: (difference, low, high).

    Two or more values each, whose variances may differ.
    """
    return _student(
        float(np.mean(np.asarray(a)) - np.mean(np.asarray(b))), [_variance_of_mean(a), _variance_of_mean(b)], level
    )


def ratio_interval(a: ArrayLike, b: ArrayLike, *, level: float = 0.95) -> tuple[float, float, float]:
    """The ratio of two geometric means with Welch's interval of the logarithms: (ratio, low, high).

    Two or more positive values each.
    """
    ratio, low, high = (math.exp(value) for value in welch_interval(np.log(a), np.log(b), level=level))
    return ratio, low, high


def detectable_difference(
    standard_error: float, *, level: float = 0.95, power: float = 0.8, df: float = math.inf
) -> float:
    """The smallest true difference that a comparison finds with probability `power`.

    Args:
        standard_error: of the comparison.
        level: of the interval that has to leave out zero.
        power: the probability, at least 1 - `level`.
        df: degrees of freedom of the standard error.
    """
    from scipy.optimize import brentq  # here, because most that compares runs does not ask for this

    if math.isinf(df):
        return float(standard_error * (ndtri(0.5 + level / 2) + ndtri(power)))
    beyond = stdtrit(df, 0.5 + level / 2)
    # the true difference shifts Student's t, and the shift itself is divided by an uncertain standard error
    return float(standard_error * brentq(lambda shift: 1 - nctdtr(df, shift, beyond) - power, 0.0, 10 * beyond))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for testing all of them, by Holm's step-down procedure (1979); in the order given.

    Raises ValueError for a p-value outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must lie in [0, 1], got {list(p_values)}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return [float(value) for value in adjusted]


class _Recent(Generic[_Value]):
    """Values by what determines them, those that were asked for last."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._values: dict[object, _Value] = {}

    def get(self, key: object, make: Callable[[], _Value]) -> _Value:
        """The value of a key, made unless it is there."""
        found = self._values.pop(key) if key in self._values else make()
        self._values[key] = found
        if len(self._values) > self.most:
            del self._values[next(iter(self._values))]
        return found


# An arm stands in many comparisons, of a table, of others and of claims: each resamples it alike, with the seed it has.
_MEANS = _Recent[_Array](512)  # (resamples,) each
# What was drawn, and the state of the generator afterwards.
_DRAWN = _Recent[tuple[_Array, Mapping[str, Any]]](512)  # (resamples,) each
_COUNTS = _Recent[tuple[_Array, Mapping[str, Any]]](2)  # (resamples, n) each


def _replayed(
    recent: _Recent[tuple[_Array, Mapping[str, Any]]],
    key: tuple[object, ...],
    rng: np.random.Generator,
    draw: Callable[[], _Array],
) -> _Array:
    """What is drawn from the generator as it stands, which is left as after the drawing."""

    def make() -> tuple[_Array, Mapping[str, Any]]:
        return draw(), rng.bit_generator.state

    drawn, rng.bit_generator.state = recent.get((*key, repr(rng.bit_generator.state)), make)
    return drawn


def _example_counts(n: int, resamples: int, rng: np.random.Generator) -> Iterator[tuple[_Array, tuple[object, ...]]]:
    """How often each resample holds each example, (up to `_CHUNK` / n resamples, n) at a time; and a key of it."""
    size = max(1, _CHUNK // n)
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        key = (n, rows, repr(rng.bit_generator.state))
        yield _replayed(_COUNTS, key, rng, partial(_draw_counts, n, rows, rng)), key


def _draw_counts(n: int, rows: int, rng: np.random.Generator) -> _Array:
    drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


@dataclass(frozen=True)
class _Resampled:
    """A signed sum of arms' scores as observed, in each resample, and how well its standard error is known."""

    observed: float
    replicates: _Array
    df: float

    @property
    def standard_error(self) -> float:
        return float(self.replicates.std(ddof=1))

    def interval(self, level: float) -> tuple[float, float]:
        if math.isinf(self.df):
            low, high = np.quantile(self.replicates, [(1 - level) / 2, (1 + level) / 2])
            return float(low), float(high)
        half = self.standard_error * float(stdtrit(self.df, (1 + level) / 2))
        return self.observed - half, self.observed + half

    def p_value(self) -> float:
        if math.isinf(self.df):
            as_extreme = int((np.abs(self.replicates - self.replicates.mean()) >= abs(self.observed)).sum())
            return (as_extreme + 1) / (len(self.replicates) + 1)
        if self.observed == 0:
            return 1.0
        return float(2 * stdtr(self.df, -abs(self.observed) / self.standard_error)) if self.standard_error else 0.0


def _resample(arms: Sequence[tuple[int, _Array]], score: ScoreOfSum | None, resamples: int, seed: int) -> _Resampled:
    """Resample the sum of the arms' scores, each with its sign: examples drawn for all alike, seeds for each arm."""
    rng = np.random.default_rng(seed)
    n = arms[0][1].shape[1]
    own = [_scores(arm, np.ones((1, n)), score)[0] for _, arm in arms]
    keys = [(arm.shape, hashlib.blake2b(arm.tobytes()).digest(), score) for _, arm in arms]
    by_examples, by_seeds = [], []
    for counts, drawn in _example_counts(n, resamples, rng):
        means = [
            _MEANS.get((*key, *drawn), partial(_mean_scores, arm, counts, score))
            for key, (_, arm) in zip(keys, arms, strict=True)
        ]
        by_examples.append(sum(sign * mean for (sign, _), mean in zip(arms, means, strict=True)))
        by_seeds.append(
            sum(
                sign
                * _replayed(_DRAWN, (scores.tobytes(), len(counts)), rng, partial(_drawn, scores, len(counts), rng))
                for (sign, _), scores in zip(arms, own, strict=True)
            )
        )
    examples, seeds = np.concatenate(by_examples), np.concatenate(by_seeds)
    parts = [_variance_of_mean(scores) for scores in own if len(scores) > 1]
    return _Resampled(
        observed=float(sum(sign * scores.mean() for (sign, _), scores in zip(arms, own, strict=True))),
        replicates=examples + seeds,
        df=_satterthwaite([*parts, (examples.var(ddof=1), n - 1)]) if parts else math.inf,
    )


def _mean_scores(arm: _Array, counts: _Array, score: ScoreOfSum | None) -> _Array:
    """The mean over the arm's seeds in each resample, (resamples,)."""
    rows = max(1, _HELD // len(arm))
    parts = (counts[start : start + rows] for start in range(0, len(counts), rows))
    return np.concatenate([_scores(arm, part, score).mean(axis=1) for part in parts])


def _scores(arm: _Array, counts: _Array, score: ScoreOfSum | None) -> _Array:
    """The score of each of the arm's seeds in each resample, (resamples, seeds)."""
    if score is None:
        means: _Array = counts @ arm.T / arm.shape[1]
        return means
    if isinstance(score, ScoreOfSums):  # a seed at a time, which fits a cache
        return np.stack([score.of_many(counts @ examples) for examples in arm], axis=1)
    sums = np.tensordot(counts, arm, axes=(1, 1))
    return np.array([[score(summed) for summed in row] for row in sums])


def _drawn(scores: _Array, resamples: int, rng: np.random.Generator) -> _Array:
    """Mean deviation (resamples,) of seeds drawn with replacement, with the variance that a mean of that many has."""
    seeds = len(scores)
    deviations = scores - scores.mean()
    rows = max(1, _HELD // seeds)  # drawn one after the other, they are the same numbers
    parts = (rng.integers(seeds, size=(min(rows, resamples - start), seeds)) for start in range(0, resamples, rows))
    mean: _Array = np.concatenate([deviations[drawn].mean(axis=1) for drawn in parts])
    return mean * math.sqrt(seeds / max(1, seeds - 1))


def _variance_of_mean(values: ArrayLike) -> tuple[float, int]:
    found = np.asarray(values, dtype=np.float64)
    return float(found.var(ddof=1)) / len(found), len(found) - 1


def _student(estimate: float, parts: Sequence[tuple[float, int]], level: float) -> tuple[float, float, float]:
    half = math.sqrt(sum(variance for variance, _ in parts)) * float(stdtrit(_satterthwaite(parts), (1 + level) / 2))
    return estimate, estimate - half, estimate + half


def _satterthwaite(parts: Sequence[tuple[float, int]]) -> float:
    """Degrees of freedom of a sum of variances, each with its own; without any variance, the most of one part."""
    total = sum(variance for variance, _ in parts)
    if not total:
        return max(df for _, df in parts)
    return float(total**2 / sum(variance**2 / df for variance, df in parts))


def _checked(scores: ArrayLike, score: ScoreOfSum | None, resamples: int, level: float) -> _Array:
    arm = np.asarray(scores, dtype=np.float64)
    wanted = "(training seeds, examples)" if score is None else "(training seeds, examples, statistics)"
    if arm.ndim != (2 if score is None else 3):
        raise ValueError(f"expected scores of shape {wanted}, got {arm.shape}")
    if arm.shape[0] < 1 or arm.shape[1] < 2:
        raise ValueError(f"a bootstrap needs a training seed and two examples at least, got {arm.shape[:2]}")
    if not np.isfinite(arm).all():
        raise ValueError(f"scores must be finite, got {np.count_nonzero(~np.isfinite(arm))} that are not")
    if resamples < 2:
        raise ValueError(f"resamples must be at least 2, got {resamples}")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    return arm
