"""Which runs a table takes, which it misses, and which it refuses."""

from __future__ import annotations

import gzip
import json
import shlex

import numpy as np
import pytest

import bench.record.store
from bench.config.comparable import comparison_fields
from bench.config.sections import Config
from bench.record.store import PREDICTIONS, Store
from bench.system.errors import BenchError
from paper_tables.numbers.runs import RunIndex
from paper_tables.paper.ablations import find_table
from paper_tables.paper.run_spec import default_run
from paper_tables.tables.make import COMMANDS, fill_table, write_tables
from tests.conftest import invoke
from tests.records import write_record

SPEC = default_run("tiny", "kld", "dolly", "dataset")


def chosen(out, name="1", preset="tiny", **options) -> list[tuple[str, int]]:
    selection = RunIndex(Store(out), preset, **options).select(find_table(name, preset))
    return sorted((record.config.method.name, record.seed) for record in selection.records)


def test_runs_of_the_tables_specs_are_taken_and_others_not(tmp_path):
    write_record(tmp_path, "kld")
    write_record(tmp_path, "skl", sgo="mixed")  # another output source
    write_record(tmp_path, "srkl", assignments=("method.alpha=0.3",))  # another skew
    write_record(tmp_path, "jsd", init="pretrained")  # another init student
    write_record(tmp_path, "sft", assignments=("plain_text.weight=0.5",))  # another auxiliary loss
    write_record(tmp_path, "rkld", preset="small")
    write_record(tmp_path, "rkld", "samsum")
    assert chosen(tmp_path) == [("kld", 10)]
    assert chosen(tmp_path, "main") == [("kld", 10)]
    assert chosen(tmp_path, preset="small") == [("rkld", 10)]


def test_only_the_seeds_asked_for(out):
    assert chosen(out, seeds=[20]) == [(method, 20) for method in ("jsd", "kld", "rkld", "skl")]
    missing = RunIndex(Store(out), "tiny", seeds=[20, 99]).select(find_table("1", "tiny")).missing
    assert {(m.spec.method, m.seeds) for m in missing} == {
        *((method, (99,)) for method in ("jsd", "kld", "rkld", "skl")),
        ("srkl", (20, 99)),
    }


def test_what_is_missing_comes_with_the_command_that_makes_it(out):
    (missing,) = RunIndex(Store(out), "tiny").select(find_table("1", "tiny")).missing
    assert missing.spec.method == "srkl"
    assert missing.commands == tuple(
        f"bench run --method srkl --task dolly --preset tiny --seed {seed}" for seed in (10, 20, 30)
    )


def test_the_missing_run_is_made_under_the_settings_of_those_that_are_there(tmp_path):
    student = '{"model_type": "gpt2", "n_embd": 32, "n_head": 2}'
    settings = ("training.epochs=2", "data.max_test=40", f"models.student_config={student}")
    there = write_record(tmp_path, "kld", assignments=settings)
    missing = RunIndex(Store(tmp_path), "tiny").select(find_table("1", "tiny")).missing
    command = next(m.commands[0] for m in missing if m.spec.method == "srkl")
    result = invoke(*shlex.split(command)[1:], "--device", "cpu", "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    config = Config.model_validate(json.loads(result.output)["config"])
    fields = comparison_fields({"config": config.identity()})["config"]
    assert fields == there.comparison_fields["config"]


def test_runs_that_differ_in_more_are_refused_with_what_differs_and_how_to_choose(out):
    other = write_record(out, "srkl", assignments=("training.steps=50",))
    with pytest.raises(BenchError, match="cannot stand in one table") as caught:
        chosen(out)
    message = str(caught.value)
    assert "training.steps (800 against 50)" in message
    assert other.run_id in message
    assert "and 9 more" in message
    key = message.rpartition("--key ")[2].split(",")[0]
    assert key in message
    assert len(chosen(out, keys=[key])) == 12
    assert chosen(out, keys=[other.comparison_key[:8]]) == [("srkl", 10)]
    with pytest.raises(BenchError, match="--key"):
        chosen(out, keys=["nothing"])


def test_a_key_that_no_run_has_is_refused(tmp_path):
    write_record(tmp_path, "kld")
    with pytest.raises(BenchError, match=r"--key abc: no run of preset tiny has .*; known: [0-9a-f]{10}$"):
        chosen(tmp_path, keys=["abc"])


def test_runs_of_different_tasks_need_not_be_comparable(tmp_path):
    write_record(tmp_path, "kld", "samsum")
    write_record(tmp_path, "kld", "iwslt")
    assert chosen(tmp_path, "3") == [("kld", 10), ("kld", 10)]


@pytest.mark.parametrize("data", [b"\x1f\x8bcut", b"", gzip.compress(b'{"id": "test-1", "set": "test"}\n', mtime=0)])
def test_a_run_without_readable_predictions_is_named_and_missed(out, data):
    record = next(r for r in Store(out).all() if r.config.method.name == "jsd")
    (Store(out).folder(record.run_id) / PREDICTIONS).write_bytes(data)
    told: list[str] = []
    selection = RunIndex(Store(out), "tiny", warn=told.append).select(find_table("1", "tiny"))
    assert len(told) == 1
    assert record.run_id in told[0]
    assert ("jsd", (record.seed,)) in {(m.spec.method, m.seeds) for m in selection.missing}


def test_no_records_say_what_to_run(tmp_path, out):
    with pytest.raises(BenchError, match=r"no records of preset tiny in .*bench run --method"):
        RunIndex(Store(tmp_path / "empty"), "tiny")
    with pytest.raises(BenchError, match=r"no records of preset small.*recorded: --preset tiny"):
        RunIndex(Store(out), "small")


def test_a_record_and_its_predictions_are_read_once_for_all_tables(out, monkeypatch):
    read = {"record": 0, "predictions": 0}
    whole, packed = bench.record.store.read_record, bench.record.store.read_gz

    def counting_record(path):
        read["record"] += 1
        return whole(path)

    def counting_predictions(path):
        read["predictions"] += 1
        return packed(path)

    monkeypatch.setattr(bench.record.store, "read_record", counting_record)
    monkeypatch.setattr(bench.record.store, "read_gz", counting_predictions)
    index = RunIndex(Store(out), "tiny")
    for name in ("1", "2", "main", "alpha"):
        fill_table(index, name)
    assert read == {"record": 12, "predictions": 12}
    first, *others = [run.examples["test"] for run in index.select(find_table("1", "tiny")).runs[SPEC]]
    assert all(one.ids is first.ids for one in others)
    assert first.values.dtype == np.float64
    assert not any(record.curve for record in index.records)  # most of a record, and in no number of a table


def test_a_sweep_over_seeds_asks_for_no_flood_of_commands(tmp_path):
    for seed in range(40):
        write_record(tmp_path, "kld", seed=seed)
    index = RunIndex(Store(tmp_path), "tiny")
    (lines,) = write_tables(index, ["1"], ["csv"])
    assert "  missing: 160 runs" in lines
    assert sum("bench run" in line for line in lines) == COMMANDS
    assert index.select(find_table("1", "tiny")).seed_list == "0, 1, 2, …, 39 (40 in all)"
    assert lines[-1] == f"    and {160 - COMMANDS} more; bench suite makes all runs of a table"
