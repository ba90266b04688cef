"""Recorded runs are found by what a user has at hand, and only finished ones count."""

import functools
import gzip
import os
import re
from pathlib import Path

import pytest

import bench.record.read
import bench.record.store
from bench.record.example_scores import Prediction
from bench.record.migrations import MIGRATIONS
from bench.record.record import SCHEMA, RunRecord
from bench.record.store import FAILURE, JUDGED, PREDICTIONS, RECORD, WORK, Store
from bench.system.errors import BenchError
from bench.system.files import read_json, write_json
from tests.records import make_record, write_record

RUNS = ["samsum-skl-dataset-s10-aaaa111111", "samsum-skl-dataset-s10-aaaa222222", "dolly-sft-dataset-s10-bbbb333333"]
PREDICTED: list[Prediction] = [
    {"set": "test", "seed": 10, "id": f"e{i}", "prediction": "für", "scores": {"rouge_l": 1.5 * i}} for i in range(300)
]
SCHEMA_1 = Path(__file__).resolve().parents[2] / "golden" / "schema_1"
TEMPLATE = make_record("skl", "samsum")[0]


def record(run_id: str) -> RunRecord:
    return TEMPLATE.model_copy(update={"run_id": run_id})


@pytest.fixture
def store(tmp_path) -> Store:
    made = Store(tmp_path / "out")
    for run_id in RUNS:
        made.write(record(run_id), PREDICTED)
    return made


def test_written_and_read_back(store):
    assert store.finished(RUNS[0]) == record(RUNS[0])
    assert store.predictions(record(RUNS[0])) == PREDICTED
    assert [one.run_id for one in store.all()] == sorted(RUNS)
    assert store.unfinished() == []


def test_a_run_made_again_is_no_run_until_both_files_are_there(store, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.record.store, "write_sealed_json", killed)
    with pytest.raises(KeyboardInterrupt):
        store.write(record(RUNS[0]), PREDICTED[:5])
    assert store.finished(RUNS[0]) is None


def test_ratings_are_kept_for_the_responses_that_they_rate(store):
    rating = store.folder(RUNS[0]) / JUDGED / "rating-a.json"
    rating.parent.mkdir()
    rating.write_text("{}")
    store.write(record(RUNS[0]), PREDICTED)
    assert rating.exists()
    scores = {name: one.model_copy(update={"texts": "c" * 64}) for name, one in TEMPLATE.scores.items()}
    store.write(record(RUNS[0]).model_copy(update={"scores": scores}), PREDICTED)
    assert not rating.exists()


def test_found_by_id_beginning_folder_and_record(store, monkeypatch):
    folder = store.folder(RUNS[2])
    for name in (RUNS[2], "dolly", str(folder), f"{folder}/", str(folder / RECORD)):
        assert store.find(name).run_id == RUNS[2], name
    monkeypatch.chdir(folder)
    for name in (".", RECORD, f"./{RECORD}"):
        assert store.find(name).run_id == RUNS[2], name


def test_found_by_a_path_outside_the_store(store, tmp_path):
    moved = tmp_path / "kept" / "best run"
    moved.parent.mkdir()
    store.folder(RUNS[2]).rename(moved)
    assert store.find(str(moved)).run_id == RUNS[2]


def test_an_id_that_begins_another_is_found(store):
    store.write(record(RUNS[0] + "-more"), [])
    assert store.find(RUNS[0]).run_id == RUNS[0]


def test_an_ambiguous_beginning_names_the_candidates(store):
    with pytest.raises(BenchError, match="beginning of 2 runs") as caught:
        store.find("samsum-skl")
    assert all(run_id in str(caught.value) for run_id in RUNS[:2])
    assert RUNS[2] not in str(caught.value)


def test_candidates_of_a_beginning_are_told_with_what_sets_them_apart(tmp_path):
    both = {
        models: write_record(tmp_path, "kld", "samsum", models=models).run_id for models in ("tiny-t5", "tiny-t5-small")
    }
    with pytest.raises(BenchError, match="beginning of 2 runs:\n") as caught:
        Store(tmp_path).find("samsum-kld-dataset-s10")
    assert {f"  {run_id}  models={models}" for models, run_id in both.items()} <= set(str(caught.value).splitlines())


def test_an_unknown_id_offers_the_nearest(store, tmp_path):
    with pytest.raises(BenchError, match=f"no run .* the nearest ids: {RUNS[2]}"):
        store.find("doly-sft-dataset-s10-bbbb333333")
    with pytest.raises(BenchError, match=r"none is recorded yet.*bench run"):
        Store(tmp_path / "empty").find("dolly")


