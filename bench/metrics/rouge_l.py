"""ROUGE-L F1, the metric of Dolly and SAMSum."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from bench.metrics.metric import check_references

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer


@cache
def _scorer() -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer  # here: it brings nltk, and a list of tasks needs neither

    return RougeScorer(["rougeL"], use_stemmer=True)


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """ROUGE-L F1 in percent, stemmed, the maximum over the references.

    Text outside the Latin alphabet has no tokens for rouge_score and scores 0.
    Raises ValueError without a reference.
    """
    check_references(references)
    scorer = _scorer()
    return 100.0 * max(float(scorer.score(reference, prediction)["rougeL"].fmeasure) for reference in references)


class RougeL:
    """The mean over examples of their best ROUGE-L F1 over the references."""

    name = "rouge_l"
    label = "ROUGE-L"
    score_of_sum = None

    def signature(self, references: int | None) -> str:
        """See `bench.metrics.metric.Metric`."""
        return "rouge_score rougeL F1, stemmer, maximum over references, x100, mean over examples"

    def example(self, prediction: str, references: Sequence[str]) -> float:
        """See `bench.metrics.metric.Metric`; to four decimals."""
        return round(rouge_l(prediction, references), 4)
