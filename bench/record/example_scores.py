"""What each example of an evaluation set scored, pooled over decoding seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, TypedDict

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.metrics.metric import ExampleScore
from bench.system.errors import BenchError

Pooled = float | NDArray[np.float64]
"""Of one example: the mean of its numbers over decoding seeds, or the sum of its counts."""


class Prediction(TypedDict, total=False):
    """A row of `predictions.jsonl.gz`.

    Runs that earlier versions packed have one a set and example, without decoding seed and text.
    """

    set: str
    id: str
    scores: dict[str, ExampleScore]  # by metric
    seed: int
    prediction: str
    tokens: int
    ended: bool


def texts_hash(rows: Iterable[Prediction]) -> str:
    """SHA-256 (hex) over the responses in rows with texts, their decoding seeds, ids, lengths and ends, in order."""
    kept = [[row["seed"], row["id"], row["prediction"], row["tokens"], row["ended"]] for row in rows]
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()


def example_scores(rows: Iterable[Prediction], metric: str) -> dict[str, dict[str, Pooled]]:
    """Set -> example id -> its score by a metric, over decoding seeds.

    Raises:
        BenchError: a row lacks its set, its id or the score, or has something else there.
    """
    try:
        return {
            name: {i: _pool(values) for i, values in examples.items()}
            for name, examples in _collected(rows, metric).items()
        }
    except (TypeError, ValueError) as error:
        raise BenchError(f"predictions of another form ({error}); make the run again with --fresh") from error


@dataclass(frozen=True)
class ExampleArray:
    """The scores of a set's examples: their ids, ascending, and (examples,) numbers or (examples, counts)."""

    ids: tuple[str, ...]
    values: NDArray[np.float64]


_SORTED: dict[tuple[str, ...], tuple[tuple[str, ...], NDArray[np.intp]]] = {}
"""Ids as they stand in a file -> ascending, and their places there. All runs have the same: one copy for thousands."""


class _Scored(msgspec.Struct, gc=False):
    """What is read of a `Prediction`; its text, by far the longest part, is passed over."""

    set: str
    id: str
    scores: dict[str, float | list[float]]
    seed: int | None = None


_ROWS = msgspec.json.Decoder(_Scored)


def arrays_of_lines(lines: bytes, metric: str) -> dict[str, ExampleArray] | None:
    """What `example_arrays` gives, of rows as runs write them: in half the time, reading included.

    Args:
        lines: a row each, as JSON.
        metric: whose scores.

    Returns:
        by set; None where the rows are of another form: damaged, of an earlier version, or not one block after the
        other for each set and decoding seed.
    """
    try:
        found = _of_blocks(_ROWS.decode_lines(lines), metric)
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
        return None
    return found if found and _are_finite(found) else None


def _of_blocks(rows: Sequence[_Scored], metric: str) -> dict[str, ExampleArray]:
    blocks: dict[str, list[list[float | list[float]]]] = {}
    ids_of: dict[str, tuple[str, ...]] = {}
    for (name, _), block in groupby(rows, key=attrgetter("set", "seed")):
        own = list(block)
        ids = tuple([row.id for row in own])
        if ids_of.setdefault(name, ids) != ids or len(set(ids)) < len(ids):
            return {}
        blocks.setdefault(name, []).append([row.scores[metric] for row in own])
    found = {}
    for name, ids in ids_of.items():
        if ids not in _SORTED:
            places = sorted(range(len(ids)), key=ids.__getitem__)
            _SORTED[ids] = tuple(ids[i] for i in places), np.array(places, dtype=np.intp)
        ascending, order = _SORTED[ids]
        each = np.array(blocks[name], dtype=np.float64)[:, order]  # (decoding seeds, examples[, counts])
        # of one value the mean is the value
        values = each.sum(axis=0) if each.ndim == 3 else each[0] if len(each) == 1 else each.T.copy().mean(axis=1)
        found[name] = ExampleArray(ascending, values)
    return found


def example_arrays(rows: Iterable[Prediction], metric: str) -> dict[str, ExampleArray]:
    """What `example_scores` gives, as arrays.

    Raises:
        BenchError: as `example_scores`, or the scores of a set are not of one form.
    """
    found = {}
    for name, examples in example_scores(rows, metric).items():
        ids = tuple(sorted(examples))
        try:
            found[name] = ExampleArray(ids, np.array([examples[i] for i in ids], dtype=np.float64))
        except ValueError as error:
            raise BenchError(f"predictions of another form ({error}); make the run again with --fresh") from error
    if not _are_finite(found):
        raise BenchError("predictions of another form (a score is no finite number); make the run again with --fresh")
    return found


def _are_finite(arrays: Mapping[str, ExampleArray]) -> bool:
    return all(np.isfinite(one.values).all() for one in arrays.values())


def _collected(rows: Iterable[Prediction], metric: str) -> dict[str, dict[str, list[ExampleScore]]]:
    collected: dict[str, dict[str, list[ExampleScore]]] = {}
    try:
        for row in rows:
            collected.setdefault(row["set"], {}).setdefault(row["id"], []).append(row["scores"][metric])
    except KeyError as error:
        raise BenchError(f"predictions without {error}; make the run again with --fresh") from error
    return collected


def _pool(values: list[ExampleScore]) -> Pooled:
    if isinstance(values[0], list):
        return np.sum(values, axis=0, dtype=np.float64)
    # of one value the mean is the value; runs that earlier versions packed have nothing else, and numpy takes its time
    return float(values[0] if len(values) == 1 else np.mean(values))


_EARLIER_NAMES = (("rouge_l", "rouge_l"), ("bleu_statistics", "bleu"))


def upgraded(rows: list[dict[str, Any]]) -> list[Prediction]:
    """Rows read from JSON as they are written now, changed in place: thousands of runs have millions of them.

    Earlier rows had one metric and its scores under a name of their own.
    """
    for row in rows:
        if "scores" not in row:
            for old, new in _EARLIER_NAMES:
                if old in row:
                    row["scores"] = {new: row.pop(old)}
    return rows  # type: ignore[return-value]  # read from JSON
