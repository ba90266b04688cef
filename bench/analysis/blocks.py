"""Differences between arms, compared within the seeds that they share.

The score of arm a at training seed s is taken as

    score(a, s) = mean(a) + block(s) + residual(a, s),

where the block is what a seed does to all arms alike: they start from the same init student and see the data in the
same order. A difference of two arms over the seeds that both have is free of blocks. Its variance has two parts:

- of seeds: twice the variance of residuals, over the number of seeds. Residuals are pooled over all arms that stand
  together, with (A - 1)(S - 1) degrees of freedom for A arms of S seeds, but those whose residuals are larger by a test
  (`seed_noise`). These keep the variance of their own, S - 1, and a difference to one has the sum of two variances.
- of examples: all arms answer the same ones, which are a sample. With differences d(s, i) by seed and example, of n
  examples, the variance over examples of their means over seeds, less what single responses add to it, which the
  residuals of seeds hold already: (MS_examples - MS_interaction) / (S n), not below 0, n - 1 degrees of freedom.

So the noise of single responses counts once. The difference over its standard error is taken as Student's t with the
degrees of freedom of the part of seeds.

Arms without a common seed, or with one where nothing is pooled, are compared by the spread of each arm's own seeds
(Welch 1947). An arm of one seed takes the spread of the other arms' seeds, where that is known; else it is taken as
given, and the interval leaves out what another seed would have changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincc

from bench.analysis.significance import Estimate, satterthwaite
from bench.metrics.metric import ScoreOfSum, ScoreOfSums

_Array = NDArray[np.float64]
HOMOGENEITY = 0.1
"""Level of the test for unequal variances of residuals."""


@dataclass(frozen=True)
class Arm:
    """What one arm scored.

    Attributes:
        seeds: its training seeds, each once.
        values: (seeds, examples), what each example adds to the score: their mean over examples is the score.
    """

    seeds: tuple[int, ...]
    values: _Array

    @classmethod
    def of(cls, seeds: Sequence[int], scores: ArrayLike, score: ScoreOfSum | None = None) -> Arm:
        """From scores (seeds, examples), or statistics (seeds, examples, k) together with the score of their sum.

        What an example adds to a score of sums is its jackknife pseudo-value: (n - 1) times what the score loses
        without it, about the score. That is the example's own score where the score is a mean.

        Raises:
            ValueError: another shape, fewer than two examples, values not finite.
        """
        found = np.asarray(scores, dtype=np.float64)
        wanted = "(training seeds, examples)" if score is None else "(training seeds, examples, statistics)"
        if found.ndim != (2 if score is None else 3) or len(found) != len(seeds):
            raise ValueError(f"expected scores of shape {wanted} for {len(seeds)} seeds, got {found.shape}")
        if len(found) < 1 or found.shape[1] < 2:
            raise ValueError(f"a comparison needs a training seed and two examples at least, got {found.shape[:2]}")
        values = found if score is None else np.stack([_pseudo_values(one, score) for one in found])
        if not np.isfinite(values).all():
            raise ValueError(f"scores must be finite, got {np.count_nonzero(~np.isfinite(values))} that are not")
        return cls(tuple(seeds), values)

    @cached_property
    def scores(self) -> dict[int, float]:
        """The score by training seed."""
        return dict(zip(self.seeds, map(float, self.values.mean(axis=1)), strict=True))

    def at(self, seeds: Sequence[int]) -> _Array:
        """The values of some seeds, (seeds, examples)."""
        return self.values if tuple(seeds) == self.seeds else self.values[[self.seeds.index(seed) for seed in seeds]]


def _pseudo_values(statistics: _Array, score: ScoreOfSum) -> _Array:
    """(examples, k) -> (examples,)"""
    total = statistics.sum(axis=0)
    without = total - statistics
    left = score.of_many(without) if isinstance(score, ScoreOfSums) else np.array([score(one) for one in without])
    lost = score(total) - left
    return np.asarray(score(total) + (len(statistics) - 1) * (lost - lost.mean()), dtype=np.float64)


@dataclass(frozen=True)
class SeedNoise:
    """What seeds do to the arms that stand together.

    Attributes:
        within: variance of an arm's scores over its seeds, blocks included, with its degrees of freedom.
        residual: variance of a residual, with its degrees of freedom, of all arms that are not louder than the others;
            None where no two arms share two seeds.
        louder: by name, the same of each arm that is, of its own residuals; the loudest first.
        p_equal: p-value for all arms having residuals of one variance.
    """

    within: tuple[float, float]
    residual: tuple[float, float] | None = None
    louder: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    p_equal: float = 1.0

    def is_of_louder(self, first: str, second: str) -> bool:
        """Whether a difference of these two arms rests on the own variance of a louder one."""
        return self.residual is not None and bool({first, second} & self.louder.keys())

    def between(self, first: str, second: str) -> SeedNoise:
        """That of two arms: where one of them is louder, `residual` is the mean of theirs, known as well as the worse.

        Satterthwaite's degrees of freedom are more, and trust a variance of few seeds that came out small by chance.
        """
        if self.residual is None or not self.is_of_louder(first, second):
            return self
        parts = [self.louder.get(name, self.residual) for name in (first, second)]
        return replace(self, residual=(sum(variance for variance, _ in parts) / 2, min(df for _, df in parts)))


def seed_noise(scores: Mapping[str, Mapping[int, float]]) -> SeedNoise | None:
    """The noise of seeds, from scores by arm and training seed; None where every arm has one seed.

    Arms and seeds are fitted additively, so that a seed which some arms lack is of use to the others. Variances are
    tested by the largest share that an arm has of the residual sum of squares, which is Cochran's test (1941) for
    residuals of two ways. With equal variances of A arms at S seeds, A / (A - 1) times an arm's share is a
    Beta((S - 1) / 2, (A - 2)(S - 1) / 2) variable, exactly so where no arm lacks a seed; the largest is held to a level
    of 1 / A of the whole. While the test fails, the arm that fails it is taken out, and the others are fitted anew.
    """
    arms = {name: found for name, found in scores.items() if len(found) > 1}
    if not arms:
        return None
    seeds = np.array([len(found) - 1.0 for found in arms.values()])
    spread = [float(np.var(list(found.values()), ddof=1)) for found in arms.values()]
    within = float(np.average(spread, weights=seeds)), float(seeds.sum())
    residual, loudest, p_equal = _pooled(arms)
    taken_out: list[tuple[str, float, float, int]] = []
    p, left = p_equal, dict(arms)
    while p < HOMOGENEITY:
        name, (variance, df) = loudest
        taken_out.append((name, variance, df, len(left)))
        del left[name]
        residual, loudest, p = _pooled(left)
    others = residual[0] if residual else 0.0
    # blocks were fitted to the loud arm, too, which takes 1 / A of its residuals and gives it 1 / A of the others'
    louder = {
        name: (max(others, (variance - others / count) / (1 - 1 / count)), df)
        for name, variance, df, count in taken_out
    }
    return SeedNoise(within, residual, louder, p_equal)


def _pooled(
    arms: Mapping[str, Mapping[int, float]],
) -> tuple[tuple[float, float] | None, tuple[str, tuple[float, float]], float]:
    """The variance of residuals with its degrees of freedom, the same of the loudest arm alone, the test's p-value."""
    seeds = Counter(seed for found in arms.values() for seed in found)
    own = np.array([max(0.0, sum(seeds[seed] > 1 for seed in found) - 1.0) for found in arms.values()])
    squares, expected, df = _residual_squares(list(arms.values()))
    if df < 0.5:
        return None, ("", (0.0, 0.0)), 1.0
    total = float(squares.sum())
    rest = df - own
    # of an arm whose seeds no other has, and of two arms, there is nothing to test
    tested = (expected > 0.05) & (rest > 0.5) & (total > 0)
    share = np.minimum(1.0, squares * own / np.where(tested, expected, 1.0) / (total or 1.0))
    p = np.where(tested, betaincc(np.where(tested, own, 1.0) / 2, np.where(tested, rest, 1.0) / 2, share), 1.0)
    at = int(p.argmin())
    loudest = float(squares[at] / expected[at]) if tested[at] else 0.0, float(own[at])
    return (total / df, df), (list(arms)[at], loudest), min(1.0, float(p.min()) * len(arms))


