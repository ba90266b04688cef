"""ROUGE-L, exact match and BLEU, per example and over a corpus."""

import string
from collections.abc import Sequence

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

_ROUGE = RougeScorer(["rougeL"], use_stemmer=True)
# The effective order changes sentence scores, which are not used, and not the counts behind them.
_SEGMENT_BLEU = BLEU(effective_order=True)
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """ROUGE-L F1 in percent, stemmed, the maximum over the references.

    Text outside the Latin alphabet has no tokens for rouge_score and scores 0.
    Raises ValueError without a reference.
    """
    _check_references(references)
    return 100.0 * max(float(_ROUGE.score(reference, prediction)["rougeL"].fmeasure) for reference in references)


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """100 where the prediction equals a reference, else 0; case, ASCII punctuation and spacing do not count.

    Raises ValueError without a reference.
    """
    _check_references(references)
    return 100.0 * (_normalised(prediction) in map(_normalised, references))


def bleu_statistics(prediction: str, references: Sequence[str]) -> list[int]:
    """The counts from which BLEU is made, for one example; those of a corpus are their sums over its examples.

    Returns ten: tokens of the prediction, tokens of the reference closest in length, matched n-grams of order 1
    to 4, n-grams of the prediction of order 1 to 4. Tokenised by sacreBLEU's 13a.
    Raises ValueError without a reference.
    """
    _check_references(references)
    score = _SEGMENT_BLEU.sentence_score(prediction, references)
    return [score.sys_len, score.ref_len, *score.counts, *score.totals]


def bleu_from_statistics(summed: Sequence[int]) -> float:
    """Corpus BLEU in percent, exponentially smoothed, from the sums of `bleu_statistics` over the examples."""
    prediction_length, reference_length, *counts = (int(count) for count in summed)
    score = BLEU.compute_bleu(counts[:4], counts[4:], prediction_length, reference_length, smooth_method="exp")
    return float(score.score)


def bleu_signature(references: int | None = 1) -> str:
    """The sacreBLEU signature for `references` per example, or None where their number varies."""
    metric = BLEU()
    if references is None:
        metric.corpus_score(["a", "a"], [["a", "a"], ["a", None]])
    else:
        metric.corpus_score(["a"], [["a"]] * references)
    return str(metric.get_signature())


def _normalised(text: str) -> str:
    return " ".join(text.lower().translate(_WITHOUT_PUNCTUATION).split())


def _check_references(references: Sequence[str]) -> None:
    if isinstance(references, str) or not references:
        raise ValueError(f"expected a list of one or more references, got {references!r}")
