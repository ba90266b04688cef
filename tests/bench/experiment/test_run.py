"""The command `bench run` and what looks at its records, end to end on shipped teachers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from bench.config.registry import methods
from bench.data import TASKS
from distillm import SOURCES
from tests.conftest import invoke, record_of, shared, short

pytestmark = pytest.mark.usefixtures("cache")


FEW_ROLLOUTS = {"sgo__rollouts": 16}  # two rounds of roll-outs within twelve steps
BRIEF = {"data__max_response_length": 24}  # for what generates much


@pytest.mark.parametrize(
    ("task", "method"),
    [
        # seconds each, minutes together: quick are every method on one task, and one method on every task
        pytest.param(t, m, marks=() if t == "iwslt" or m == "srkl" else pytest.mark.slow)
        for t in TASKS
        for m in methods()
    ],
)
def test_every_method_runs_on_every_task(task, method, tmp_path):
    options = short(**BRIEF, **(FEW_ROLLOUTS if method == "minillm" else {}))
    record = record_of("run", "--method", method, "--task", task, "--out", str(tmp_path), *options)
    sets = {"test"} | ({"SelfInst", "Vicuna", "S-NI", "UnNI"} if task == "dolly" else set())
    assert len(record.scores) == len(sets)
    assert "test" in record.scores
    names = [metric.name for metric in record.metrics]
    for scores in (record.scores, record.teacher_scores, record.init_scores):
        assert all(list(one.metrics) == names for one in scores.values())
        assert all(0 <= score.mean <= 100 for one in scores.values() for score in one.metrics.values())
    assert record.metric.label == ("BLEU" if task == "iwslt" else "ROUGE-L")
    assert record.training.steps == 12
    assert record.time.phases["student"] > 0
    without_teacher = {"sft", "seqkd"}  # the responses that SeqKD trains on are made before training
    assert (record.time.phases["teacher"] > 0.001) == (method not in without_teacher)
    assert record.models.teacher_parameters > 1.5 * record.models.student_parameters


@pytest.mark.parametrize("source", list(SOURCES))
def test_output_sources_are_recorded(source, tmp_path):
    options = short(sgo__initial_phi=1.0, sgo__capacity=8, training__steps=8, **FEW_ROLLOUTS)
    record = record_of("run", "--method", "skl", "--task", "iwslt", "--sgo", source, "--out", str(tmp_path), *options)
    generated = record.training.tokens_generated
    assert (generated > 0) == (source not in ("dataset", "teacher"))
    ages = [row["sgo_age"] for row in record.curve if "sgo_age" in row]
    if source == "on-policy":
        assert len(ages) == 8
        assert set(ages) == {0.0}
    if source == "adaptive-off-policy":
        assert {row["share_replay"] for row in record.curve} == {0.0, 1.0}
        assert max(ages) > 0
        assert all(row["buffer"] == 8 for row in record.curve)


def test_options_without_effect_and_a_teacher_that_does_not_end_are_noted_once(tmp_path):
    common = ("--task", "iwslt", "--out", str(tmp_path), *short(data__max_response_length=4))
    notes = record_of("run", "--method", "imitkd", *common, "--set", "sgo.final_data_share=0.01").data.notes
    expected = "sgo.final_data_share=0.01 has no effect: on-policy does not read it (mixed, off-policy would)"
    assert notes.count(expected) == 1
    assert sum("trained without its plain-text loss" in note for note in notes) == 1
    record = record_of("run", "--method", "seqkd", *common)
    answered = record.data.teacher_responses
    assert answered.ended < 0.5
    assert answered.mean_length <= 4
    assert set(record.time.before) == {"init student", "teacher responses"}
    assert all(seconds > 0 for seconds in record.time.before.values())
    assert {kind: one.count for kind, one in record.time.steps.items()} == {"dataset": record.training.steps}
    assert any("the teacher ended" in note and "max_response_length=4" in note for note in record.data.notes)


def test_the_same_command_again_gives_the_record_and_fresh_makes_it_again(tmp_path):
    command = ("run", "--method", "kld", "--task", "iwslt", "--out", str(tmp_path), *short())
    first = record_of(*command)
    folder = tmp_path / "runs" / first.run_id
    # what a process leaves that is killed when all is recorded
    (folder / "work" / "step-00000012").mkdir(parents=True)
    (folder / ".record.json.part").write_text("{")
    again = invoke(*command)
    assert not (folder / "work").exists()
    assert "recorded before" in again.stdout
    assert "BLEU" in again.stdout
    assert "teacher" in again.stdout
    assert first.run_id in again.stdout.replace("\n", "")
    fresh = record_of(*command, "--fresh")
    assert fresh.scores == first.scores
    assert fresh.validations == first.validations
    assert fresh.time.earlier == [first.time.training_seconds]
    assert sorted(p.name for p in (tmp_path / "runs" / first.run_id).iterdir()) == [
        "lock",
        "predictions.jsonl.gz",
        "record.json",
        "student",
    ]


def test_the_recorded_student_gives_the_recorded_predictions(tmp_path):
    from bench.data import load_task
    from bench.models.language_model import LanguageModel
    from bench.models.loading import load_tokenizer
    from bench.models.sampling import Decoding
    from bench.models.tokenizer import LengthLimits, TokenizerAdapter

    record = record_of("run", "--method", "skl", "--task", "iwslt", "--out", str(tmp_path), *short())
    folder = tmp_path / "runs" / record.run_id
    tokenizer = TokenizerAdapter(load_tokenizer(str(folder / "student")), "seq2seq")
    model = LanguageModel.load(str(folder / "student"), tokenizer, torch.device("cpu"))
    examples = load_task("iwslt", limits={"test": 8}).splits["test"]
    limits = LengthLimits(record.config.data.max_prompt_length, record.config.data.max_response_length)
    sequences, _ = tokenizer.encode(examples, limits, drop_long=False)
    responses = model.sample(sequences, Decoding(limits.response), "evaluation", "test", 10, batch_size=3)
    with gzip.open(folder / "predictions.jsonl.gz", "rt", encoding="utf-8") as file:
        recorded = [json.loads(line)["prediction"] for line in file]
    assert [tokenizer.text(r) for r in responses] == recorded


@pytest.mark.slow
def test_methods_compared_share_teacher_and_init(tmp_path):
    a, b = (
        record_of("run", "--method", m, "--task", "samsum", "--out", str(tmp_path), *short()) for m in ("sft", "srkl")
    )
    assert a.comparison_key == b.comparison_key
    assert a.run_id != b.run_id
    assert a.init_scores == b.init_scores
    assert a.teacher_scores == b.teacher_scores
    assert a.validations[0] == b.validations[0]

    compared = invoke("compare", a.run_id, b.run_id, "--out", str(tmp_path))
    assert compared.exit_code == 0
    assert "95 % interval" in compared.stdout
    shown = invoke("show", a.run_id[:12], "--out", str(tmp_path))
    assert a.comparison_key[:16] in shown.stdout.replace("\n", "")
    listed = invoke("list", "runs", "--out", str(tmp_path))
    assert listed.exit_code == 0

    other = record_of("run", "--method", "sft", "--task", "samsum", "--out", str(tmp_path), *short(training__steps=4))
    refused = invoke("compare", a.run_id, other.run_id, "--out", str(tmp_path))
    assert refused.exit_code == 2
    assert "training.steps (12 against 4)" in refused.stderr


def test_start_from_the_student_as_it_is(tmp_path):
    settings = short(models__student="scratch")
    command = ("run", "--method", "sft", "--task", "samsum", "--out", str(tmp_path), *settings)
    init, pretrained = record_of(*command), record_of(*command, "--init", "pretrained")
    assert pretrained.validations[0].loss > init.validations[0].loss + 0.5
    assert pretrained.comparison_key == init.comparison_key


def test_a_method_from_a_users_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "from distillm import Method, skl, srkl\n\n\n"
        "@dataclass(frozen=True)\nclass Both:\n"
        "    weight: float = 0.5\n    needs_teacher: ClassVar[bool] = True\n\n"
        "    def __call__(self, student_logits, teacher_logits, tokens, batch):\n"
        "        one, two = skl(student_logits, teacher_logits), srkl(student_logits, teacher_logits)\n"
        "        return self.weight * one + (1 - self.weight) * two\n\n\n"
        "METHOD = Method('both', Both, 'mixed', 'sft', 'mine', 'mean of both skews')\n"
    )
    record = record_of(
        *("run", "--method", f"{file}:METHOD", "--task", "iwslt", "--out", str(tmp_path)),
        *short(method__weight=0.25),
    )
    assert record.config.method.options["weight"] == 0.25
    assert record.config.sgo.source == "mixed"


def test_dry_run_prints_the_configuration_and_writes_nothing(tmp_path):
    one = invoke("run", "--dry-run", "--out", str(tmp_path / "out"))
    two = invoke("run", "--dry-run", "--set", "method.alpha=0.2")
    assert one.exit_code == two.exit_code == 0
    assert "alpha: 0.1" in one.stdout
    assert "alpha: 0.2" in two.stdout
    assert one.stdout.splitlines()[-1] != two.stdout.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["methods", "sources", "fidelity", "tasks", "presets", "models", "runs"])
def test_list(what, tmp_path):
    assert invoke("list", what, "--out", str(tmp_path)).exit_code == 0
    assert isinstance(json.loads(invoke("list", what, "--out", str(tmp_path), "--json").stdout), list)


@pytest.mark.slow
def test_real_samsum_with_a_real_checkpoint(tmp_path):
    """Real dialogues, a real pretrained Llama as the teacher, a student from scratch with its vocabulary."""
    data, teacher = shared("data", "samsum"), shared("models", "stories260k")
    record = record_of(
        *("run", "--method", "srkl", "--task", "samsum", "--models", "tiny-llama", "--data-dir", str(data)),
        *("--out", str(tmp_path), "--set", f"models.teacher={teacher}", "--set", "data.drop_overlap=true"),
        *short(teacher_training__steps=2, teacher_training__batch_size=4, data__max_prompt_length=192),
    )
    notes = " ".join(record.data.notes)
    assert "13828807" in notes
    assert "train" in notes
    assert record.models.teacher_parameters == 260_032
    assert record.data.source.startswith("folder")


def test_doctor(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = invoke("doctor", "--out", str(tmp_path), "--json")
    assert result.exit_code == 0
    findings = {row["check"]: row for row in json.loads(result.stdout)}
    assert findings["shipped models samsum"]["state"] == "ok"
    assert Path(tmp_path).exists()


def test_the_teachers_responses_are_sampled_once_and_trained_on(cache, tmp_path):
    command = ("run", "--method", "sft", "--task", "iwslt", "--out", str(tmp_path), *short(data__max_train=48))
    references, teacher = record_of(*command), record_of(*command, "--sgo", "teacher")
    again = record_of(*command[:2], "kld", *command[3:], "--sgo", "teacher")
    assert references.curve[0]["loss"] != teacher.curve[0]["loss"]
    made = [f for f in (cache / "teacher-responses").iterdir() if f.is_dir() and len(_rows(f)) == 48]
    assert len(made) == 1, "sampled once for both runs"
    assert again.comparison_key == teacher.comparison_key


@pytest.mark.slow
def test_faithful_runs_are_no_match_for_corrected_ones(tmp_path):
    command = ("run", "--method", "imitkd", "--task", "samsum", "--out", str(tmp_path), *short(**BRIEF))
    corrected = record_of(*command)
    faithful = record_of(*command, "--set", "fidelity=faithful")
    assert corrected.comparison_key != faithful.comparison_key
    assert corrected.curve[0]["loss"] != faithful.curve[0]["loss"]
    assert corrected.curve[0]["share_generate"] == 1.0
    assert faithful.curve[0]["share_replay"] == 1.0


@pytest.mark.slow
def test_the_plain_text_loss_is_recorded_or_its_absence_noted(tmp_path):
    command = ("run", "--method", "minillm", "--out", str(tmp_path), *short(**BRIEF, **FEW_ROLLOUTS))
    there = record_of(*command, "--task", "dolly", "--set", "plain_text.weight=1")
    missing = record_of(*command, "--task", "iwslt")
    assert all(row["plain_text_loss"] > 0 for row in there.curve)
    assert not any("plain_text_loss" in row for row in missing.curve)
    assert any("without its plain-text loss" in note for note in missing.data.notes)


def _rows(folder: Path) -> list[str]:
    with gzip.open(folder / "responses.jsonl.gz", "rt", encoding="utf-8") as file:
        return file.readlines()
