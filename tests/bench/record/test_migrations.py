"""Records of schema 1, published ones among them, are read with every number as it was recorded."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.record.read import Unreadable, read_record
from bench.record.record import RunRecord
from bench.record.store import PREDICTIONS, RECORD, Store

ROOT = Path(__file__).resolve().parents[3]
SCHEMA_1 = ROOT / "tests" / "golden" / "schema_1"
METRICS = {"ROUGE-L": ("rouge_l", "rouge_l"), "BLEU": ("bleu", "bleu_statistics")}
"""Label in schema 1 -> today's name, and the name of the column in predictions."""


def refuse(message: str) -> None:
    raise AssertionError(message)


def leaves(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], object]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, key))
    else:
        yield path, value


def moved(path: tuple[str | int, ...], metric: str) -> tuple[str | int, ...]:
    """Where a value of schema 1 stands in a record of today."""
    if path[0] == "metric":
        return ("metrics", 0, "label" if path[1] == "name" else "signature")
    if path[0] in ("scores", "teacher_scores", "init_scores") and path[2] in (
        "mean",
        "sd_over_decoding_seeds",
        "by_decoding_seed",
    ):
        return (*path[:2], "metrics", metric, *path[2:])
    return path


@pytest.fixture(scope="module")
def recorded() -> list[tuple[Store, RunRecord, dict]]:
    """Runs of schema 1: their store, the record as it is read, and what stands in its file."""
    stores = [Store(folder, refuse) for folder in (SCHEMA_1, ROOT / "results" / "paper-tiny")]
    read = [
        (store, record, json.loads((store.folder(record.run_id) / RECORD).read_text(encoding="utf-8")))
        for store in stores
        for record in store.all()
    ]
    found = [one for one in read if one[2]["schema"] == 1]
    assert {record.metric.name for _, record, _ in found} == {"rouge_l", "bleu"}
    return found


def test_no_number_of_a_record_changes(recorded):
    words, numbers = set(), 0
    for _, record, old in recorded:
        new = dict(leaves(json.loads(json.dumps(record.plain()))))
        before = {moved(path, METRICS[old["metric"]["name"]][0]): value for path, value in leaves(old)}
        added = {path: new[path] for path in new.keys() - before.keys()}
        assert before.keys() <= new.keys()
        for path, value in added.items():
            if path[:2] == ("models", "generation"):
                assert value == "transformers generate"
            elif path != ("metrics", 0, "name"):
                assert value is (False if path[-1] == "cuda_graphs" else None)
        for path, value in before.items():
            if new[path] != value or type(new[path]) is not type(value):
                words.add((path, value, new[path]))
            numbers += isinstance(value, int | float)
    assert words == {
        (("schema",), 1, 2),
        (("config", "init"), "init", "sft"),
        (("data", "source"), "embedded (seed 0)", "synthetic (seed 0)"),
    }
    assert numbers > 500 * len(recorded)


def test_no_number_of_predictions_changes(recorded):
    for store, record, _ in recorded:
        name, column = METRICS[record.metric.label]
        with gzip.open(store.folder(record.run_id) / PREDICTIONS, "rt", encoding="utf-8") as file:
            old = [json.loads(line) for line in file]
        assert store.predictions(record) == [
            {"set": row["set"], "id": row["id"], "scores": {name: row[column]}} for row in old
        ]


@pytest.fixture(scope="module")
def schema_1() -> dict:
    return json.loads(next(SCHEMA_1.glob("runs/iwslt-*")).joinpath(RECORD).read_text(encoding="utf-8"))


def test_what_was_called_init_is_sft_and_pretrained_stays(schema_1, tmp_path):
    schema_1 = copy.deepcopy(schema_1)
    for old, new in (("init", "sft"), ("pretrained", "pretrained")):
        schema_1["config"]["init"] = old
        (tmp_path / RECORD).write_text(json.dumps(schema_1))
        assert read_record(tmp_path / RECORD).config.init == new


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("metric", "metric: field required"),
        ("metric.name", "metric.name: field required"),
        ("config.init", "config.init: field required"),
        ("data.source", "data.source: field required"),
        ("init_scores", "init_scores: field required"),
        ("scores.test.mean", "scores.test.metrics.bleu.mean: field required"),
        ("started", "started: field required"),
    ],
)
def test_the_first_missing_field_is_named(schema_1, tmp_path, path, told):
    broken = copy.deepcopy(schema_1)
    *parents, last = path.split(".")
    where = broken
    for key in parents:
        where = where[key]
    del where[last]
    (tmp_path / RECORD).write_text(json.dumps(broken))
    with pytest.raises(Unreadable, match=f"not a record of bench run: {told}"):
        read_record(tmp_path / RECORD)


def test_a_metric_that_schema_1_did_not_have_is_refused(schema_1, tmp_path):
    broken = schema_1 | {"metric": {"name": "ROUGE-2", "signature": ""}}
    (tmp_path / RECORD).write_text(json.dumps(broken))
    with pytest.raises(Unreadable, match=r"metric\.name: input should be 'rouge-l' or 'bleu'"):
        read_record(tmp_path / RECORD)
