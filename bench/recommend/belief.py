"""How sure the order of the methods is: what is believed of their true scores, as a distribution.

It is a multivariate t around the arms' means. Its matrix is the one behind `compare_arms`: the variance of residuals
over seeds, with blocks fitted, plus what the examples add to differences. Where residuals are pooled and all arms have
the same seeds, the difference of two arms has there the very interval of `compare_arms` with the noise of all.
Probabilities are shares of `DRAWS` draws from it, with one fixed seed: their own error is at most 0.05 percentage
points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from bench.analysis.blocks import Arm, SeedNoise, additive_fit, compare_among

_Array = NDArray[np.float64]
DRAWS = 2**20
POINT = 1.0
"""What counts as near the best, in points of the score."""
_SAME = 1e-9
"""Points: methods that gave the same responses."""


@dataclass(frozen=True)
class Belief:
    """A multivariate t of the arms' true scores, up to what all of them share.

    Attributes:
        scores: (A,), where it lies: means over seeds, corrected for seeds that an arm lacks.
        spread: (A, A), its matrix.
        df: degrees of freedom.
    """

    scores: _Array
    spread: _Array
    df: float

    def drawn(self, draws: int) -> _Array:
        """(draws, A), the same in each call."""
        rng = np.random.default_rng(0)
        values, vectors = np.linalg.eigh(self.spread)
        root = vectors * np.sqrt(values.clip(0))
        scale = np.sqrt(self.df / rng.chisquare(self.df, (draws, 1))) if math.isfinite(self.df) else 1.0
        return np.asarray(self.scores + scale * (rng.standard_normal((draws, len(values))) @ root.T))

    def probabilities(self) -> tuple[_Array, _Array]:
        """(A,) of being best, which arms that are the same share, and of being within `POINT` of the best."""
        drawn = self.drawn(DRAWS)
        behind = drawn.max(axis=1, keepdims=True) - drawn
        first = behind < _SAME
        best = (first / first.sum(axis=1, keepdims=True)).sum(axis=0) / DRAWS
        return best, np.count_nonzero(behind <= POINT, axis=0) / DRAWS

    def regret(self) -> float:
        """By how many points the true best is expected to be above the arm of the highest score."""
        drawn = self.drawn(DRAWS // 8)
        return float((drawn.max(axis=1) - drawn[:, self.scores.argmax()]).mean())

    def gain(self, then: Belief) -> float:
        """The value of runs after which `then` would be believed if scores stayed as they are, in points of the score.

        The runs move the scores; by how much is distributed with what they take off the matrix. The gain is by how much
        the highest is then expected to be above what the present choice has (Frazier, Powell and Dayanik 2009, the
        knowledge gradient of correlated beliefs). So runs count that may change the choice, and not those that make a
        loud arm's own score surer which stays below the best all the same.
        """
        centred = np.eye(len(self.scores)) - 1 / len(self.scores)  # what all arms share is not determined
        return replace(self, spread=centred @ (self.spread - then.spread) @ centred).regret()


def belief(by_name: Mapping[str, Arm], noise: SeedNoise | None, seeds: Sequence[Sequence[int]] | None = None) -> Belief:
    """What is believed of arms that answer the same examples.

    Where residuals are pooled over all arms, seeds are fitted as blocks. Else each arm has the variance that
    comparisons give it, and the degrees of freedom of the louder arm with the fewest seeds; without shared seeds, all
    have the spread within an arm.

    Args:
        by_name: two arms or more.
        noise: of these arms and others beside them.
        seeds: what their seeds would be, for the spread that more of them would leave.
    """
    arms = list(by_name.values())
    of_arms = [arm.seeds for arm in arms] if seeds is None else seeds
    examples = _of_examples(by_name, noise)
    means = np.array([fmean(arm.scores.values()) for arm in arms])
    counts = np.array([len(own) for own in of_arms], dtype=np.float64)
    if noise is None:
        return Belief(means, examples, math.inf)
    if noise.residual is None:
        variance, df = noise.within
        return Belief(means, np.diag(variance / counts) + examples, df)
    fitted, _ = _blocked([arm.seeds for arm in arms])
    scores = fitted @ np.concatenate([[arm.scores[seed] for seed in arm.seeds] for arm in arms])
    scores += means.mean() - scores.mean()
    variance, df = noise.residual
    if not (louder := noise.louder.keys() & by_name.keys()):
        return Belief(scores, variance * _blocked(of_arms)[1] + examples, df)
    own = np.array([noise.louder.get(name, (variance, df))[0] for name in by_name])
    return Belief(scores, np.diag(own / counts) + examples, min(df, *(noise.louder[name][1] for name in louder)))


def _blocked(seeds: Sequence[Sequence[int]]) -> tuple[_Array, _Array]:
    """The additive fit of arms and seeds: (A, cells) that makes arms' effects of scores, and their (A, A) spread.

    Both hold for differences of arms; what all share is not determined.
    """
    design, inverse = additive_fit(seeds)
    return (inverse @ design.T)[: len(seeds)], inverse[: len(seeds), : len(seeds)]


def _of_examples(arms: Mapping[str, Arm], noise: SeedNoise | None) -> _Array:
    """(A, A), what the choice of examples adds, such that every two arms' difference has of it what comparisons say."""
    count = len(arms)
    of_pairs = np.zeros((count, count))
    for (i, first), (j, second) in combinations(enumerate(arms), 2):
        of_pairs[i, j] = of_pairs[j, i] = compare_among(arms, first, second, noise).fixed
    centred = np.eye(count) - 1 / count
    return np.asarray(-centred @ of_pairs @ centred / 2, dtype=np.float64)
