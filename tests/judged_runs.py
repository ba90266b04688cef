"""Recorded runs with texts to judge, made of real examples without training anything."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np

from bench.data import TaskData
from bench.experiment.examples import examples_of
from bench.record.example_scores import Prediction
from bench.record.record import RunRecord
from bench.record.store import Store
from tests.records import DECODING_SEEDS, SETS, make_record

FEW = ("data.max_train=64", "data.max_validation=8", "data.max_test=8")


@cache
def _loaded(assignments: tuple[str, ...]) -> TaskData:
    return examples_of("dolly", make_record("sft", assignments=assignments)[0].config.data)


def write_run(
    out: Path,
    method: str,
    *,
    seed: int = 10,
    assignments: tuple[str, ...] = FEW,
    texts: Mapping[str, str] = MappingProxyType({}),
) -> RunRecord:
    """Write a run on dolly whose responses are words of the references; `texts` replaces some by example id."""
    data = _loaded(assignments)
    rng = np.random.default_rng([seed, *method.encode()])
    rows: list[Prediction] = []
    for name in SETS["dolly"]:
        for decoding_seed in DECODING_SEEDS:
            for example in data.splits[name]:
                words = " ".join(rng.permutation(example.references[0].split()))
                text = texts.get(example.id, words)
                rows.append({"set": name, "seed": decoding_seed, "id": example.id, "prediction": text, "tokens": 5})
                rows[-1] |= {"ended": True, "scores": {"rouge_l": round(float(rng.uniform(20, 40)), 4)}}
    record, _ = make_record(method, seed=seed, rows=rows, assignments=assignments)
    record = record.model_copy(update={"data": record.data.model_copy(update={"fingerprint": data.fingerprint()})})
    Store(out).write(record, rows)
    return record