def _residual_squares(arms: Sequence[Mapping[int, float]]) -> tuple[_Array, _Array, float]:
    """By arm, the sum of squared residuals and what it is expected to be at variance 1; the degrees of freedom."""
    seeds = sorted({seed for found in arms for seed in found})
    if all(len(found) == len(seeds) for found in arms):
        table = np.array([[found[seed] for seed in seeds] for found in arms])
        residuals = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
        free = (len(seeds) - 1) * (1 - 1 / len(arms))
        return (residuals**2).sum(axis=1), np.full(len(arms), free), float(free * len(arms))
    design, inverse = additive_fit([list(found) for found in arms])
    rows = design[:, : len(arms)].argmax(axis=1)
    values = np.array([score for found in arms for score in found.values()])
    fit = design @ inverse
    squares = (values - fit @ (design.T @ values)) ** 2
    leverage = (fit * design).sum(axis=1)
    own, expected = (np.bincount(rows, values).astype(np.float64) for values in (squares, 1 - leverage))
    return own, expected, float(expected.sum())


def additive_fit(seeds: Sequence[Sequence[int]]) -> tuple[_Array, _Array]:
    """What fits scores of A arms at S seeds as the sum of an arm's and a seed's effect, by least squares.

    Args:
        seeds: of each arm, in the order of its scores.

    Returns:
        The design (cells, A + S), arm by arm, with the columns of arms before those of seeds, which are in ascending
        order; and the pseudo-inverse (A + S, A + S) of its cross product.
    """
    every = sorted({seed for own in seeds for seed in own})
    cells = [(row, len(seeds) + every.index(seed)) for row, own in enumerate(seeds) for seed in own]
    design = np.zeros((len(cells), len(seeds) + len(every)))
    for cell, columns in enumerate(cells):
        design[cell, columns] = 1
    return design, np.asarray(np.linalg.pinv(design.T @ design, hermitian=True), dtype=np.float64)


