"""`bench evaluate`: the same scores as a run gives the model, read by every command."""

from __future__ import annotations

import json
import shutil

import pytest

from bench.record.record import EVALUATE, RunRecord
from bench.record.store import Store
from bench.synthetic import shipped_teacher
from tests.conftest import invoke, record_of, short
from tests.records import rewrite

TASK = ("--task", "samsum")
SIZE = short(training__steps=2, init_training__steps=2)


def evaluated(*arguments):
    result = invoke("evaluate", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return [RunRecord.model_validate(one) for one in json.loads(result.stdout)]


@pytest.fixture(scope="module")
def out(tmp_path_factory, cache):
    """A run, the shipped teacher, and the run's own student."""
    folder = tmp_path_factory.mktemp("evaluated")
    run = record_of("run", "--method", "sft", *TASK, *SIZE, "--out", str(folder))
    student = folder / "runs" / run.run_id / "student"
    evaluated("shipped", str(student), *TASK, *SIZE, "--out", str(folder))
    return folder


def by_name(out):
    return {record.evaluated: record for record in Store(out).all()}


def test_the_scores_are_those_that_a_run_gives_the_model(out):
    records = by_name(out)
    run, teacher, student = records[None], records["shipped"], records["student"]
    assert teacher.scores == run.teacher_scores
    assert student.scores == run.scores
    assert student.models.student_parameters == run.models.student_parameters
    rows = [Store(out).predictions(record) for record in (run, student)]
    assert rows[0] == rows[1]
    for record in (teacher, student):
        assert (record.config.method.name, record.training.steps, record.teacher_scores) == (EVALUATE, 0, {})


def test_what_stands_in_the_place_of_its_record_is_told_before_anything_is_scored(out, tmp_path):
    run_id = by_name(out)["shipped"].run_id
    (tmp_path / "runs" / run_id / "record.json").mkdir(parents=True)
    (tmp_path / "runs" / run_id / ".a-file.part").touch()
    asked = ("evaluate", "shipped", *TASK, *SIZE, "--out", str(tmp_path))
    result = invoke(*asked)
    assert result.exit_code == 2
    assert "record.json: cannot write or read there: it is a folder" in result.stderr
    assert not (tmp_path / "runs" / run_id / "work").exists()
    (tmp_path / "runs" / run_id / "record.json").rmdir()
    assert invoke(*asked).exit_code == 0
    assert not list((tmp_path / "runs" / run_id).glob(".*.part"))


def test_every_command_reads_it(out, tmp_path):
    ids = {name: record.run_id for name, record in by_name(out).items()}
    where = ("--out", str(out))
    assert all(run_id in invoke("list", "runs", *where).stdout for run_id in ids.values())
    shown = invoke("show", ids["shipped"], *where)
    assert shown.exit_code == 0, shown.output
    assert "not trained here" in shown.stdout
    rows = json.loads(invoke("compare", ids[None], ids["student"], "--json", *where).stdout)
    assert [(row["set"], row["difference"]) for row in rows] == [("test", 0.0)]
    (row,) = json.loads(invoke("compare", ids["shipped"], ids[None], "--json", *where).stdout)
    assert row["difference"] > 20
    assert row["low"] > 0
    assert invoke("export", "--to", str(tmp_path), *where).exit_code == 0
    lines = (tmp_path / "records.csv").read_text().splitlines()
    assert sum(f",{EVALUATE}," in line for line in lines) == 2
    assert invoke("pack", "--to", str(tmp_path / "packed"), *where).exit_code == 0
    packed = by_name(tmp_path / "packed")
    assert packed["shipped"].scores == by_name(out)["shipped"].scores


def test_tables_show_it_as_a_row_marked_as_not_trained_here(out, cache):
    result = invoke("tables", "3", "--format", "markdown,csv", "--out", str(out))
    assert result.exit_code == 0, result.output
    text = (out / "tables" / "table3-tiny-measured.md").read_text()
    mean = by_name(out)["shipped"].scores["test"].primary.mean
    assert f"| shipped ‡ | {mean:.2f} |" in text
    assert "‡: not trained here, scored as it is, in no test: shipped (1,241,472 parameters, 1 decoding seed)" in text


def test_alone_it_makes_a_table(out, tmp_path):
    run_id = by_name(out)["shipped"].run_id
    shutil.copytree(out / "runs" / run_id, tmp_path / "runs" / run_id)
    result = invoke("tables", "3", "--format", "markdown", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    text = (tmp_path / "tables" / "table3-tiny-measured.md").read_text()
    assert "No run is recorded for this table." in text
    assert "shipped ‡" in text


def test_what_another_engine_generated_is_neither_compared_nor_shown(out, tmp_path, cache):
    """As that of a model which keeps a state has `generate`."""
    folder = tmp_path / "other"
    shutil.copytree(out, folder)
    records = by_name(folder)
    run_id = records["shipped"].run_id
    assert records["shipped"].models.decoded_by == ["plain steps"]
    generated = dict.fromkeys(("teacher", "student"), "transformers generate")
    rewrite(folder, records["shipped"], models__generation=generated)
    result = invoke("compare", records[None].run_id, run_id, "--out", str(folder))
    assert result.exit_code == 2
    assert "generation (decode loop against transformers generate)" in result.stderr
    result = invoke("tables", "3", "--format", "markdown", "--out", str(folder))
    assert f"left out {run_id}" in result.stderr
    assert "shipped ‡" not in (folder / "tables" / "table3-tiny-measured.md").read_text()


def test_what_is_scored_otherwise_is_neither_compared_nor_shown(out, tmp_path, cache):
    folder = tmp_path / "other"
    shutil.copytree(out, folder)
    (other,) = evaluated(
        "shipped", *TASK, *SIZE, "--set", "evaluation.temperature=0.5", "--label", "cool", "--out", str(folder)
    )
    run_id = by_name(folder)[None].run_id
    result = invoke("compare", run_id, other.run_id, "--out", str(folder))
    assert result.exit_code == 2
    assert "evaluation.temperature (1.0 against 0.5)" in result.stderr
    result = invoke("tables", "3", "--format", "markdown", "--out", str(folder))
    assert f"left out {other.run_id}" in result.stderr
    assert "cool ‡" not in (folder / "tables" / "table3-tiny-measured.md").read_text()


def test_it_is_recorded_once_and_goes_on_from_the_sets_that_are_done(out):
    ids = {record.run_id: record.started for record in by_name(out).values()}
    (again,) = evaluated("shipped", *TASK, *SIZE, "--out", str(out))
    assert ids[again.run_id] == again.started


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: None, "there is no such folder"),
        (lambda folder: folder.mkdir(), "the folder is no model transformers can load"),
        (lambda folder: without(folder, "tokenizer*"), "the folder is no tokenizer transformers can load"),
        (lambda folder: quantized(folder), "bitsandbytes"),
    ],
)
def test_what_is_no_model_is_told(make, said, tmp_path, cache):
    make(tmp_path / "model")
    result = invoke("evaluate", str(tmp_path / "model"), *TASK, "--out", str(tmp_path))
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "runs").exists() or not list(Store(tmp_path).all())


