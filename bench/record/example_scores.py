"""What each example of an evaluation set scored, pooled over decoding seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, TypedDict

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.metrics.metric import ExampleScore
from bench.system.errors import BenchError


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


@dataclass(frozen=True)
class ExampleArray:
    """The scores of a set's examples: their ids, ascending, and (examples,) numbers or (examples, counts)."""

    ids: tuple[str, ...]
    values: NDArray[np.float64]


NO_EXAMPLES = ExampleArray((), np.zeros(0))

_SORTED: dict[tuple[str, ...], tuple[tuple[str, ...], NDArray[np.intp]]] = {}
"""Ids as they stand in a file -> ascending, and their places there. All runs have the same: one copy for thousands."""


class _Scored(msgspec.Struct, gc=False):
    """What is read of a `Prediction`; its text, by far the longest part, is passed over."""

    set: str
    id: str
    scores: dict[str, float | bool | list[float | bool]] = {}
    seed: int | None = None
    rouge_l: float | None = None  # of version 0.1, which had one metric
    bleu_statistics: list[float] | None = None

    def score(self, metric: str) -> float | list[float]:
        earlier = {"rouge_l": self.rouge_l, "bleu": self.bleu_statistics}.get(metric)
        return self.scores[metric] if earlier is None else earlier


_ROWS = msgspec.json.Decoder(_Scored)


def example_arrays(lines: bytes, metric: str) -> dict[str, ExampleArray]:
    """What each example scored by a metric, by set: of numbers the mean over decoding seeds, of counts the sum.

    Args:
        lines: rows of predictions, each a line of JSON, in blocks of a set and a decoding seed.
        metric: whose scores.

    Raises:
        BenchError: the rows are damaged, lack the metric, or have another form.
    """
    try:
        found = _of_blocks(_ROWS.decode_lines(lines), metric)
        if not found or not all(np.isfinite(one.values).all() for one in found.values()):
            raise ValueError("a score is no finite number" if found else "no rows")
    except KeyError as error:
        raise BenchError(f"predictions without {error}; make the run again with --fresh") from error
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise BenchError(f"predictions of another form ({error}); make the run again with --fresh") from error
    return found


def _of_blocks(rows: Sequence[_Scored], metric: str) -> dict[str, ExampleArray]:
    blocks: dict[str, list[list[float | list[float]]]] = {}
    ids_of: dict[str, tuple[str, ...]] = {}
    for (name, _), block in groupby(rows, key=attrgetter("set", "seed")):
        own = list(block)
        ids = tuple([row.id for row in own])
        if ids_of.setdefault(name, ids) != ids or len(set(ids)) < len(ids):
            raise ValueError("decoding seeds do not have each example once")
        blocks.setdefault(name, []).append([row.score(metric) for row in own])
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
