"""What each example of an evaluation set scored, pooled over decoding seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from sys import intern  # all runs have the same ids: thousands of runs, one copy
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from bench.metrics.metric import ExampleScore
from bench.system.errors import BenchError

Pooled = float | NDArray[np.float64]
"""Of one example: the mean of its numbers over decoding seeds, or the sum of its counts."""


class Prediction(TypedDict, total=False):
    """A row of `predictions.jsonl.gz`. Packed runs have one a set and example, without decoding seed and text."""

    set: str
    id: str
    scores: dict[str, ExampleScore]  # by metric
    seed: int
    prediction: str
    tokens: int
    ended: bool


def example_scores(rows: Iterable[Prediction], metric: str) -> dict[str, dict[str, Pooled]]:
    """Set -> example id -> its score by a metric, over decoding seeds.

    Raises:
        BenchError: a row lacks its set, its id or the score.
    """
    collected: dict[str, dict[str, list[ExampleScore]]] = {}
    try:
        for row in rows:
            collected.setdefault(row["set"], {}).setdefault(intern(row["id"]), []).append(row["scores"][metric])
    except KeyError as error:
        raise BenchError(f"predictions without {error}; make the run again with --fresh") from error
    return {name: {i: _pool(values) for i, values in examples.items()} for name, examples in collected.items()}


@dataclass(frozen=True)
class ExampleArray:
    """The scores of a set's examples: their ids, ascending, and (examples,) numbers or (examples, counts)."""

    ids: tuple[str, ...]
    values: NDArray[np.float64]


def example_arrays(rows: Iterable[Prediction], metric: str) -> dict[str, ExampleArray]:
    """What `example_scores` gives, as arrays: a hundredth of the memory.

    Raises:
        BenchError: as `example_scores`, or the scores of a set are not of one form.
    """
    found = {}
    for name, examples in example_scores(rows, metric).items():
        ids = tuple(sorted(examples))
        try:
            values = np.array([examples[i] for i in ids], dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise BenchError(f"predictions for {name} of several forms; make the run again with --fresh") from error
        found[name] = ExampleArray(_IDS.setdefault(ids, ids), values)
    return found


_IDS: dict[tuple[str, ...], tuple[str, ...]] = {}
"""All runs have the same ids: thousands of runs, one copy."""


def _pool(values: list[ExampleScore]) -> Pooled:
    if isinstance(values[0], list):
        return np.sum(values, axis=0, dtype=np.float64)
    # of one value the mean is the value; packed runs have nothing else, and numpy takes its time over each
    return float(values[0] if len(values) == 1 else np.mean(values))


_EARLIER_NAMES = (("rouge_l", "rouge_l"), ("bleu_statistics", "bleu"))


def upgraded(row: Mapping[str, object]) -> Prediction:
    """A row as it is written now; earlier ones had one metric and its scores under a name of their own."""
    if "scores" in row:
        return row  # type: ignore[return-value]  # read from JSON
    kept = dict(row)
    kept["scores"] = {new: kept.pop(old) for old, new in _EARLIER_NAMES if old in kept}
    return kept  # type: ignore[return-value]  # read from JSON
