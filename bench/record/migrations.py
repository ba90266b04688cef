"""How records of earlier schemas become records of this one.

Each migration takes the plain values of one schema to the next. Numbers stay as they were recorded; names change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bench.config.fidelity import Fidelity
from bench.system.hashing import digest

Plain = dict[str, Any]

_METRIC_NAMES = {"ROUGE-L": "rouge_l", "BLEU": "bleu"}


def _from_1(record: Plain) -> Plain:
    """Schema 1 had one unnamed metric to a run, the SFT init student as `init`, and "embedded" for synthetic data."""
    metric = record["metric"]
    name = _METRIC_NAMES[metric["name"]]
    config = _config_from_1(record["config"])
    fields = record["comparison_fields"]
    fields = fields | {"config": _shared_from_1(fields["config"])}
    moved = {
        "schema": 2,
        "config": config,
        "comparison_fields": fields,
        "comparison_key": digest(fields),
        "metrics": [{"name": name, "label": metric["name"], "signature": metric["signature"]}],
        "data": record["data"] | {"source": record["data"]["source"].replace("embedded", "synthetic")},
    }
    scores = {
        part: {each: _set_from_1(one, name) for each, one in record[part].items()}
        for part in ("scores", "teacher_scores", "init_scores")
    }
    return {key: value for key, value in record.items() if key != "metric"} | moved | scores


def _config_from_1(config: Plain) -> Plain:
    fidelity = dict.fromkeys(Fidelity.model_fields, False) | config.get("fidelity", {})
    return config | {"init": "sft" if config["init"] == "init" else config["init"], "fidelity": fidelity}


def _shared_from_1(config: Plain) -> Plain:
    return config


def _set_from_1(one: Mapping[str, Any], metric: str) -> Plain:
    score = {key: one[key] for key in ("mean", "sd_over_decoding_seeds", "by_decoding_seed")}
    return {key: one[key] for key in ("examples", "mean_tokens", "share_ended")} | {"metrics": {metric: score}}


MIGRATIONS: dict[int, Callable[[Plain], Plain]] = {1: _from_1}
"""From the schema that is the key to the next one."""
