"""What stands below a table, and that no record which lacks a part of it gets that far."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pytest
from bench.record.schema import Unreadable, check_shape

from bench.record.store import RECORD, Store
from bench.system.files import write_json
from paper_tables.numbers.cells import measure
from paper_tables.numbers.runs import Library
from paper_tables.paper.ablations import any_table
from paper_tables.tables.caption import measured_notes, setting_notes
from tests.records import make_record, write_record


def paths(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield (*path, key)
            yield from paths(inner, (*path, key))


def without(record: dict, path: tuple[str, ...]) -> dict:
    cut = json.loads(json.dumps(record))
    inner = cut
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return cut


def test_a_record_without_what_captions_say_is_no_record():
    record, _ = make_record()
    check_shape(record)
    refused = {}
    for path in paths(record):
        cut = without(record, path)
        try:
            check_shape(cut)
        except Unreadable as error:
            refused[path] = str(error)
        else:
            setting_notes([cut])
    assert {("environment", name) for name in ("cpu", "threads", "device_name", "packages", "python")} <= refused.keys()
    assert {("environment", "git"), ("environment", "git", "commit"), ("time", "phases")} <= refused.keys()
    assert all(".".join(path) in told for path, told in refused.items())


def test_such_a_record_is_named_and_skipped(command, out):
    path = next((out / "runs").glob("dolly-jsd-*s10-*")) / RECORD
    (record,) = [r for r in Store(out).all() if r["run_id"] == path.parent.name]
    write_json(path, without(record, ("environment", "cpu")))
    for arguments in (("tables", "1"), ("claims", "skew-beats-kl")):
        result = command(*arguments, "--out", out, "--resamples", 100)
        assert result.exit_code == 0, result.output
        assert f"skipped {path}: not a record of bench run: environment.cpu: field required" in result.stderr


@pytest.mark.parametrize("value", ["two", None])
def test_a_wrong_value_is_named_too(value):
    record, _ = make_record()
    record["environment"]["threads"] = value
    with pytest.raises(Unreadable, match=r"environment\.threads"):
        check_shape(record)


def test_how_many_runs_were_timed_is_said(tmp_path):
    for method, loads in (("kld", (0.0, 0.0)), ("sft", (0.0, 1.0)), ("srkl", (0.0, 0.0))):
        for seed, load in zip((10, 20), loads, strict=True):
            write_record(tmp_path, method, seed=seed, other_load=load)
    table = any_table("main", "tiny")
    selection = Library(Store(tmp_path), "tiny").select(table)
    notes = measured_notes(table, selection, measure(table, selection, 200), 200)
    assert (
        "Time: of training, relative to KLD, of runs that had the machine to themselves (n = 2 of KLD, SRKL; n = 1 of "
        "SFT)." in notes
    )
