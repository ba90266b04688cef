"""Coverage, wrong verdicts and power of the statistics, by simulation with known truth: tables of docs/statistics.md.

    python -m tests.simulate_statistics

Scores are drawn for arms, seeds and examples, and go through the functions that make tables and verdicts. A test
holds that recorded runs with the same scores come out the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from bench.analysis.blocks import Arm, compare_among, seed_noise
from bench.analysis.significance import p_values_of_best
from paper_tables.claims.comparisons import ClaimComparison
from paper_tables.claims.verdicts import judge
from paper_tables.numbers.cells import SIGNIFICANCE
from paper_tables.paper.claim_specs import claim_specs

EXAMPLES, RIVALS, CLAIMS = 200, 6, 20
CLAIM = next(claim for claim in claim_specs() if claim.id == "skew-beats-kl")  # of which all comparisons have to hold


@dataclass(frozen=True)
class Truth:
    """How scores come about: a first arm and its rivals, in units of a score.

    Attributes:
        seeds: training seeds of each arm.
        gap: true lead of the first arm over all others, in standard deviations of a seed's score.
        block, residual: standard deviations of what a seed does to all arms, and to one of them.
        uneven: by how much each arm's residuals are larger or smaller than `residual`.
        by_example: standard deviation of what an example is worth to one arm.
        response: standard deviation of a single response.
        lacking: so many seeds the last arm lacks.
    """

    seeds: int = 5
    gap: float = 0.0
    block: float = 0.7
    residual: float = 0.7
    uneven: tuple[float, ...] = (1.0,) * (RIVALS + 1)
    by_example: float = 2.0
    response: float = 3.0
    lacking: int = 0

    @property
    def unit(self) -> float:
        """The standard deviation of a seed's score."""
        own = self.residual**2 * float(np.mean(np.square(self.uneven)))
        return float(np.sqrt(self.block**2 + own + self.response**2 / EXAMPLES))

    @property
    def lead(self) -> float:
        """The true difference between the first arm and each other."""
        return self.gap * self.unit


SCENARIOS = {
    "seeds prevail": Truth(),
    "examples prevail": Truth(by_example=12.0),
    "single responses prevail": Truth(block=0.3, residual=0.3, response=15.0),
    "one arm lacks two seeds": Truth(lacking=2),
    "arms' noise differs, 0.6 to 1.5": Truth(uneven=(0.6, 0.75, 0.9, 1.0, 1.1, 1.3, 1.5)),
    "the first arm twice as noisy as all others": Truth(uneven=(2.0, *(1.0,) * RIVALS)),
}


def drawn(truth: Truth, rng: np.random.Generator) -> list[Arm]:
    """The arms' scores in one world."""
    arms = len(truth.uneven)
    hard = rng.normal(30, 15, EXAMPLES)
    values = (
        hard
        + rng.normal(0, truth.block, (1, truth.seeds, 1))
        + rng.normal(0, truth.residual, (arms, truth.seeds, 1)) * np.reshape(truth.uneven, (arms, 1, 1))
        + rng.normal(0, truth.by_example, (arms, 1, EXAMPLES))
        + rng.normal(0, truth.response, (arms, truth.seeds, EXAMPLES))
    )
    values[0] += truth.lead
    seeds = tuple(range(truth.seeds))
    most = [truth.seeds] * (arms - 1) + [truth.seeds - truth.lacking]
    return [Arm(seeds[:n], one[:n]) for n, one in zip(most, values, strict=True)]


def comparisons(arms: Sequence[Arm]) -> tuple[ClaimComparison, ...]:
    """The first arm against each other, as a claim that it scores highest compares them."""
    named = {str(number): arm for number, arm in enumerate(arms)}
    noise = seed_noise({name: arm.scores for name, arm in named.items()})
    asked = ClaimComparison("", "above", 0.0, "points", even=0.0)
    return tuple(asked.with_effect(compare_among(named, "0", name, noise)) for name in named if name != "0")


@dataclass(frozen=True)
class Rates:
    """Shares of repetitions: intervals that hold the truth, verdicts `reproduced` and `not reproduced`."""

    coverage: float
    reproduced: float
    refuted: float


@cache
def worlds(truth: Truth, repetitions: int) -> list[tuple[ClaimComparison, ...]]:
    """What a claim's comparisons come to, in so many worlds."""
    return [comparisons(drawn(truth, np.random.default_rng([number, 7]))) for number in range(repetitions)]


