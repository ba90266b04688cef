"""From verdicts to scores: the paper's figure with its interval, and measures of how far the judge can be trusted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from bench.analysis.significance import bootstrap_interval
from bench.judge.items import Item
from bench.judge.protocol import Outcome, ProtocolName
from bench.judge.queue import Reading
from bench.judge.results import Agreement, Flags, JudgeScore, PositionBias, ReadingCounts, SetResult

Pair = tuple[float, float]
"""What the run's response and the other one got, in this order whichever was shown first."""
T = TypeVar("T", bound=str)
ORDERS = (False, True)
"""Whether the two responses are swapped, so that the run's is shown second."""


@dataclass(frozen=True)
class JudgedItem:
    """An item and its readings by (swapped, repeat)."""

    item: Item
    readings: Mapping[tuple[bool, int], Reading]

    def pairs(self, swapped: bool) -> list[Pair]:
        """The scored verdicts of one order, by repeat."""
        found = (self.readings[key].verdict for key in sorted(self.readings) if key[0] == swapped)
        return [(v[1], v[0]) if swapped else v for v in found if v is not None]

    @property
    def pair(self) -> Pair | None:
        """The mean over both orders of the mean over repeats; None unless both orders have a verdict."""
        orders = [self.pairs(swapped) for swapped in ORDERS]
        if not all(orders):
            return None  # a single order would carry the judge's position bias into the score
        own, other = (fmean(fmean(pair[side] for pair in pairs) for pairs in orders) for side in (0, 1))
        return own, other

    @property
    def outcome(self) -> Outcome:
        """`SCORED`, or the first outcome that kept the item from being scored."""
        if self.pair is not None:
            return Outcome.SCORED
        return next(r.outcome for r in self.readings.values() if r.outcome != Outcome.SCORED)


def summarise(items: Sequence[JudgedItem], protocol: ProtocolName) -> SetResult:
    """The result on some items.

    The score of `rating` is 100 x sum of the run's ratings / sum of the other side's (arXiv:2402.03898, after
    arXiv:2306.08543); that of `pairwise` is the run's win rate in percent, a tie counting half.
    """
    scored = [judged for judged in items if judged.pair is not None]
    clean = [judged for judged in scored if not judged.item.flagged]
    readings = [reading for judged in items for reading in judged.readings.values()]
    against, decided = {}, {}  # fields of `pairwise`
    if protocol == "pairwise":
        names = (name for judged in items for name in judged.item.suspicions_against)
        against["by_pattern_against"] = _sorted_counts(names)
        pairs = [judged.pair for judged in scored if judged.pair is not None]
        decided["wins"] = sum(own > other for own, other in pairs)
        decided["ties"] = sum(own == other for own, other in pairs)
        decided["losses"] = sum(own < other for own, other in pairs)
    return SetResult(
        items=len(items),
        outcomes=_sorted_counts(judged.outcome for judged in items),
        readings=ReadingCounts(
            outcomes=_sorted_counts(reading.outcome for reading in readings),
            asked_again=sum(len(reading.answers) - 1 for reading in readings),
        ),
        score=_score(scored, protocol),
        flagged=Flags(
            items=sum(judged.item.flagged for judged in items),
            by_pattern=_sorted_counts(name for judged in items for name in judged.item.suspicions),
            **against,
        ),
        score_without_flagged=_score(clean, protocol) if len(clean) < len(scored) else None,
        position_bias=_position_bias(scored, protocol),
        agreement_of_orders=_agreement([_two_orders(judged) for judged in scored], protocol),
        agreement_of_repeats=_agreement([pairs for judged in items for pairs in _repeats(judged)], protocol),
        **decided,
    )


def _sorted_counts(values: Iterable[T]) -> dict[T, int]:
    return dict(sorted(Counter(values).items()))