@pytest.mark.parametrize("text", ["", '{"schema": 1, "run_id": "x', "[]", '{"schema": 999}', "null"])
def test_what_is_no_record_is_ignored(store, text):
    path = store.folder(RUNS[0]) / RECORD
    path.write_text(text)
    assert store.finished(RUNS[0]) is None
    assert [one.run_id for one in store.all()] == sorted(RUNS[1:])
    assert store.find("samsum").run_id == RUNS[1]
    with pytest.raises(BenchError, match="is no record this version reads"):
        store.find(str(path))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"schema": 1, "run_id": "x', "damaged or cut off"),
        ("[]", "not a record"),
        ('{"name": "a model card"}', "not a record"),
        ('{"schema": "1", "run_id": "x"}', "not a record"),
        ('{"schema": 999, "run_id": "x"}', "schema 999, written by a newer version"),
        ('{"schema": 0, "run_id": "x"}', f"schema 0, which cannot be brought to schema {SCHEMA}"),
        ('{"schema": 1, "run_id": "x"}', "not a record of bench run: metric: field required"),
        ('{"schema": 2, "run_id": "x"}', "not a record of bench run: started: field required"),
        ("[" * 100_000, "damaged or cut off"),
        ('{"schema": true, "run_id": "x"}', "not a record"),
        ('{"schema": 2, "run_id": "\\ud800"}', "damaged or cut off"),
        (f'{{"schema": -{10**30}, "run_id": "x"}}', "cannot be brought to schema"),
        (b"\xff\xfe\x00", "damaged or cut off"),
    ],
)
def test_what_is_skipped_is_named_with_the_reason(store, text, told):
    path = store.folder(RUNS[0]) / RECORD
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    warnings: list[str] = []
    assert len(list(Store(store.root, warnings.append).all())) == len(RUNS) - 1
    assert len(warnings) == 1
    assert str(path) in warnings[0]
    assert told in warnings[0]


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("config", {"preset": "tiny"}, "config.task: field required"),
        ("config.training.steps", "many", "config.training.steps: input should be a valid integer"),
        ("scores.test.examples", None, "scores.test.examples: input should be a valid integer"),
        ("scores.test.metrics", {"rouge_l": 30.0}, "scores.test.metrics.rouge_l: input should be an object"),
        ("teacher_scores", {}, "teacher_scores: value error, test has no score by 'rouge_l'"),
        ("scores", {}, "scores: dictionary should have at least 1 item"),
        ("metrics.0.name", "bleu", "scores: value error, test has no score by 'bleu'"),
        ("metrics", [], "metrics: list should have at least 1 item"),
        ("environment.git", {"commit": "c"}, "environment.git.changed: field required"),
        ("environment.host", "mine", "environment.host: extra inputs are not permitted"),
        ("validations", [{"step": 0}], "validations.0.loss: field required"),
    ],
)
def test_the_first_wrong_field_is_named(store, path, value, told):
    plain = record(RUNS[0]).plain()
    *parents, last = path.split(".")
    functools.reduce(lambda found, key: found[int(key) if key.isdigit() else key], parents, plain)[last] = value
    write_json(store.folder(RUNS[0]) / RECORD, plain)
    warnings: list[str] = []
    assert len(list(Store(store.root, warnings.append).all())) == len(RUNS) - 1
    assert told in warnings[0]


def test_a_number_that_changed_on_disk_is_not_read(store):
    path = store.folder(RUNS[0]) / RECORD
    path.write_text(path.read_text().replace('"seconds": ', '"seconds": 1', 1))
    warnings: list[str] = []
    assert len(list(Store(store.root, warnings.append).all())) == len(RUNS) - 1
    assert "its checksum differs" in warnings[0]
    with pytest.raises(BenchError, match="its checksum differs"):
        store.find(RUNS[0])
    assert store.finished(RUNS[0]) is None
    # one that was changed on purpose, and says so, counts
    plain = read_json(path)
    del plain["checksum"]
    write_json(path, plain)
    assert store.find(RUNS[0]).seconds == plain["seconds"] != TEMPLATE.seconds


def test_a_copied_run_counts_once_and_a_renamed_one_is_read(store):
    copy = store.runs / "a copy"
    copy.mkdir()
    (copy / RECORD).write_bytes((store.folder(RUNS[0]) / RECORD).read_bytes())
    store.folder(RUNS[2]).rename(store.runs / "renamed")
    warnings: list[str] = []
    again = Store(store.root, warnings.append)
    assert sorted(one.run_id for one in again.all()) == sorted(RUNS)
    assert len(warnings) == 1
    assert "a copy" in warnings[0]
    assert f"the same run as {store.folder(RUNS[0])}" in warnings[0]
    assert again.predictions(record(RUNS[2])) == PREDICTED


def test_each_schema_is_migrated_to_the_next(store, monkeypatch):
    def noting(word: str, schema: int):
        def migrate(values: dict) -> dict:
            return values | {"schema": schema, "data": values["data"] | {"notes": [*values["data"]["notes"], word]}}

        return migrate

    monkeypatch.setattr(bench.record.read, "SCHEMA", SCHEMA + 2)
    monkeypatch.setitem(MIGRATIONS, SCHEMA, noting("first", SCHEMA + 1))
    monkeypatch.setitem(MIGRATIONS, SCHEMA + 1, noting("second", SCHEMA + 2))
    for found in (*store.all(), store.find("dolly"), store.finished(RUNS[0])):
        assert found.schema_version == SCHEMA + 2
        assert found.data.notes == ["first", "second"]