def rates(truth: Truth, repetitions: int) -> Rates:
    """Of a claim that stands alone."""
    found = worlds(truth, repetitions)
    verdicts = [judge({CLAIM: one})[0].verdict for one in found]
    held = [c.low <= truth.lead <= c.high for one in found for c in one if c.low is not None and c.high is not None]
    return Rates(
        float(np.mean(held)), verdicts.count("reproduced") / len(found), verdicts.count("not reproduced") / len(found)
    )


def among_claims(truth: Truth, true: int, repetitions: int, claims: int = CLAIMS) -> tuple[float, float]:
    """Of sets of claims, so many of which are true by two standard deviations, while the others' arms are all equal.

    Returns:
        the share of true claims that are reproduced, and the mean share of wrong ones among the verdicts given. Claims
        of equal arms count as barely true, which is when a refutation is wrong most often.
    """
    # rare verdicts on claims of equal arms need many worlds
    real, equal = worlds(replace(truth, gap=2.0), repetitions), worlds(truth, 4 * repetitions)
    rng = np.random.default_rng(0)
    named = [CLAIM.model_copy(update={"id": f"{number}"}) for number in range(claims)]
    seen, wrong = [], []
    for _ in range(repetitions):
        drawn_of = {c: of[rng.integers(len(of))] for n, c in enumerate(named) for of in [real if n < true else equal]}
        found = {claim: tuple(replace(one, what=claim.id) for one in its) for claim, its in drawn_of.items()}
        verdicts = [one.verdict for one in judge(found)]
        seen.append(np.mean([verdict == "reproduced" for verdict in verdicts[:true]]) if true else 0.0)
        given = sum(verdict != "not enough evidence" for verdict in verdicts)
        wrong.append(verdicts.count("not reproduced") / max(1, given))
    return float(np.mean(seen)), float(np.mean(wrong))


def marked(truth: Truth, repetitions: int) -> tuple[float, float]:
    """Of a table's column, the share of worlds with any method told to be below the best, and of methods that are.

    With `gap` 0 all methods are equal, and no one should be told so.
    """
    found = []
    for number in range(repetitions):
        arms = {str(n): arm for n, arm in enumerate(drawn(truth, np.random.default_rng([number, 11])))}
        noise = seed_noise({name: arm.scores for name, arm in arms.items()})
        best = max(arms, key=lambda name: float(arms[name].values.mean()))
        differences = [compare_among(arms, best, name, noise) for name in arms if name != best]
        found.append(np.mean(np.array(p_values_of_best(differences)) < SIGNIFICANCE))
    return float(np.mean(np.array(found) > 0)), float(np.mean(found))


def report(repetitions: int) -> Iterator[str]:
    """The tables of docs/statistics.md."""
    yield "| noise | seeds | coverage | all arms equal: reproduced | not reproduced | 2 sd ahead of six: reproduced |"
    yield "|---|--:|--:|--:|--:|--:|"
    for name, truth in SCENARIOS.items():
        for seeds in (3, 5):
            here = replace(truth, seeds=seeds, lacking=min(truth.lacking, seeds - 2))
            equal, real = rates(here, repetitions), rates(replace(here, gap=2.0), repetitions)
            wrong = f"{equal.reproduced:.1%} | {equal.refuted:.1%}"
            yield f"| {name} | {seeds} | {equal.coverage:.1%} | {wrong} | {real.reproduced:.2f} |"
    yield ""
    yield "| methods of a column | noise | seeds | all equal: any marked | one 2 sd ahead: others marked |"
    yield "|--:|---|--:|--:|--:|"
    for arms in (7, 13):
        for name, uneven in (("equal", (1.0,) * arms), ("one method four times as noisy", (*(1.0,) * (arms - 1), 4.0))):
            for seeds in (3, 5):
                here, plain = Truth(seeds=seeds, uneven=uneven), Truth(seeds=seeds, uneven=(1.0,) * arms)
                wrong, _ = marked(here, repetitions)
                _, seen = marked(replace(here, gap=2.0 * plain.unit / here.unit), repetitions)
                yield f"| {arms} | {name} | {seeds} | {wrong:.1%} | {seen:.0%} |"
    yield ""
    yield f"| true claims among {CLAIMS} | seeds | of them reproduced | wrong among the verdicts given |"
    yield "|--:|--:|--:|--:|"
    for true in (0, 5, 10, 15):
        for seeds in (3, 5):
            seen, wrong = among_claims(Truth(seeds=seeds), true, repetitions)
            yield f"| {true} | {seeds} | {seen:.2f} | {wrong:.1%} |"


if __name__ == "__main__":
    for line in report(int(sys.argv[1]) if len(sys.argv) > 1 else 1000):
        print(line, flush=True)
