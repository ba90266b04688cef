"""Corpus BLEU as sacreBLEU computes it, the metric of IWSLT 2017."""

from __future__ import annotations

from collections.abc import Sequence

from sacrebleu.metrics import BLEU

from bench.metrics.metric import Array, check_references

# The effective order changes sentence scores, which are not used, and not the counts behind them.
_SEGMENT_BLEU = BLEU(effective_order=True)


def bleu_statistics(prediction: str, references: Sequence[str]) -> list[int]:
    """The counts from which BLEU is made, for one example; those of a corpus are their sums over its examples.

    Returns ten: tokens of the prediction, tokens of the reference closest in length, matched n-grams of order 1
    to 4, n-grams of the prediction of order 1 to 4. Tokenised by sacreBLEU's 13a.
    Raises ValueError without a reference.
    """
    check_references(references)
    score = _SEGMENT_BLEU.sentence_score(prediction, references)
    return [score.sys_len, score.ref_len, *score.counts, *score.totals]


def bleu_from_statistics(summed: Sequence[float] | Array) -> float:
    """Corpus BLEU in percent, exponentially smoothed, from the sums of `bleu_statistics` over the examples."""
    prediction_length, reference_length, *counts = (round(count) for count in summed)
    score = BLEU.compute_bleu(counts[:4], counts[4:], prediction_length, reference_length, smooth_method="exp")
    return float(score.score)


class Bleu:
    """BLEU of the whole set: n-gram counts are summed over its examples."""

    name = "bleu"
    label = "BLEU"
    score_of_sum = staticmethod(bleu_from_statistics)

    def signature(self, references: int | None) -> str:
        """sacreBLEU's signature."""
        metric = BLEU()
        if references is None:
            metric.corpus_score(["a", "a"], [["a", "a"], ["a", None]])
        else:
            metric.corpus_score(["a"], [["a"]] * references)
        return str(metric.get_signature())

    def example(self, prediction: str, references: Sequence[str]) -> list[int]:
        """See `bench.metrics.metric.Metric`."""
        return bleu_statistics(prediction, references)
