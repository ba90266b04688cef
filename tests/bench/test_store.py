"""Recorded runs are found by what a user has at hand, and only finished ones count."""

import gzip

import pytest

from bench.errors import BenchError
from bench.files import write_json
from bench.store import FAILURE, PREDICTIONS, RECORD, SCHEMA, WORK, Store

RUNS = ["samsum-skl-dataset-s10-aaaa111111", "samsum-skl-dataset-s10-aaaa222222", "dolly-sft-dataset-s10-bbbb333333"]
PREDICTED = [{"set": "test", "seed": 10, "id": f"e{i}", "prediction": "für", "rouge_l": 1.5 * i} for i in range(300)]


def record(run_id: str) -> dict[str, object]:
    return {"schema": SCHEMA, "run_id": run_id, "scores": {"test": {"mean": 12.5}}}


@pytest.fixture
def store(tmp_path) -> Store:
    made = Store(tmp_path / "out")
    for run_id in RUNS:
        made.write(record(run_id), PREDICTED)
    return made


def test_written_and_read_back(store):
    assert store.finished(RUNS[0]) == record(RUNS[0])
    assert store.predictions(record(RUNS[0])) == PREDICTED
    assert [one["run_id"] for one in store.all()] == sorted(RUNS)
    assert store.unfinished() == []


def test_found_by_id_beginning_folder_and_record(store, monkeypatch):
    folder = store.folder(RUNS[2])
    for name in (RUNS[2], "dolly", str(folder), f"{folder}/", str(folder / RECORD)):
        assert store.find(name)["run_id"] == RUNS[2], name
    monkeypatch.chdir(folder)
    for name in (".", RECORD, f"./{RECORD}"):
        assert store.find(name)["run_id"] == RUNS[2], name


def test_found_by_a_path_outside_the_store(store, tmp_path):
    moved = tmp_path / "kept" / "best run"
    moved.parent.mkdir()
    store.folder(RUNS[2]).rename(moved)
    assert store.find(str(moved))["run_id"] == RUNS[2]


def test_an_id_that_begins_another_is_found(store):
    store.write(record(RUNS[0] + "-more"), [])
    assert store.find(RUNS[0])["run_id"] == RUNS[0]


def test_an_ambiguous_beginning_names_the_candidates(store):
    with pytest.raises(BenchError, match="beginning of 2 runs") as caught:
        store.find("samsum-skl")
    assert all(run_id in str(caught.value) for run_id in RUNS[:2])
    assert RUNS[2] not in str(caught.value)


def test_an_unknown_id_offers_the_nearest(store, tmp_path):
    with pytest.raises(BenchError, match=f"no run .* did you mean '{RUNS[2]}'"):
        store.find("doly-sft-dataset-s10-bbbb333333")
    with pytest.raises(BenchError, match=r"none is recorded yet.*bench run"):
        Store(tmp_path / "empty").find("dolly")


@pytest.mark.parametrize("text", ["", '{"schema": 1, "run_id": "x', "[]", '{"schema": 999}', "null"])
def test_what_is_no_record_is_ignored(store, text):
    path = store.folder(RUNS[0]) / RECORD
    path.write_text(text)
    assert store.finished(RUNS[0]) is None
    assert [one["run_id"] for one in store.all()] == sorted(RUNS[1:])
    assert store.find("samsum")["run_id"] == RUNS[1]
    with pytest.raises(BenchError, match="is no record this version reads"):
        store.find(str(path))


def test_unfinished_runs_are_those_begun_without_a_record(store):
    (store.folder("begun") / WORK).mkdir(parents=True)
    write_json(store.folder("failed") / FAILURE, {"error": "loss is nan"})
    store.folder("empty").mkdir()
    (store.folder(RUNS[0]) / WORK).mkdir()
    assert store.unfinished() == ["begun", "failed"]
    store.write(record("failed"), [])
    assert store.unfinished() == ["begun"]
    assert not (store.folder("failed") / FAILURE).exists()


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 0xFF for byte in data[middle : middle + 8]) + data[middle + 8 :]


def wrong_block(data: bytes) -> bytes:
    return data[:10] + b"\xff" * 20 + data[30:]  # after the header: the compressed stream itself


def no_json(_: bytes) -> bytes:
    return gzip.compress(b'{"id": "a"')


@pytest.mark.parametrize("damage", [truncated, flipped, wrong_block, no_json, lambda data: b"text"])
def test_damaged_predictions_are_told(store, damage):
    path = store.folder(RUNS[0]) / PREDICTIONS
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BenchError, match=r"cannot be read .*--fresh"):
        store.predictions(record(RUNS[0]))


def test_missing_predictions_are_told(store):
    (store.folder(RUNS[0]) / PREDICTIONS).unlink()
    with pytest.raises(BenchError, match=PREDICTIONS):
        store.predictions(record(RUNS[0]))
