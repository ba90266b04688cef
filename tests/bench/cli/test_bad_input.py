"""Bad input is one clear message, exit code 2, and nothing left behind."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path

import pytest
import torch

from bench.record.store import Store
from tests.conftest import invoke, record_of, shared, short, start
from tests.records import make_record

pytestmark = pytest.mark.usefixtures("cache")


def refused(tmp_path: Path, *arguments: str) -> str:
    """The message of a refused command, after checking that nothing was left."""
    out = tmp_path / "out"
    result = invoke(*arguments, "--out", str(out))
    assert result.exit_code == 2, result.output
    assert "error: " in result.stderr
    assert "Traceback" not in result.output
    assert not list(out.rglob("*")), "something was left behind"
    return result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "srlk"], ["unknown method 'srlk'", "did you mean 'srkl'"]),
        (["--task", "samsun"], ["unknown task", "did you mean 'samsum'"]),
        (["--preset", "tyni"], ["unknown preset", "did you mean 'tiny'"]),
        (["--models", "tiny-lama"], ["unknown model", "did you mean 'tiny-llama'"]),
        (["--sgo", "onpolicy"], ["unknown output source", "did you mean 'on-policy'"]),
        (["--init", "warm"], ["init", "'pretrained' or 'sft'"]),
        (["--set", "trainig.steps=5"], ["unknown key 'trainig'", "did you mean 'training'"]),
        (["--set", "training.stepz=5"], ["training.stepz", "training.steps"]),
        (["--set", "method.alfa=0.5"], ["method.alfa", "did you mean 'method.alpha'"]),
        (["--set", "method.alpha=1.5"], ["method.alpha", "[0, 1]", "1.5"]),
        (["--set", "sgo.capacity=0"], ["sgo.capacity", "at least 1"]),
        (["--set", "training.steps=many"], ["training.steps", "'many'"]),
        (["--set", "training.steps=1.5"], ["training.steps"]),
        (["--set", "training.batch_size=0"], ["training.batch_size", "greater than 0"]),
        (["--set", "steps"], ["KEY=VALUE"]),
        (["--set", "training=5"], ["training"]),
        (["--seed", "-1"], ["seed"]),
        (["--device", "gpu"], ["device"]),
        (["--data-dir", "/no/such/folder"], ["/no/such/folder"]),
        (["--set", "models.teacher=/no/such/model"], ["/no/such/model", "no such folder"]),
        (["--method", "nowhere.py:METHOD"], ["no file nowhere.py"]),
        (["--set", "data.max_prompt_length=2"], ["data.max_prompt_length=2"]),
        (["--method", "distillm", "--set", "sgo.capacity=4"], ["capacity 4", "batch of 8"]),
        (["--method", "minillm", "--set", "sgo.rollouts=4"], ["rollouts 4", "batch of 8"]),
        (["--method", "minillm", "--set", "method.teacher_mix=1"], ["method.teacher_mix", "[0, 1)"]),
        (["--method", "minillm", "--set", "method.whitening=maybe"], ["method.whitening", "maybe"]),
        (["--method", "seqkd", "--set", "method.loss=mse"], ["method.loss", "'ce' or 'kld'"]),
        (["--method", "seqkd", "--set", "sgo.beams=0"], ["sgo.beams", "at least 1"]),
        (["--method", "minillm", "--task", "iwslt", "--set", "plain_text.weight=1"], ["plain_text.file=FILE"]),
        (["--method", "kld", "--set", "plain_text.weight=1", "--set", "plain_text.file=none.txt"], ["none.txt"]),
        (["--set", "training.steps=1:30"], ["training.steps=1:30", "90 in YAML 1.1"]),
        (["--set", "fidelity=true"], ["fidelity", "faithful"]),
        (["--set", "fidelity=sgo_eos"], ["fidelity.sgo_eos=true"]),
        (["--set", "evaluation.seeds=[10,10]"], ["evaluation.seeds", "once"]),
        (["--set", "evaluation.seeds=10"], ["evaluation.seeds", "a list such as [10,20]"]),
        (["--set", "evaluation.seeds=[]"], ["evaluation.seeds", "at least one value"]),
        (["--preset", "absent.yaml"], ["preset absent.yaml", "no such file"]),
        (["--models", "own/absent"], ["model pair own/absent", "no such file", "--teacher ID_OR_FOLDER"]),
        (["--teacher", "org/a", "--student", "org/b"], ["org/b", "--set models.kind=causal"]),
        (["--teacher", "org/a"], ["--teacher and --student go together"]),
        (["--set", "method_settings.training=1"], ["method_settings cannot be set"]),
        (["--config", "absent.yaml"], ["absent.yaml", "No such file"]),
    ],
)
def test_refused(arguments, words, tmp_path):
    message = refused(tmp_path, "run", *arguments)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("preset: tiny\ntask: [dolly", ["line 2", "neither YAML nor JSON"]),
        ("- preset", ["expected keys with values"]),
        ("preset: tiny\ntask: dolly", ["method: ", "training: "]),
        ("config: 5", ["config: expected a configuration as --dry-run prints it"]),
        ('{"schema": 99, "run_id": "x"}', ["schema 99", "newer version"]),
        ('{"schema": 2, "run_id": "x"}', ["not a record of bench run"]),
    ],
)
def test_a_configuration_that_is_none_is_refused(content, words, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(content)
    message = refused(tmp_path, "run", "--config", str(file))
    for word in (*words, "run.yaml"):
        assert word in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_gpu_where_none_is(tmp_path):
    assert "no such device" in refused(tmp_path, "run", "--device", "cuda")


def write_samsum(folder: Path, train: str) -> None:
    good = json.dumps({"id": "1", "dialogue": "A: hi\nB: ho", "summary": "A greets B."}) + "\n"
    folder.mkdir()
    (folder / "train.jsonl").write_text(train)
    (folder / "validation.jsonl").write_text(good.replace("hi", "hello"))
    (folder / "test.jsonl").write_text(good.replace("hi", "hey"))


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ('{"id": "1", "dialogue": "A: x", "summary": "y"}\n{"id": "2", "dialogue"\n', ["train.jsonl", "line 2"]),
        ('{"id": "1", "dialogue": "A: x", "sumary": "y"}\n', ["line 1", "summary"]),
        ('{"id": "1", "dialogue": "A: x", "summary": 5}\n', ["line 1", "summary"]),
        ("", ["train"]),
    ],
)
def test_malformed_data_names_file_and_line(train, words, tmp_path):
    write_samsum(tmp_path / "data", train)
    message = refused(tmp_path, "run", "--task", "samsum", "--data-dir", str(tmp_path / "data"))
    for word in words:
        assert word in message


def test_a_missing_file_is_named(tmp_path):
    write_samsum(tmp_path / "data", '{"id": "1", "dialogue": "A: x", "summary": "y"}\n')
    (tmp_path / "data" / "test.jsonl").unlink()
    assert "test" in refused(tmp_path, "run", "--task", "samsum", "--data-dir", str(tmp_path / "data"))


def test_a_folder_that_is_no_model(tmp_path):
    (tmp_path / "empty").mkdir()
    message = refused(tmp_path, "run", "--models", "tiny-llama", "--set", f"models.teacher={tmp_path / 'empty'}")
    assert "the folder is no" in message


def test_different_vocabularies(tmp_path):
    teacher = shared("models", "stories260k")
    from bench.synthetic import shipped_teacher

    message = refused(
        tmp_path,
        *("run", "--task", "dolly", "--set", f"models.teacher={teacher}"),
        *("--set", f"models.student={shipped_teacher('dolly')}"),
    )
    assert "different vocabularies" in message
    assert "models.student=scratch" in message


def test_an_unwritable_output(tmp_path):
    (tmp_path / "file").write_text("")
    result = invoke("run", "--out", str(tmp_path / "file" / "out"), *short())
    assert result.exit_code == 2
    assert "cannot write" in result.stderr


@pytest.mark.slow
def test_a_disk_that_fills_is_told_and_the_run_goes_on_after(tmp_path):
    """A limit on the size of files makes the system refuse writes as a full disk does."""
    cache, out = tmp_path / "cache", tmp_path / "out"
    command = ("run", "--method", "skl", "--task", "iwslt", "--out", str(out), *short())

    def small_files_only() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))

    process = start(*command, "--quiet", cache=cache, preexec=small_files_only)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 2, stderr
    assert "cannot write" in stderr
    assert "Traceback" not in stderr
    process = start(*command, "--json", cache=cache)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["training"]["steps"] == 12


def test_unknown_runs(tmp_path):
    assert "none is recorded yet" in refused(tmp_path, "show", "nothing")
    record = record_of("run", "--method", "sft", "--task", "iwslt", "--out", str(tmp_path), *short())
    result = invoke("show", "iwslt-sfd", "--out", str(tmp_path))
    assert result.exit_code == 2
    assert record.run_id in result.stderr
    file = tmp_path / "runs" / record.run_id / "record.json"
    file.write_text(file.read_text()[:100])
    result = invoke("show", "iwslt-sft", "--out", str(tmp_path))
    assert result.exit_code == 2
    assert f"{file} is no record this version reads" in result.stderr
    assert "--fresh" in result.stderr


def test_runs_are_listed_a_line_each_in_forty_columns(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    for seed in (10, 20):
        record, rows = make_record("distillm", "dolly", seed)
        Store(tmp_path).write(record, rows)
    lines = invoke("list", "runs", "--out", str(tmp_path)).stdout.splitlines()
    assert [len([line for line in lines if f"-s{seed}-" in line and "ROUGE-L" in line]) for seed in (10, 20)] == [1, 1]
    assert len(lines) == 3


def test_a_loss_that_is_not_finite_stops_the_run_and_is_recorded(tmp_path):
    file = tmp_path / "bad.py"
    file.write_text(
        "from dataclasses import dataclass\nfrom typing import ClassVar\nfrom distillm import Method\n\n\n"
        "@dataclass(frozen=True)\nclass Bad:\n    needs_teacher: ClassVar[bool] = False\n\n"
        "    def __call__(self, student_logits, teacher_logits, tokens, batch):\n"
        "        return student_logits.sum(-1) * float('nan')\n\n\n"
        "METHOD = Method('bad', Bad, 'dataset', 'sft', 'none', 'always nan')\n"
    )
    result = invoke("run", "--method", f"{file}:METHOD", "--task", "iwslt", "--out", str(tmp_path), *short())
    assert result.exit_code == 2
    for word in ("not finite at step 1", "batch", "training.learning_rate"):
        assert word in result.stderr
    failures = list(tmp_path.glob("runs/*/failure.json"))
    assert len(failures) == 1
    told = json.loads(failures[0].read_text())
    batch_size = told["key"]["config"]["training"]["batch_size"]
    assert (told["step"], told["what"], len(told["batch"])) == (1, "the loss", batch_size)
    assert "not finite" in told["error"]
    assert "training.learning_rate" in told["advice"]
    assert told["validations"][0]["step"] == 0
    run_id = failures[0].parent.name
    (row,) = json.loads(invoke("list", "runs", "--out", str(tmp_path), "--json").stdout)
    assert (row["run"], row["score"]) == (run_id, "failed")
    shown = invoke("show", run_id[:9], "--out", str(tmp_path))
    assert shown.exit_code == 2
    assert "the loss is not finite at step 1" in shown.stderr


def test_an_objective_that_returns_no_loss_per_token(tmp_path):
    file = tmp_path / "mean.py"
    file.write_text(
        "from dataclasses import dataclass\nfrom typing import ClassVar\nfrom distillm import Method, kld\n\n\n"
        "@dataclass(frozen=True)\nclass Mean:\n    needs_teacher: ClassVar[bool] = True\n\n"
        "    def __call__(self, student_logits, teacher_logits, tokens, batch):\n"
        "        return kld(student_logits, teacher_logits).mean()\n\n\n"
        "METHOD = Method('mean', Mean, 'dataset', 'sft', 'none', 'a scalar')\n"
    )
    result = invoke("run", "--method", f"{file}:METHOD", "--task", "iwslt", "--out", str(tmp_path), *short())
    assert result.exit_code == 2
    assert "Mean returned a tensor of shape (), expected (" in result.stderr
    assert not list(tmp_path.glob("runs/*/record.json"))


def test_a_student_that_breaks_in_training_is_told_by_what_it_samples(tmp_path):
    arguments = ("run", "--method", "imitkd", "--task", "iwslt", "--out", str(tmp_path), *short())
    result = invoke(*arguments, "--set", "training.learning_rate=1e30")
    assert result.exit_code == 2
    assert "is not finite at step" in result.stderr
    assert len(json.loads(next(tmp_path.glob("runs/*/failure.json")).read_text())["batch"]) > 0


@pytest.mark.parametrize("arguments", [("run", "--task", ":star:"), ("show", ":star:")], ids=["run", "show"])
def test_a_name_is_shown_as_it_was_typed(arguments, tmp_path):
    """Rich would print a star."""
    result = invoke(*arguments, "--out", str(tmp_path))
    assert result.exit_code == 2
    assert ":star:" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "--memory-gib", "nan"],
        ["plan", "--price", "1e400"],
        ["suite", "table1", "--minutes", "inf"],
        ["judge", "a-run", "--max-cost", "nan"],
    ],
    ids=" ".join,
)
def test_a_number_that_is_not_finite_is_no_value_of_an_option(arguments):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "is no finite number" in result.stderr