def _score(scored: Sequence[JudgedItem], protocol: ProtocolName) -> JudgeScore | None:
    """The score with its 95 % interval over examples; the decoding seeds of an example are resampled together."""
    by_example: dict[str, list[Pair]] = {}
    for judged in scored:
        if judged.pair is not None:
            by_example.setdefault(judged.item.id, []).append(judged.pair)
    if not by_example:
        return None
    sums = np.array([np.sum(pairs, axis=0) for pairs in by_example.values()], dtype=np.float64)
    ratio = _rating if protocol == "rating" else _win_rate
    value = ratio(sums.sum(0))
    if len(sums) < 2:
        return JudgeScore(value=value, low=None, high=None, examples=1)
    low, high = bootstrap_interval(sums, ratio)
    return JudgeScore(value=value, low=low, high=high, examples=len(sums))


def _rating(summed: NDArray[np.float64]) -> float:
    return float(100 * summed[0] / summed[1])


def _win_rate(summed: NDArray[np.float64]) -> float:
    return float(100 * summed[0] / (summed[0] + summed[1]))


def _position_bias(scored: Iterable[JudgedItem], protocol: ProtocolName) -> PositionBias | None:
    """How much a response gains from being shown first.

    Both orders enter in equal numbers; otherwise a better response would look like a better position.
    """
    verdicts = [verdict for judged in scored for verdict in _as_shown_in_both(judged)]
    if protocol == "pairwise":
        decided = [verdict for verdict in verdicts if verdict[0] != verdict[1]]
        if not decided:
            return None
        return PositionBias(first_preferred=fmean(verdict[0] for verdict in decided), verdicts=len(decided))
    if not verdicts:
        return None
    return PositionBias(first_minus_second=fmean(a - b for a, b in verdicts), verdicts=len(verdicts))


def _as_shown_in_both(judged: JudgedItem) -> Iterator[Pair]:
    """Verdicts from both orders in equal numbers, what the response shown first got before the other."""
    for straight, swapped in zip(*(judged.pairs(swapped) for swapped in ORDERS), strict=False):
        yield straight
        yield swapped[1], swapped[0]


def _two_orders(judged: JudgedItem) -> tuple[Pair, Pair]:
    straight, swapped = (judged.pairs(swapped) for swapped in ORDERS)
    return straight[0], swapped[0]


def _repeats(judged: JudgedItem) -> list[tuple[Pair, Pair]]:
    return [pair for swapped in ORDERS for pair in combinations(judged.pairs(swapped), 2)]


def _agreement(pairs: Sequence[tuple[Pair, Pair]], protocol: ProtocolName) -> Agreement | None:
    """How far the verdicts of each pair agree; None with fewer than two pairs."""
    if len(pairs) < 2:
        return None
    kappa = cohens_kappa([(_better(first), _better(second)) for first, second in pairs])
    if protocol == "pairwise":
        return Agreement(pairs=len(pairs), kappa=kappa)
    firsts, seconds = [first[0] for first, _ in pairs], [second[0] for _, second in pairs]
    varied = len(set(firsts)) > 1 and len(set(seconds)) > 1
    spearman = float(spearmanr(firsts, seconds).statistic) if varied else None
    return Agreement(pairs=len(pairs), kappa=kappa, spearman=spearman)


def _better(pair: Pair) -> int:
    return int(pair[0] > pair[1]) - int(pair[0] < pair[1])


def cohens_kappa(pairs: Sequence[tuple[int, int]]) -> float | None:
    """Cohen's kappa (1960) of two raters' categories; None where chance alone would always agree."""
    count = len(pairs)
    firsts, seconds = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    observed = sum(a == b for a, b in pairs) / count
    chance = sum(firsts[category] * seconds[category] for category in firsts) / count**2
    return None if math.isclose(chance, 1.0) else (observed - chance) / (1 - chance)


def by_set(items: Sequence[JudgedItem], protocol: ProtocolName) -> dict[str, SetResult]:
    """`summarise` for each evaluation set."""
    grouped: dict[str, list[JudgedItem]] = {}
    for judged in items:
        grouped.setdefault(judged.item.set, []).append(judged)
    return {name: summarise(ones, protocol) for name, ones in grouped.items()}
