"""Corpus BLEU as sacreBLEU computes it, the metric of IWSLT 2017."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
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


def _summed(terms: Array) -> Array:
    """The sum over the first axis as Python's `sum` adds floats up: from 3.12 on with what rounding loses."""
    total, lost = np.zeros(terms.shape[1]), np.zeros(terms.shape[1])
    for term in terms:
        together = total + term
        lost += np.where(np.abs(total) >= np.abs(term), (total - together) + term, (term - together) + total)
        total = together
    return total + lost if sys.version_info >= (3, 12) else total


def _log(values: Array) -> Array:
    """The logarithms of `math`, that is of the C library: numpy's own may differ in the last bit, by processor."""
    from scipy.special import xlogy  # here, because a list of tasks does not need it

    return np.asarray(xlogy(1.0, values), dtype=np.float64)


def _exp(values: Array) -> Array:
    """The exponentials of `math`, as for `_log`."""
    from scipy.special import inv_boxcox

    return np.asarray(inv_boxcox(values, 0.0), dtype=np.float64)  # whose limit at 0 is exp


class BleuOfSums:
    """Corpus BLEU from sums of `bleu_statistics`: of one set by sacreBLEU, of many at once by its formula on arrays."""

    def __call__(self, summed: Sequence[float] | Array) -> float:
        """See `bleu_from_statistics`."""
        return bleu_from_statistics(summed)

    def of_many(self, sums: Array) -> Array:
        """The scores (...) of sums (..., 10), equal to those of calls to the last bit."""
        counts = np.rint(sums).reshape(-1, sums.shape[-1])
        correct, total = counts[:, 2:6], counts[:, 6:]
        scores = np.zeros(len(counts))
        # without a match, or without an n-gram of some order, BLEU is 0
        scored = correct.any(axis=1) & total.all(axis=1)
        counts, correct, total = counts[scored], correct[scored], total[scored]
        unmatched = correct == 0
        # exponential smoothing: the k-th order without a match counts as 1 / 2^k matches
        precisions = np.where(unmatched, 100 / (2.0 ** unmatched.cumsum(axis=1) * total), 100 * correct / total)
        brevity = np.minimum(0, 1 - counts[:, 1] / counts[:, 0])
        mean_logs = _summed(_log(precisions).T) / 4
        scores[scored] = _exp(brevity) * _exp(mean_logs)
        return scores.reshape(sums.shape[:-1])


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
    score_of_sum = BleuOfSums()

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
