"""chrF as sacreBLEU computes it (Popović 2015): character n-grams, which suit languages rich in word forms."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from bench.metrics.bleu import sacrebleu_signature
from bench.metrics.metric import Array, check_references

if TYPE_CHECKING:
    from sacrebleu.metrics import CHRF


@cache
def _chrf() -> CHRF:
    from sacrebleu.metrics import CHRF  # here, because a list of tasks does not need it

    return CHRF()


def chrf_statistics(prediction: str, references: Sequence[str]) -> list[int]:
    """The counts from which chrF is made, for one example; those of a corpus are their sums over its examples.

    Returns 18, three for each order 1 to 6: n-grams of the prediction, of the reference, and of both. The reference
    is the one with the highest chrF.
    Raises ValueError without a reference.
    """
    check_references(references)
    # sacreBLEU has no public name for the counts; its own significance test reads them by this one
    (counts,) = _chrf()._extract_corpus_statistics([prediction], [[reference] for reference in references])
    return list(counts)


def chrf_from_statistics(summed: Sequence[float] | Array) -> float:
    """Corpus chrF2 in percent from the sums of `chrf_statistics` over the examples."""
    return float(_chrf()._compute_score_from_stats([round(count) for count in summed]).score)


class ChrF:
    """chrF2 of the whole set: n-gram counts are summed over its examples."""

    name = "chrf"
    label = "chrF"
    score_of_sum = staticmethod(chrf_from_statistics)

    def signature(self, references: int | None) -> str:
        """See `bench.metrics.metric.Metric`; sacreBLEU's own."""
        from sacrebleu.metrics import CHRF

        return sacrebleu_signature(CHRF(), references)

    def example(self, prediction: str, references: Sequence[str]) -> list[int]:
        """See `bench.metrics.metric.Metric`."""
        return chrf_statistics(prediction, references)
