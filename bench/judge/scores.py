"""From verdicts to scores: what the paper reports, how sure it is, and how far the judge can be trusted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from bench.analysis.significance import hierarchical_bootstrap
from bench.judge.items import Item
from bench.judge.protocol import Outcome, ProtocolName
from bench.judge.runner import Reading

Pair = tuple[float, float]
"""What the run's response and the other one got, whichever was shown first."""
ORDERS = (False, True)


@dataclass(frozen=True)
class Judged:
    """An item with every reading of it: (swapped, repeat) -> reading."""

    item: Item
    readings: Mapping[tuple[bool, int], Reading]

    def pairs(self, swapped: bool) -> list[Pair]:
        """Scored verdicts in one order, by repeat, the run's response first."""
        found = (self.readings[key].verdict for key in sorted(self.readings) if key[0] == swapped)
        return [(v[1], v[0]) if swapped else v for v in found if v is not None]

    @property
    def pair(self) -> Pair | None:
        """Mean over both orders of the mean over repeats; None unless both orders have a verdict."""
        orders = [self.pairs(swapped) for swapped in ORDERS]
        if not all(orders):
            return None  # one order alone would carry the position's bias into the score
        own, other = (fmean(fmean(pair[side] for pair in pairs) for pairs in orders) for side in (0, 1))
        return own, other

    @property
    def outcome(self) -> Outcome:
        """`SCORED`, or what kept it from being scored: the first that is not."""
        if self.pair is not None:
            return Outcome.SCORED
        return next(r.outcome for r in self.readings.values() if r.outcome != Outcome.SCORED)


def summarise(judged: Sequence[Judged], protocol: ProtocolName, resamples: int) -> dict[str, Any]:
    """Everything that is said of some items, as plain values.

    The score of `rating` is 100 x sum of the run's ratings / sum of the other's (arXiv:2402.03898, after
    arXiv:2306.08543); that of `pairwise` is the run's win rate in percent, a tie counting half.
    """
    scored = [one for one in judged if one.pair is not None]
    clean = [one for one in scored if not one.item.flagged]
    flags = Counter(name for one in judged for name in one.item.suspicions)
    readings = [reading for one in judged for reading in one.readings.values()]
    summary: dict[str, Any] = {
        "items": len(judged),
        "outcomes": dict(sorted(Counter(one.outcome.value for one in judged).items())),
        "readings": {
            "outcomes": dict(sorted(Counter(reading.outcome.value for reading in readings).items())),
            "asked_again": sum(len(reading.answers) - 1 for reading in readings),
        },
        "score": _score(scored, protocol, resamples),
        "flagged": {
            "items": sum(one.item.flagged for one in judged),
            "by_pattern": dict(sorted(flags.items())),
        },
        "score_without_flagged": _score(clean, protocol, resamples) if len(clean) < len(scored) else None,
        "position_bias": _position_bias(scored, protocol),
        "agreement_of_orders": _agreement([_two_orders(one) for one in scored], protocol),
        "agreement_of_repeats": _agreement([pairs for one in judged for pairs in _repeats(one)], protocol),
    }
    if protocol == "pairwise":
        theirs = Counter(name for one in judged for name in one.item.suspicions_against)
        summary["flagged"]["by_pattern_against"] = dict(sorted(theirs.items()))
        pairs = [one.pair for one in scored if one.pair is not None]
        summary["wins"] = sum(own > other for own, other in pairs)
        summary["ties"] = sum(own == other for own, other in pairs)
        summary["losses"] = sum(own < other for own, other in pairs)
    return summary


def _score(scored: Sequence[Judged], protocol: ProtocolName, resamples: int) -> dict[str, Any] | None:
    """The score with its 95 % interval over examples; an example's decoding seeds are drawn together."""
    by_example: dict[str, list[Pair]] = {}
    for one in scored:
        if one.pair is not None:
            by_example.setdefault(one.item.id, []).append(one.pair)
    if not by_example:
        return None
    sums = np.array([np.sum(pairs, axis=0) for pairs in by_example.values()], dtype=np.float64)
    ratio = _rating if protocol == "rating" else _win_rate
    value = ratio(sums.sum(0))
    if len(sums) < 2:
        return {"value": value, "low": None, "high": None, "examples": 1}
    interval = hierarchical_bootstrap(sums[None], score=ratio, resamples=resamples)
    return {"value": value, "low": interval.low, "high": interval.high, "examples": len(sums)}


def _rating(summed: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return float(100 * summed[0] / summed[1])


def _win_rate(summed: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return float(100 * summed[0] / (summed[0] + summed[1]))


def _position_bias(scored: Iterable[Judged], protocol: ProtocolName) -> dict[str, Any] | None:
    """How much better a response does for standing first: rating points, or share of decided verdicts.

    Each order counts as often as the other; else the better response would pass for the better place.
    """
    verdicts = [verdict for one in scored for verdict in _as_shown_in_both(one)]
    if protocol == "pairwise":
        decided = [verdict for verdict in verdicts if verdict[0] != verdict[1]]
        if not decided:
            return None
        return {"first_preferred": fmean(verdict[0] for verdict in decided), "verdicts": len(decided)}
    if not verdicts:
        return None
    return {"first_minus_second": fmean(a - b for a, b in verdicts), "verdicts": len(verdicts)}


def _as_shown_in_both(one: Judged) -> Iterator[Pair]:
    """Verdicts in equal numbers of both orders, the response shown first before the other."""
    for straight, swapped in zip(*(one.pairs(swapped) for swapped in ORDERS), strict=False):
        yield straight
        yield swapped[1], swapped[0]


def _two_orders(one: Judged) -> tuple[Pair, Pair]:
    straight, swapped = (one.pairs(swapped) for swapped in ORDERS)
    return straight[0], swapped[0]


def _repeats(one: Judged) -> list[tuple[Pair, Pair]]:
    return [pair for swapped in ORDERS for pair in combinations(one.pairs(swapped), 2)]


def _agreement(pairs: Sequence[tuple[Pair, Pair]], protocol: ProtocolName) -> dict[str, Any] | None:
    """Spearman's correlation of the run's ratings, and Cohen's kappa of which response is better."""
    if len(pairs) < 2:
        return None
    kappa = cohens_kappa([(_better(first), _better(second)) for first, second in pairs])
    found: dict[str, Any] = {"pairs": len(pairs), "kappa": kappa}
    if protocol == "rating":
        firsts, seconds = [first[0] for first, _ in pairs], [second[0] for _, second in pairs]
        varied = len(set(firsts)) > 1 and len(set(seconds)) > 1
        found["spearman"] = float(spearmanr(firsts, seconds).statistic) if varied else None
    return found


def _better(pair: Pair) -> int:
    return int(pair[0] > pair[1]) - int(pair[0] < pair[1])


def cohens_kappa(pairs: Sequence[tuple[int, int]]) -> float | None:
    """Cohen's kappa (1960) of two raters' categories; None where chance alone would agree always."""
    count = len(pairs)
    firsts, seconds = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    observed = sum(a == b for a, b in pairs) / count
    chance = sum(firsts[category] * seconds[category] for category in firsts) / count**2
    return None if math.isclose(chance, 1.0) else (observed - chance) / (1 - chance)


def by_set(judged: Sequence[Judged], protocol: ProtocolName, resamples: int) -> dict[str, dict[str, Any]]:
    """`summarise` for each evaluation set."""
    grouped: dict[str, list[Judged]] = {}
    for one in judged:
        grouped.setdefault(one.item.set, []).append(one)
    return {name: summarise(ones, protocol, resamples) for name, ones in grouped.items()}
