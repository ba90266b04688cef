"""`bench run --config`: what --dry-run prints, and a record, run again to the same run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.record.store import Store
from tests.conftest import invoke, record_of, short
from tests.records import make_record

METHOD = """
from dataclasses import dataclass
from typing import ClassVar

from distillm import Method, kld


@dataclass(frozen=True)
class Loss:
    scale: float = 1.0
    needs_teacher: ClassVar[bool] = True

    def __call__(self, student_logits, teacher_logits, tokens, batch):
        return self.scale * kld(student_logits, teacher_logits)


MINE = Method("mine", Loss, "dataset", "sft", "nowhere", "a try")
"""


def dry_run(*arguments: str) -> str:
    result = invoke("run", "--dry-run", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def printed(tmp_path: Path, *arguments: str) -> Path:
    """A file with what `bench run --dry-run` prints."""
    file = tmp_path / "run.yaml"
    file.write_text(dry_run(*arguments))
    return file


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--method", "distillm", "--task", "dolly", "--preset", "paper", "--models", "gpt2-xl-to-gpt2-large"),
        ("--method", "minillm", "--task", "dolly", "--preset", "paper"),
        ("--method", "gkd", "--sgo", "off-policy", "--init", "pretrained", "--seed", "3", "--device", "cpu"),
        ("--set", "fidelity=faithful", "--set", "training.learning_rate=1e-3", "--set", "data.template=x"),
        ("--teacher", "org/a", "--student", "org/b", "--set", "models.kind=causal"),
    ],
)
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_what_is_printed_is_taken_back(arguments, form, tmp_path):
    file = printed(tmp_path, *arguments, *form)
    for again in ((), ("--json",)):
        assert dry_run("--config", str(file), *again) == dry_run(*arguments, *again)


@pytest.mark.parametrize("preset", ["tiny", "small"])
def test_models_of_ones_own_are_told_when_the_settings_are_for_tiny_ones(preset):
    models = ("--teacher", "org/a", "--student", "org/b", "--set", "models.kind=causal")
    result = invoke("run", "--dry-run", "--preset", preset, *models)
    assert result.exit_code == 0
    assert ("are for models of a million parameters; for larger ones give --preset" in result.stderr) == (
        preset == "tiny"
    )
    for shipped in ((), ("--models", "tiny-t5-small"), ("--set", "models.student=teacher")):
        assert "million" not in invoke("run", "--dry-run", *shipped).stderr


def test_a_record_is_taken_back(tmp_path):
    record, rows = make_record("distillm", "dolly", assignments=("training.steps=7",))
    Store(tmp_path).write(record, rows)
    file = tmp_path / "runs" / record.run_id / "record.json"
    found = json.loads(dry_run("--config", str(file), "--json"))
    assert found["config"] == record.config.canonical()


def test_what_is_given_beside_it_goes_on_top(tmp_path):
    file = str(printed(tmp_path, "--method", "kld"))
    found = dry_run("--config", file, "--seed", "7", "--device", "cpu", "--set", "training.steps=9", "--init", "init")
    assert found == dry_run("--method", "kld", "--seed", "7", "--device", "cpu", "--set", "training.steps=9")
    (tmp_path / "data").mkdir()
    folder = ("--data-dir", str(tmp_path / "data"))
    kept = ("--set", "data.max_train=400")  # a printed configuration keeps what it says
    assert dry_run("--config", file, *folder) == dry_run("--method", "kld", *folder, *kept)


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        (("--method", "kld"), "--set method.OPTION=VALUE"),
        (("--task", "dolly"), "--data-dir"),
        (("--preset", "tiny"), "--set KEY=VALUE"),
        (("--models", "tiny-t5"), "--set models.teacher=ID_OR_FOLDER"),
        (("--teacher", "a/b"), "--set models.teacher=ID_OR_FOLDER"),
        (("--student", "a/b"), "--set models.student=ID_OR_FOLDER"),
        (("--sgo", "mixed"), "--set sgo.source=SOURCE"),
    ],
)
def test_choices_that_it_has_made_are_refused(option, instead, tmp_path):
    result = invoke("run", "--config", str(printed(tmp_path)), *option)
    assert result.exit_code == 2
    assert f"{option[0]} does not go with --config" in result.stderr
    assert instead in result.stderr


@pytest.mark.usefixtures("cache")
def test_a_run_with_the_users_own_files_is_the_same_run_again(tmp_path):
    """A method, a preset and a pair from outside the repository; their record runs again to the recorded run."""
    own, out = tmp_path / "own", str(tmp_path / "out")
    own.mkdir()
    (own / "method.py").write_text(METHOD)
    (own / "pair.yaml").write_text(
        "models:\n  kind: causal\n  teacher: shipped\n  tokenizer: shipped\n  student: scratch\n"
        "  student_config: {model_type: gpt2, n_embd: 16, n_layer: 1, n_head: 2, n_positions: 256}\n"
    )
    (own / "brief.yaml").write_text(
        "extends: tiny\nmodels: ./pair.yaml\nmethods: {mine: {training: {learning_rate: 2e-3}}}\n"
    )
    chosen = ("--method", f"{own / 'method.py'}:MINE", "--task", "dolly", "--preset", str(own / "brief.yaml"))
    record = record_of("run", *chosen, "--out", out, *short())
    config = record.config
    assert (config.preset, config.models.name, config.method.name) == ("brief", "pair", "mine")
    assert config.method_settings == {"training.learning_rate": 2e-3}
    file = tmp_path / "out" / "runs" / record.run_id / "record.json"
    assert record_of("run", "--config", str(file), "--out", out) == record
    assert [path.parent.name for path in (tmp_path / "out").glob("runs/*/record.json")] == [record.run_id]
    (own / "method.py").write_text(METHOD + "# changed")
    result = invoke("run", "--config", str(file), "--out", out)
    assert result.exit_code == 2
    assert str(config.method.file_sha256) in result.stderr


def test_a_size_that_the_generated_data_had_is_told_where_other_data_keeps_it(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "validation", "test"):
        row = {"dialogue": f"A: {split}?", "summary": "A asks.", "id": split}
        (data / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    words = ["run", "--config", str(printed(tmp_path, "--task", "samsum")), "--data-dir", str(data), "--dry-run"]
    told = invoke(*words)
    assert told.exit_code == 0, told.output
    assert "data.max_train=400 of the configuration holds for your data too" in told.stderr
    assert "max_validation" not in told.stderr
    answered = invoke(*words, "--set", "data.max_train=null")
    assert "of the configuration holds" not in answered.stderr
    assert "max_train: null" in answered.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--set", "teacher_training.steps=9"), "teacher_training.steps=9 has no effect: the teacher shipped is taken"),
        (("--set", "teacher_training.steps=9", "--set", "models.teacher=scratch"), None),
        (("--init", "pretrained", "--set", "init_training.steps=9"), "init_training.steps=9 has no effect: with init"),
        (("--set", "init_training.steps=9"), None),
    ],
)
def test_settings_of_a_training_that_the_run_does_not_have_are_told(arguments, told):
    result = invoke("run", "--dry-run", *arguments)
    assert result.exit_code == 0, result.output
    assert told in result.stderr if told else "has no effect" not in result.stderr