def without(folder, pattern):
    shutil.copytree(shipped_teacher("samsum"), folder)
    for path in folder.glob(pattern):
        path.unlink()


def quantized(folder):
    without(folder, "nothing")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))


def test_what_does_not_fit_is_not_said_of_a_teacher(cache, tmp_path):
    given = ("shipped", "--task", "dolly", "--out", str(tmp_path), "--set", "data.max_prompt_length=9000")
    assert "error: the model has 256 positions, a prompt" in invoke("evaluate", *given).stderr


def test_the_tokenizer_may_be_of_another_folder(out, tmp_path):
    folder = tmp_path / "bare"
    without(folder, "nothing")
    tokenizer = f"models.tokenizer={folder}"
    (record,) = evaluated(str(folder), *TASK, *SIZE, "--set", tokenizer, "--out", str(tmp_path))
    assert record.scores == by_name(out)["shipped"].scores


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("scratch",), "scratch: that is no model"),
        (("shipped", "smollm2", "--label", "mine"), "--label names a single model"),
        (("shipped", "--label", "KD / paper"), "--label"),
        (("shipped", "--set", "models.teacher=smollm2"), "the one given as MODEL, here shipped"),
        (("shipped", "--set", "models={student: smollm2}"), "only models.tokenizer and models.kind can be set"),
        ((), "Missing argument"),
    ],
)
def test_bad_arguments_are_told(arguments, said, tmp_path, cache):
    result = invoke("evaluate", *arguments, *TASK, "--out", str(tmp_path))
    assert result.exit_code == 2
    assert said in result.output