def test_unfinished_runs_are_those_begun_without_a_record(store):
    (store.folder("begun") / WORK).mkdir(parents=True)
    write_json(store.folder("failed") / FAILURE, {"error": "loss is nan"})
    store.folder("empty").mkdir()
    (store.folder(RUNS[0]) / WORK).mkdir()
    assert store.unfinished() == ["begun", "failed"]
    store.write(record("failed"), [])
    assert store.unfinished() == ["begun"]
    assert not (store.folder("failed") / FAILURE).exists()


@pytest.mark.parametrize("text", ["", "[]", '{"error', "{}", "[" * 100_000])
def test_a_failure_that_cannot_be_read_is_told(store, text):
    (store.folder("failed") / WORK).mkdir(parents=True)
    (store.folder("failed") / FAILURE).write_text(text)
    with pytest.raises(BenchError, match=rf"failed failed: .*{FAILURE} is damaged"):
        store.find("failed")


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 0xFF for byte in data[middle : middle + 8]) + data[middle + 8 :]


def wrong_block(data: bytes) -> bytes:
    return data[:10] + b"\xff" * 20 + data[30:]  # after the header: the compressed stream itself


def no_json(_: bytes) -> bytes:
    return gzip.compress(b'{"id": "a"')


@pytest.mark.parametrize("damage", [truncated, flipped, wrong_block, no_json, lambda data: b"text", lambda data: b""])
def test_damaged_predictions_are_told(store, damage):
    path = store.folder(RUNS[0]) / PREDICTIONS
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BenchError, match=r"cannot be read .*--fresh"):
        store.predictions(record(RUNS[0]))


def test_missing_predictions_are_told(store):
    (store.folder(RUNS[0]) / PREDICTIONS).unlink()
    with pytest.raises(BenchError, match=PREDICTIONS):
        store.predictions(record(RUNS[0]))


def counted(monkeypatch, module, name: str) -> list[object]:
    """The first argument of each call of a function, which is called all the same."""
    calls: list[object] = []
    called = getattr(module, name)

    def noting(first, *others):
        calls.append(first)
        return called(first, *others)

    monkeypatch.setattr(module, name, noting)
    return calls


def test_curves_can_be_left_out_and_read_one_by_one(store):
    curve = [{"step": 1.0, "phi": 0.5}]
    store.write(record(RUNS[0]).model_copy(update={"curve": curve}), PREDICTED)
    whole, light = ({one.run_id: one for one in store.all(curves=curves)} for curves in (True, False))
    assert (whole[RUNS[0]].curve, light[RUNS[0]].curve) == (curve, [])
    assert store.curve(light[RUNS[0]]) == curve
    assert light[RUNS[1]] == whole[RUNS[1]].model_copy(update={"curve": []})
    path, warnings = store.folder(RUNS[0]) / RECORD, []
    path.write_text(re.sub(r'("phi": ?)0\.5', r"\g<1>0.25", path.read_text(encoding="utf-8")), encoding="utf-8")
    lenient = Store(store.root, warnings.append, changed_too=True)
    changed = {one.run_id: one for one in lenient.all(curves=False)}[RUNS[0]]
    assert lenient.curve(changed) == [{"step": 1.0, "phi": 0.25}]
    assert len(warnings) == 1, "told once"
    path.write_text("{", encoding="utf-8")
    assert store.curve(light[RUNS[0]]) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"scores": {}}, "scores"),
        ({"scores": {"test": {"examples": 3}}}, "scores.test"),
        ({"metrics": []}, "metrics: list should have"),
        ({"time": None}, "time"),
        ({"run_id": 3}, "run_id"),
        ({"config": {}}, "config"),
    ],
)
def test_a_record_of_another_shape_is_skipped_and_its_field_named(store, change, told):
    write_json(store.folder(RUNS[0]) / RECORD, record(RUNS[0]).plain() | change)
    warnings: list[str] = []
    assert len(list(Store(store.root, warnings.append).all())) == len(RUNS) - 1
    assert told in warnings[0]


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(store):
    (store.folder(RUNS[0]) / PREDICTIONS).unlink()
    os.mkfifo(store.folder(RUNS[0]) / PREDICTIONS)
    with pytest.raises(BenchError, match="no regular file"):
        store.predictions(store.find(RUNS[0]))
    store.folder("dolly-failed").mkdir()
    os.mkfifo(store.folder("dolly-failed") / FAILURE)
    assert store.unfinished() == []


def test_a_run_given_by_its_whole_id_is_found_without_reading_others(store, monkeypatch):
    read = counted(monkeypatch, bench.record.store, "read_record")
    assert store.find(RUNS[0]).run_id == RUNS[0]
    assert {path.parent.name for path in read} == {RUNS[0]}


def test_many_candidates_are_not_all_named(store):
    for number in range(30):
        store.write(record(f"samsum-gkd-mixed-s{number:02}-cccc333333"), [])
    with pytest.raises(BenchError, match=r"beginning of 30 runs:\n(.*\n){19}.*s19-cccc333333\n  and 10 more$"):
        store.find("samsum-gkd")