def levels(scores: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """What arms score at the same seeds, from scores by arm and training seed: which arm is best, say these.

    That is the mean where all arms have the same seeds. Where some lack one, arms and seeds are fitted additively, so
    that a seed which is bad for all does not count against those that have it. Arms that no chain of common seeds
    connects are taken by their means.
    """
    arms = list(scores.values())
    if any(found.keys() != arms[0].keys() for found in arms):
        design, inverse = additive_fit([list(found) for found in arms])
        if np.linalg.matrix_rank(design) == design.shape[1] - 1:
            effects = inverse @ (design.T @ np.array([score for found in arms for score in found.values()]))
            return dict(zip(scores, map(float, effects[: len(arms)] + effects[len(arms) :].mean()), strict=True))
    return {name: float(np.mean(list(found.values()))) for name, found in scores.items()}


def compare_arms(first: Arm, second: Arm, noise: SeedNoise | None = None) -> Estimate:
    """The difference of two arms, first less second; what both are compared by is in the module's description.

    Args:
        first: an arm.
        second: another, of the same examples in the same order.
        noise: of the arms that these two stand among, `between` the two.

    Raises:
        ValueError: the arms' examples differ in number.
    """
    if first.values.shape[1] != second.values.shape[1]:
        counts = first.values.shape[1], second.values.shape[1]
        raise ValueError(f"the arms must share their examples, got {counts[0]} and {counts[1]} of them")
    n = first.values.shape[1]
    shared = sorted(set(first.seeds) & set(second.seeds))
    pooled = noise.residual if noise else None
    if len(shared) > 1 or (shared and pooled):
        differences = first.at(shared) - second.at(shared)
        by_seed = differences.mean(axis=1)
        variance, df = pooled or (float(by_seed.var(ddof=1)) / 2, len(shared) - 1)
        return Estimate(float(by_seed.mean()), 2 * variance, len(shared), df, _of_examples([differences]), n - 1)
    parts = []
    for arm in (first, second):
        if len(arm.seeds) > 1:
            parts.append((float(np.var(list(arm.scores.values()), ddof=1)) / len(arm.seeds), len(arm.seeds) - 1.0))
        elif noise:
            parts.append(noise.within)
    seeds = min(len(first.seeds), len(second.seeds))
    return Estimate(
        float(first.values.mean() - second.values.mean()),
        seeds * sum(variance for variance, _ in parts),
        seeds,
        satterthwaite(parts) if parts else float("inf"),
        _of_examples([first.values, -second.values]),
        n - 1,
    )


def compare_among(arms: Mapping[str, Arm], first: str, second: str, noise: SeedNoise | None) -> Estimate:
    """The difference of two arms by their names, which are those that the noise is of; see `compare_arms`."""
    return compare_arms(arms[first], arms[second], noise and noise.between(first, second))


def _of_examples(terms: Sequence[_Array]) -> float:
    """Variance that the examples give a sum of means, of terms (seeds, n) each, without that of single responses."""
    n = terms[0].shape[1]
    by_example = [values.mean(axis=0) for values in terms]
    variance = float(np.var(sum(by_example), ddof=1)) / n
    for values, means in zip(terms, by_example, strict=True):
        if (seeds := len(values)) > 1:  # of one response, how much of it is noise is not known
            rest = values - means - values.mean(axis=1, keepdims=True) + values.mean()
            variance -= float((rest**2).sum()) / ((seeds - 1) * (n - 1)) / (seeds * n)
    return float(max(0.0, variance))
