"""Exact match, for tasks with short answers."""

from __future__ import annotations

import string
from collections.abc import Sequence

from bench.metrics.metric import check_references

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """100 where the prediction equals a reference, else 0; case, ASCII punctuation and spacing do not count.

    Raises ValueError without a reference.
    """
    check_references(references)
    return 100.0 * (_normalised(prediction) in map(_normalised, references))


def _normalised(text: str) -> str:
    return " ".join(text.lower().translate(_WITHOUT_PUNCTUATION).split())


class ExactMatch:
    """The share in percent of examples whose prediction equals a reference."""

    name = "exact_match"
    label = "exact match"
    score_of_sum = None

    def signature(self, references: int | None) -> str:
        """See `bench.metrics.metric.Metric`."""
        return "equality with a reference, case, ASCII punctuation and spacing ignored, x100, mean over examples"

    def example(self, prediction: str, references: Sequence[str]) -> float:
        """See `bench.metrics.metric.Metric`."""
        return exact_match(prediction, references)
