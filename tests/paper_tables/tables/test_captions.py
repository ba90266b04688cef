"""What stands below a table, and that no record which lacks a part of it gets that far."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

import pytest

from bench.record.read import Unreadable, read_record
from bench.record.store import RECORD, Store
from bench.system.files import write_json
from paper_tables.numbers.cells import table_statistics
from paper_tables.numbers.runs import RunIndex
from paper_tables.paper.ablations import find_table
from paper_tables.tables.captions import measured_notes, setting_notes
from tests.records import make_record, noisy, rewrite, rouge_rows, write_record


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


def test_a_record_without_what_captions_say_is_no_record(tmp_path):
    record = make_record()[0].plain()
    refused = {}
    for path in paths(record):
        write_json(tmp_path / RECORD, without(record, path))
        try:
            read = read_record(tmp_path / RECORD)
        except Unreadable as error:
            refused[path] = str(error)
        else:
            setting_notes([read])
    assert {("environment", name) for name in ("cpu", "threads", "device_name", "packages", "python")} <= refused.keys()
    assert {("environment", "git"), ("environment", "git", "commit"), ("time", "phases")} <= refused.keys()
    # some errors name what the field stands in: a training needs one of two lengths, a set one score
    assert all(".".join(path) in told or ".".join(path[:-1]) in told for path, told in refused.items())
    assert sum(".".join(path) in told for path, told in refused.items()) > 100


def test_such_a_record_is_named_and_skipped(command, out):
    path = next((out / "runs").glob("dolly-jsd-*s10-*")) / RECORD
    write_json(path, without(read_record(path).plain(), ("environment", "cpu")))
    for arguments in (("tables", "1"), ("claims", "skew-beats-kl")):
        result = command(*arguments, "--out", out)
        assert result.exit_code == 0, result.output
        assert f"skipped {path}: not a record of bench run: environment.cpu: field required" in result.stderr


@pytest.mark.parametrize("value", ["two", None])
def test_a_wrong_value_is_named_too(tmp_path, value):
    plain = make_record()[0].plain()
    plain["environment"]["threads"] = value
    write_json(tmp_path / RECORD, plain)
    with pytest.raises(Unreadable, match=r"environment\.threads"):
        read_record(tmp_path / RECORD)


def test_how_many_runs_were_timed_is_said(tmp_path):
    for method, loads in (("kld", (0.0, 0.0)), ("sft", (0.0, 1.0)), ("srkl", (0.0, 0.0))):
        for seed, load in zip((10, 20), loads, strict=True):
            write_record(tmp_path, method, seed=seed, other_load=load)
    table = find_table("main", "tiny")
    selection = RunIndex(Store(tmp_path), "tiny").select(table)
    notes = measured_notes(table, selection, table_statistics(table, selection))
    assert (
        "Time: training time relative to KLD's median, of exclusively timed runs (nothing else ran on the machine); "
        "n = 2 of KLD, SRKL; n = 1 of SFT." in notes
    )


def test_how_times_repeat_and_slow_steps_of_few_runs_are_said(tmp_path):
    for method, median in (("kld", 0.050), ("rkld", 0.050), ("jsd", 0.0505), ("skl", 0.050), ("srkl", 0.060)):
        for seed, factor in ((10, 1.0), (20, 1.04), (30, 1.0)) if method == "kld" else ((10, 1.0),):
            record = write_record(tmp_path, method, seed=seed)
            steps = {"dataset": {"count": 400, "median": factor * median}}
            rewrite(tmp_path, record, time__steps=steps, time__phases__teacher=1.0)
    table = find_table("main", "tiny")
    selection = RunIndex(Store(tmp_path), "tiny").select(table)
    notes = measured_notes(table, selection, table_statistics(table, selection))
    told = "Range of the median step over a method's timed runs (aim: within 3%): KLD 4.0%; missed by KLD."
    assert told in notes
    (slow,) = [note for note in notes if note.startswith("Slower a step than other rows of the same kind")]
    assert re.search(r": dolly-srkl-dataset-s10-\w+ by 20%\.$", slow)


def test_a_loud_method_is_named_without_the_column_that_it_stands_in(tmp_path):
    for method, spread in (("kld", 0.1), ("sft", 0.1), ("gkd", 0.1), ("minillm", 9.0)):
        for seed, own in ((10, -1.0), (20, 0.0), (30, 1.0)):
            rows = rouge_rows({"test": noisy(30, 0, ("test",), sd=0)["test"] + own * spread * (1 + len(method) % 3)})
            write_record(tmp_path, method, "samsum", seed, rows=rows)
    table = find_table("3", "tiny")
    selection = RunIndex(Store(tmp_path), "tiny").select(table)
    notes = " ".join(measured_notes(table, selection, table_statistics(table, selection)))
    assert "keep that variance: SAMSum (ROUGE-L), tiny-t5: MiniLLM (p = " in notes


def test_cells_of_runs_that_used_no_student_output_are_named(tmp_path):
    for task, phi in (("samsum", 0.0), ("iwslt", 0.5)):
        for method in ("kld", "distillm"):
            write_record(tmp_path, method, task, phi=phi)
    table = find_table("3", "tiny")
    selection = RunIndex(Store(tmp_path), "tiny").select(table)
    (note,) = (one for one in measured_notes(table, selection, table_statistics(table, selection)) if "stayed 0" in one)
    assert note.startswith(
        "DistiLLM (SAMSum (ROUGE-L), tiny-t5): in its one run φ stayed 0 and no batch was of student"
    )


def test_a_methods_own_training_settings_are_named_and_it_stands_beside_the_others(tmp_path):
    preset = tmp_path / "mine.yaml"
    own = "{minillm: {training: {learning_rate: 5.0e-6, warmup_steps: 0}}}"
    preset.write_text(f"extends: tiny\nmethods: {own}\n")
    for method in ("kld", "minillm"):
        write_record(tmp_path, method, preset=str(preset))
    selection = RunIndex(Store(tmp_path), str(preset)).select(find_table("main", str(preset)))
    assert [record.config.method.name for record in selection.records] == ["kld", "minillm"]
    line = (
        "Training settings that the preset gives single methods: MiniLLM training.learning_rate = 5e-06, "
        "training.warmup_steps = 0."
    )
    assert line in setting_notes(selection.records)
    assert not any("single methods" in note for note in setting_notes([make_record("minillm")[0]]))
