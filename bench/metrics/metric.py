"""What a metric is: statistics of each example, and a score from those of all examples."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bench.system.errors import BenchError

ExampleScore = float | list[int]
"""What one example adds: a number, where a set's score is the mean over examples, or counts that are summed."""

Array = NDArray[np.float64]

ScoreOfSum = Callable[[Array], float]
"""From the sums of the examples' counts, (counts,), to the score of the set."""


@runtime_checkable
class ScoreOfSums(Protocol):
    """A `ScoreOfSum` that can also take many sums at once, as a bootstrap has them."""

    def __call__(self, summed: Array) -> float:
        """The score of one set, of sums (counts,)."""
        ...

    def of_many(self, sums: Array) -> Array:
        """The scores (...) of many sums (..., counts), each the number that a call gives."""
        ...


@runtime_checkable
class Metric(Protocol):
    """How responses are scored against references; higher is better.

    `bench.metrics.registry` finds metrics by name, by entry point (`distillm_bench.metrics`), or in a file
    (`path/to/file.py:NAME`).
    """

    @property
    def name(self) -> str:
        """Its name in task files and records: letters, digits, - and _."""
        ...

    @property
    def label(self) -> str:
        """Its name in tables."""
        ...

    def signature(self, references: int | None) -> str:
        """What exactly is computed, for `references` to each example, or None where their number varies."""
        ...

    def example(self, prediction: str, references: Sequence[str]) -> ExampleScore:
        """What one example adds, in plain Python numbers.

        Raises ValueError without a reference.
        """
        ...

    @property
    def score_of_sum(self) -> ScoreOfSum | None:
        """The score of a set from the sum of its examples' counts; None where the score is the mean of numbers.

        A `ScoreOfSums` makes bootstraps many times as fast.
        """
        ...


@runtime_checkable
class CautiousMetric(Protocol):
    """A `Metric` that can tell beforehand where its numbers would mislead."""

    def caution(self, references: Sequence[str]) -> str | None:
        """What to tell about scores against these references, those of one set; None where nothing."""
        ...


def set_score(metric: Metric, examples: Sequence[ExampleScore]) -> float:
    """A set's score from what its examples add: the exact mean of numbers, or the score of the summed counts."""
    if metric.score_of_sum is None:
        return statistics.fmean(examples)  # type: ignore[arg-type]  # numbers where there is no score of a sum
    score = metric.score_of_sum(np.sum(np.asarray(examples), axis=0))
    if not isinstance(score, float | int) or not math.isfinite(score):
        raise BenchError(f"metric {metric.name}: score_of_sum gave {score!r}, expected a finite number")
    return score


def example_score(metric: Metric, prediction: str, references: Sequence[str]) -> ExampleScore:
    """What one example adds, checked.

    Raises:
        BenchError: the metric gives no finite number or, if it has a `score_of_sum`, no list of counts.
    """
    found = metric.example(prediction, references)
    if metric.score_of_sum is not None:
        if isinstance(found, list) and found and all(isinstance(count, int) for count in found):
            return found
        raise BenchError(f"metric {metric.name}: expected a list of whole numbers for an example, got {found!r}")
    if isinstance(found, float | int) and math.isfinite(found):
        return found
    raise BenchError(f"metric {metric.name}: expected a finite number for an example, got {found!r}")


def score_texts(metric: Metric, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """A set's score from texts."""
    pairs = zip(predictions, references, strict=True)
    return set_score(metric, [example_score(metric, text, accepted) for text, accepted in pairs])


def references_of(counts: Sequence[int]) -> int | None:
    """The number of references that all examples share; None where it varies."""
    return counts[0] if len(set(counts)) == 1 else None


def check_references(references: Sequence[str]) -> None:
    """Refuse an example without references.

    Raises ValueError.
    """
    if isinstance(references, str) or not references:
        raise ValueError(f"expected a list of one or more references, got {references!r}")
