"""`bench verify` finds every kind of change, names its cell, and repeats a run bit for bit."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.experiment import context
from bench.record.pack import pack
from bench.record.store import PREDICTIONS, RECORD, Store
from bench.system.files import write_sealed_json
from bench.training.job import NonFiniteLoss
from bench.training.state import TrainerState
from paper_tables.numbers.runs import RunIndex
from paper_tables.paper.tables import MAIN_METHODS
from paper_tables.suite.equal_time import equal_time_preset, write_preset
from paper_tables.verify import rerun, runs
from paper_tables.verify.runs import NOT_KEPT
from tests.conftest import record_of, short
from tests.paper_tables.conftest import declared, write_table_1
from tests.records import make_record, rewrite, write_record

TASK = """
name: chats
metrics: [rouge_l]
prompt_columns: [chat]
response_column: summary
templates: {t5: "Summarize: {chat}"}
"""
pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def ran(tmp_path_factory, cache) -> Path:
    """A short run on real synthetic data, packed."""
    folder = tmp_path_factory.mktemp("ran")
    sets = short(evaluation__seeds="[10,20]", data__max_response_length=24, evaluation__metrics="[rouge_l,bleu]")
    record_of("run", "--method", "kld", "--task", "samsum", "--out", str(folder / "whole"), *sets)
    pack(Store(folder / "whole"), folder / "packed")
    return folder


@pytest.fixture(scope="module")
def derived(tmp_path_factory) -> Iterator[Path]:
    """Made-up runs of table 1 with table, verdicts, figure and report."""
    folder = write_table_1(tmp_path_factory.mktemp("derived") / "out")
    with pytest.MonkeyPatch.context() as patch:
        command = declared(patch)
        for words in (["tables", "1"], ["tables", "1", "--seeds", "10,20"], ["figures", "6"], ["report"]):
            assert command(*words, "--out", folder).exit_code == 0
        (folder / "claims.md").write_text(command("claims", "--markdown", "--out", folder).stdout)
        yield folder


@pytest.fixture
def copy(tmp_path) -> Callable[[Path], Path]:
    """A copy of a folder, to be changed."""
    return lambda folder: Path(shutil.copytree(folder, tmp_path / "copy"))


def checked(command, *words: object) -> tuple[int, dict]:
    """Exit code, and what `bench verify --json` finds."""
    result = command("verify", *words, "--json")
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.parametrize("form", ["whole", "packed"])
def test_every_score_of_a_run_follows_from_its_texts(command, ran, form):
    code, found = checked(command, ran / form)
    assert (code, found["wrong"], found["not_checked"]) == (0, [], {NOT_KEPT: 1})
    # eight examples, two decoding seeds, two metrics
    assert {name: found["checked"][name] for name in ("records", "example scores", "references", "scores")} == {
        "records": 1,
        "example scores": 32,
        "references": 1,
        "scores": 1,
    }


@pytest.mark.parametrize(
    ("field", "change", "columns"),
    [
        ("prediction", lambda text: "The " + text, {"bleu", "scores.test.texts"}),
        ("prediction", lambda text: text + " ", {"scores.test.texts"}),  # one that no metric sees
        ("tokens", lambda number: number + 1, {"scores.test.mean_tokens", "scores.test.texts"}),
        ("id", lambda _: "test-99", {"id", "scores.test.texts"}),
        ("scores", lambda scores: scores | {"rouge_l": 99.0}, {"rouge_l"}),
    ],
)
def test_a_changed_response_is_named(command, ran, copy, field, change, columns):
    store = Store(copy(ran / "packed"))
    record = next(store.all())
    rows = store.predictions(record)
    rows[3][field] = change(rows[3][field])
    store.write(record, rows)
    code, found = checked(command, store.root)
    assert code == 1
    assert columns <= {one["column"] for one in found["wrong"]}
    of_rows = [one for one in found["wrong"] if one["file"].endswith(PREDICTIONS) and one["column"] != "id"]
    assert {one["row"] for one in of_rows} <= {f"test, seed 10, {rows[3]['id']}"}


def plain(store: Store) -> tuple[Path, dict]:
    """The one record of a store, its file and its values."""
    record = next(store.all())
    return store.folder(record.run_id) / RECORD, record.plain()


def set_at(values: dict, key: str, value: object) -> None:
    """Set a dotted key."""
    *path, last = key.split(".")
    for part in path:
        values = values[part]
    values[last] = value


@pytest.mark.parametrize(
    ("key", "value", "column"),
    [
        ("scores.test.metrics.rouge_l.mean", 50.0, "scores.test.metrics.rouge_l.mean"),
        ("scores.test.metrics.bleu.by_decoding_seed", {"10": 1.0, "20": 2.0}, "scores.test.metrics.bleu.by_decoding"),
        ("config.training.learning_rate", 0.5, "run_hash"),
        ("config.seed", 11, "run_id"),
        ("comparison_key", "0" * 64, "comparison_key"),
        ("data.references", {"test": "0" * 64}, "data.references.test"),
        ("time.training_seconds", 1e9, "time.training_seconds"),
        ("training.tokens_trained", 5, "training.tokens_trained"),
        ("training.steps", 5, "training.steps"),
    ],
)
def test_a_changed_record_is_named(command, ran, copy, key, value, column):
    file, values = plain(Store(copy(ran / "packed")))
    set_at(values, key, value)
    write_sealed_json(file, values)
    code, found = checked(command, file.parents[2])
    assert code == 1
    assert any(one["column"].startswith(column) and one["file"] == str(file) for one in found["wrong"])


def test_a_record_that_cannot_be_read_is_wrong(command, ran, copy):
    file, _ = plain(Store(copy(ran / "packed")))
    file.write_bytes(file.read_bytes().replace(b'"started": "2', b'"started": "3', 1))
    code, found = checked(command, file.parents[2])
    assert code == 1
    assert "changed since it was written" in found["wrong"][0]["holds"]


def test_a_score_changed_under_the_checksum_is_named_and_what_follows_is_counted(command, derived, copy, ran):
    file, values = plain(Store(copy(ran / "packed")))
    mean = values["scores"]["test"]["metrics"]["rouge_l"]["mean"]
    text = file.read_text()
    file.write_text(text.replace(f'"mean": {mean!r}', '"mean": 99.25', 1))
    code, found = checked(command, file.parents[2])
    assert code == 1
    first, second = found["wrong"]
    assert first["file"] == str(file)
    assert first["holds"].startswith("changed since it was written")
    assert (second["column"], second["holds"]) == ("scores.test.metrics.rouge_l.mean", "99.25")


def test_files_of_a_wrong_record_are_follow_ups(command, derived, copy):
    store = Store(copy(derived))
    record = next(store.all())
    file = store.folder(record.run_id) / RECORD
    score = record.scores["test"].primary.mean
    file.write_text(file.read_text().replace(f'"mean": {score!r}', '"mean": 99.25', 1))
    code, found = checked(command, store.root)
    assert code == 1
    assert {one["file"] for one in found["wrong"]} == {str(file)}
    assert len(found["follow_ups"]) > 5
    told = command("verify", store.root).stdout
    assert f"{len(found['follow_ups'])} cells of files that are made of these records differ, too" in told
    assert "tables/" not in told.replace("not checked", "")


def test_a_record_without_a_checksum_is_told_and_its_teacher_is_held_to_that_of_others(command, tmp_path):
    for seed in (10, 20, 30):
        record = write_record(tmp_path, seed=seed)
        teacher = write_record(tmp_path, seed=10).plain()["scores"]
        rewrite(tmp_path, record, teacher_scores=teacher)
    assert checked(command, tmp_path)[:1] == (0,)
    file = Store(tmp_path).folder(record.run_id) / RECORD
    values = json.loads(file.read_text())
    del values["checksum"]
    file.write_text(json.dumps(values))
    assert "all that was checked holds; records without a checksum: 1" in command("verify", tmp_path).stdout
    values["teacher_scores"]["vicuna"]["metrics"]["rouge_l"]["mean"] = 12.5
    file.write_text(json.dumps(values))
    code, found = checked(command, tmp_path)
    assert code == 1
    (one,) = found["wrong"]
    assert (one["file"], one["column"], one["holds"]) == (
        str(file),
        "teacher_scores.vicuna.metrics.rouge_l.mean",
        "12.5",
    )
    assert any(reason.startswith(f"{record.run_id}: it has no checksum") for reason in found["not_checked"])


def test_runs_packed_without_texts_are_counted_and_not_wrong(command, derived, copy):
    store = Store(copy(derived))
    for record in list(store.all()):
        scores = {row["id"] + row["set"]: row for row in store.predictions(record)}.values()
        store.write(record, [{key: row[key] for key in ("set", "id", "scores")} for row in scores])
    for folder in ("tables", "figures"):
        shutil.rmtree(store.root / folder)
    for file in ("claims.md", "report-tiny.html"):
        (store.root / file).unlink()
    code, found = checked(command, store.root)
    assert (code, found["wrong"]) == (0, [])
    assert found["not_checked"]["scores of runs: no texts kept"] == 12


def test_derived_files_hold(command, derived):
    code, found = checked(command, derived)
    assert (code, found["wrong"]) == (0, [])
    # nine of table 1, six of chosen seeds, the figure's data and caption, verdicts, report
    assert found["checked"]["files"] == 19
    _, reason = found["not_checked"]
    assert "are not what they were" in reason  # these records name data that nobody has


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("tables/table1-tiny-measured.csv", "kld,", "klx,", ("klx", "kld")),
        ("tables/table1-tiny-measured.tex", "KLD &", "KLX &", ("KLX", "KLD")),
        ("tables/table1-tiny-seeds-10-20-measured.md", "| KLD |", "| KLX |", ("KLX", "KLD")),
        ("claims.md", "| not enough evidence |", "| reproduced |", ("reproduced", "not enough evidence")),
        ("figures/figure6-tiny.csv", "kld,", "klx,", ("klx", "kld")),
        ("figures/figure6-tiny.txt", "Figure 6", "Figure 7", ("Figure 7", "Figure 6")),
        ("report-tiny.html", "<h1", "<h3", ("<h3", "<h1")),
    ],
)
def test_an_edited_cell_is_named(command, derived, copy, file, old, new, named):
    path = copy(derived) / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    result = command("verify", path.parents[len(Path(file).parts) - 1])
    assert result.exit_code == 1
    told = next(line for line in result.stdout.splitlines() if line.startswith(f"wrong: {path}"))
    assert all(word in told for word in named)


def test_a_number_of_a_table_is_named_with_its_column_and_what_it_should_be(command, derived, copy):
    path = copy(derived) / "tables" / "table1-tiny-measured.csv"
    head, first, *rest = path.read_text().splitlines()
    cells = dict(zip(head.split(","), first.split(","), strict=True))
    changed = first.replace(cells["mean"], "99.5", 1)
    path.write_text("\n".join([head, changed, *rest]) + "\n")
    code, found = checked(command, path.parents[1])
    assert code == 1
    (one,) = found["wrong"]
    assert (one["column"], one["holds"], one["should"]) == ("mean", "99.5", cells["mean"])


def test_a_run_made_again_is_equal_to_the_last_bit(command, ran, monkeypatch):
    loaded, load = [], runs.examples_of
    for module in (runs, context):
        monkeypatch.setattr(module, "examples_of", lambda *given: (loaded.append(given), load(*given))[1])
    code, found = checked(command, ran / "packed", "--rerun", "1")
    assert (code, found["wrong"], found["not_checked"]) == (0, [], {NOT_KEPT: 1})
    assert len(loaded) == 1
    assert found["checked"]["runs made again"] == 1
    assert found["checked"]["responses made again"] == 1 + 16 * 7  # rows, and the fields of each


@pytest.mark.parametrize(("key", "number"), [("teacher_scores.test.metrics.rouge_l.mean", 77.0), ("curve", 0)])
def test_a_tampered_number_is_found_by_a_run_made_again(command, ran, copy, key, number):
    file, values = plain(Store(copy(ran / "packed")))
    if key == "curve":
        values["curve"][number]["loss"] += 1e-12
    else:
        set_at(values, key, number)
    write_sealed_json(file, values)
    code, found = checked(command, file.parents[2], "--rerun", str(file.parent))
    assert code == 1
    (one,) = found["wrong"]
    assert one["column"].startswith(key)


def test_a_run_that_diverges_when_made_again_is_wrong(command, ran, monkeypatch):
    def diverges(*_):
        raise NonFiniteLoss("student", 3, "loss", {"loss": math.nan}, [], TrainerState(8))

    monkeypatch.setattr(rerun, "make", diverges)
    code, found = checked(command, ran / "packed", "--rerun", "1")
    assert (code, found["not_checked"]) == (1, {NOT_KEPT: 1})
    (one,) = found["wrong"]
    assert one["holds"] == "it ended"
    assert "loss is not finite at step 3" in one["should"]


def test_a_run_of_another_version_is_not_compared(command, ran, copy):
    file, values = plain(Store(copy(ran / "packed")))
    values["comparison_fields"]["version"] = "0.0.1"
    values["run_id"] = values["run_id"][:-10] + "0" * 10
    values["run_hash"] = "0" * 64
    write_sealed_json(file, values)
    _, found = checked(command, file.parents[2], "--rerun", str(file.parent))
    assert any("here it is another run (other: version)" in reason for reason in found["not_checked"])


@pytest.mark.parametrize(
    ("words", "said"),
    [(["none"], "no records in it"), (["--rerun", "0"], "nothing to make again"), (["--rerun", "x"], "no run 'x'")],
)
def test_bad_input_is_told(command, ran, tmp_path, words, said):
    folder = [] if words == ["none"] else [ran / "packed"]
    result = command("verify", *([tmp_path / "none"] if words == ["none"] else words), *folder)
    assert result.exit_code == 2
    assert said in result.stderr


def test_files_of_a_task_of_its_own_are_checked(command, tmp_path):
    (tmp_path / "chats.yaml").write_text(TASK)
    out, data = tmp_path / "out", tmp_path / "data"
    data.mkdir()
    for split in ("train", "validation", "test"):
        rows = [{"chat": f"{split} {number}", "summary": "a summary"} for number in range(4)]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for method in ("kld", "skl"):
        for seed in (10, 20, 30):
            record = write_record(out, method, "samsum", seed=seed, init="sft")
            names = {"config__task": "chats", "config__task_file": str(tmp_path / "chats.yaml")}
            names["config__data__dir"] = str(data)
            rewrite(out, record, **names, run_id=record.run_id.replace("samsum", "chats"))
            shutil.rmtree(Store(out).folder(record.run_id))
    asked = ("--task", tmp_path / "chats.yaml", "--out", out)
    for words in (["tables", "1"], ["tables", "1", "--seeds", "10,20"], ["report"]):
        made = command(*words, *asked)
        assert made.exit_code == 0, made.output
    (out / "claims.md").write_text(command("claims", "--markdown", *asked).stdout)
    files = list((out / "tables").iterdir())
    assert all("-task-chats-tiny-t5" in path.name for path in files)
    _, found = checked(command, out)
    of_files = [one for one in (*found["wrong"], *found["follow_ups"]) if "record.json" not in one["file"]]
    assert of_files == []
    assert found["checked"]["files"] == len(files) + 2
    assert not any("no record makes it" in reason for reason in found["not_checked"])
    path = out / "tables" / "table1-tiny-task-chats-tiny-t5-measured.md"
    path.write_text(path.read_text().replace("| KLD |", "| KLX |", 1))
    _, found = checked(command, out)
    assert str(path) in {one["file"] for one in (*found["wrong"], *found["follow_ups"])}


def test_files_of_models_that_came_from_a_pair_file_are_not_checked_and_not_wrong(command, tmp_path):
    (tmp_path / "chats.yaml").write_text(TASK)
    pair = tmp_path / "own-pair.yaml"
    folders = {side: tmp_path / side for side in ("teacher", "student")}
    for folder in folders.values():
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "t5", "is_encoder_decoder": true}')
    pair.write_text(f"models: {{kind: seq2seq, teacher: {folders['teacher']}, student: {folders['student']}}}\n")
    out = tmp_path / "out"
    names = {"config__task": "chats", "config__task_file": str(tmp_path / "chats.yaml")}
    names["config__data__dir"] = str(tmp_path)
    for method in ("kld", "skl"):
        for seed in (10, 20):
            record = write_record(out, method, "samsum", seed=seed, init="sft", models=str(pair))
            rewrite(out, record, **names, run_id=record.run_id.replace("samsum", "chats"))
            shutil.rmtree(Store(out).folder(record.run_id))
    made = command("tables", "1", "--task", tmp_path / "chats.yaml", "--models", pair, "--out", out)
    assert made.exit_code == 0, made.output
    asked = command("claims", "--markdown", "--task", tmp_path / "chats.yaml", "--models", pair, "--out", out)
    (out / "claims.md").write_text(asked.stdout)
    files = [*(out / "tables").iterdir(), out / "claims.md"]
    assert len(files) > 1
    _, found = checked(command, out)
    assert not {str(path) for path in files} & {one["file"] for one in (*found["wrong"], *found["follow_ups"])}
    for path in files:
        assert f"{path}: models own-pair came from a file of their own" in found["not_checked"]


def test_other_steps_in_a_preset_of_equal_time_show_in_its_tables(command, tmp_path):
    for method in MAIN_METHODS:
        write_record(tmp_path, method, seconds=40.0 if method == "imitkd" else 20.0)
    path = tmp_path / "tiny-as-long-as-distillm.yaml"
    write_preset(path, equal_time_preset(RunIndex(Store(tmp_path), "tiny"), ["main"], "distillm"))
    write_record(tmp_path, "imitkd", preset=str(path))
    unseen = f"{path}: no table is there that its steps are checked by"
    assert unseen in checked(command, tmp_path)[1]["not_checked"]
    assert command("tables", "main", "--preset", path, "--out", tmp_path).exit_code == 0
    code, found = checked(command, tmp_path)
    assert code == 0
    assert unseen not in found["not_checked"]
    path.write_text(path.read_text().replace("steps: 200", "steps: 201"))
    code, found = checked(command, tmp_path)
    assert code == 1
    assert all(Path(one["file"]).name.startswith(f"main-{path.stem}-") for one in found["wrong"])


def test_two_files_that_differ_are_both_named_where_no_majority_says_which_is_right(command, tmp_path):
    shared, _ = make_record(seed=30)
    for seed, mean in ((10, 12.5), (20, None)):  # the first that is read is the tampered one
        teacher = shared.plain()["scores"]
        if mean is not None:
            teacher["vicuna"]["metrics"]["rouge_l"]["mean"] = mean
        rewrite(tmp_path, write_record(tmp_path, seed=seed), teacher_scores=teacher)
    code, found = checked(command, tmp_path)
    assert code == 1
    (one,) = found["wrong"]
    assert all(f"-s{seed}-" in one["file"] for seed in (10, 20))
    assert one["column"] == "teacher_scores.vicuna.metrics.rouge_l.mean"
    assert one["holds"] == f"12.5 and {shared.scores['vicuna'].primary.mean}"
    assert "they differ" in one["should"]


def test_records_without_a_checksum_are_counted_in_json(command, tmp_path):
    record = write_record(tmp_path)
    file = Store(tmp_path).folder(record.run_id) / RECORD
    values = json.loads(file.read_text())
    assert checked(command, tmp_path)[1]["unsealed"] == 0
    del values["checksum"]
    file.write_text(json.dumps(values))
    assert checked(command, tmp_path)[1]["unsealed"] == 1


def test_a_folder_of_trials_is_not_asked_for_tables(command, ran, tmp_path):
    for place in (tmp_path, tmp_path / "tuning"):
        shutil.copytree(ran / "packed" / "runs", place / "runs")
    code, found = checked(command, tmp_path)
    assert (code, found["not_checked"]) == (0, {NOT_KEPT: 2})
