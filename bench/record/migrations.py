"""How records of earlier schemas become records of this one.

Each migration takes the JSON object of one schema to the next. Numbers stay as they were recorded; names change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

JsonObject = dict[str, Any]


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class _Metric1(_Open):
    name: Literal["ROUGE-L", "BLEU"]
    signature: str


class _Config1(_Open):
    init: Literal["init", "pretrained"]


class _Data1(_Open):
    source: str


class _Schema1(_Open):
    """What `_from_1` reads; everything else passes through and is checked as part of the new record."""

    metric: _Metric1
    config: _Config1
    data: _Data1
    scores: dict[str, dict[str, Any]]
    teacher_scores: dict[str, dict[str, Any]]
    init_scores: dict[str, dict[str, Any]]


_METRIC_NAMES = {"ROUGE-L": "rouge_l", "BLEU": "bleu"}
_OF_METRIC = ("mean", "sd_over_decoding_seeds", "by_decoding_seed")


def _from_1(record: JsonObject) -> JsonObject:
    """Schema 1 had one metric to a run, called its init student after SFT `init`, and synthetic data "embedded"."""
    old = _Schema1.model_validate(record)
    metric = _METRIC_NAMES[old.metric.name]

    def scores(by_set: dict[str, dict[str, Any]]) -> JsonObject:
        return {
            name: {key: value for key, value in one.items() if key not in _OF_METRIC}
            | {"metrics": {metric: {key: one[key] for key in _OF_METRIC if key in one}}}
            for name, one in by_set.items()
        }

    return {key: value for key, value in record.items() if key != "metric"} | {
        "schema": 2,
        "config": record["config"] | {"init": "sft" if old.config.init == "init" else old.config.init},
        "metrics": [{"name": metric, "label": old.metric.name, "signature": old.metric.signature}],
        "scores": scores(old.scores),
        "teacher_scores": scores(old.teacher_scores),
        "init_scores": scores(old.init_scores),
        "data": record["data"] | {"source": old.data.source.replace("embedded", "synthetic")},
    }


MIGRATIONS: dict[int, Callable[[JsonObject], JsonObject]] = {1: _from_1}
"""From the schema that is the key to the next one.

A migration raises pydantic's ValidationError where the record lacks what it reads.
"""
