"""Corpus BLEU as sacreBLEU computes it, the metric of IWSLT 2017."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import regex

from bench.metrics.metric import Array, check_references

if TYPE_CHECKING:
    from sacrebleu.metrics import BLEU


@cache
def _bleu() -> BLEU:
    from sacrebleu.metrics import BLEU  # here, because a list of tasks does not need it

    # the effective order changes sentence scores, which are not used, and not the counts behind them
    return BLEU(effective_order=True)


def bleu_statistics(prediction: str, references: Sequence[str]) -> list[int]:
    """The counts from which BLEU is made, for one example; those of a corpus are their sums over its examples.

    Returns ten: tokens of the prediction, tokens of the reference closest in length, matched n-grams of order 1
    to 4, n-grams of the prediction of order 1 to 4. Tokenised by sacreBLEU's 13a.
    Raises ValueError without a reference.
    """
    check_references(references)
    score = _bleu().sentence_score(prediction, references)
    return [score.sys_len, score.ref_len, *score.counts, *score.totals]


def bleu_from_statistics(summed: Sequence[float] | Array) -> float:
    """Corpus BLEU in percent, exponentially smoothed, from the sums of `bleu_statistics` over the examples."""
    prediction_length, reference_length, *counts = (round(count) for count in summed)
    score = _bleu().compute_bleu(counts[:4], counts[4:], prediction_length, reference_length, smooth_method="exp")
    return float(score.score)


def sacrebleu_signature(metric: Any, references: int | None) -> str:
    """The signature of one of sacreBLEU's metrics, which knows the number of references after scoring only."""
    if references is None:
        metric.corpus_score(["a", "a"], [["a", "a"], ["a", None]])
    else:
        metric.corpus_score(["a"], [["a"]] * references)
    return str(metric.get_signature())


class Bleu:
    """BLEU of the whole set: n-gram counts are summed over its examples."""

    name = "bleu"
    label = "BLEU"
    score_of_sum = staticmethod(bleu_from_statistics)

    def signature(self, references: int | None) -> str:
        """See `bench.metrics.metric.Metric`; sacreBLEU's own."""
        from sacrebleu.metrics import BLEU

        return sacrebleu_signature(BLEU(), references)

    def example(self, prediction: str, references: Sequence[str]) -> list[int]:
        """See `bench.metrics.metric.Metric`."""
        return bleu_statistics(prediction, references)

    def caution(self, references: Sequence[str]) -> str | None:
        """See `bench.metrics.metric.CautiousMetric`: scripts in which the tokens of 13a are whole sentences."""
        touched = sum(bool(_UNSPACED.search(reference)) for reference in references) / len(references)
        if touched < _WORTH_NAMING:
            return None
        return (
            f"BLEU splits words at spaces (13a): {touched:.0%} of the references are in a script that has none "
            "between words, where a sentence counts as one word and equal texts may score 0; chrF reads characters: "
            "--set evaluation.metrics=[chrf], or metrics in a task file"
        )


_WORTH_NAMING = 0.05  # of the references; a foreign name moves no score
# three characters in a row: a word, and no sign quoted in a text of another script
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]{3}")
