"""The tiny models that ship with the package: how they are made, and whether the files are still those."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench.config.presets import read_preset
from bench.config.resolve import resolve
from bench.config.sections import StudentPretraining, TrainingConfig
from bench.data import SPLITS, TASKS, load_task
from bench.experiment import stages
from bench.experiment.context import RunContext, prepare
from bench.experiment.pair import load
from bench.experiment.pretraining import pretrained_student
from bench.experiment.workshop import Workshop
from bench.synthetic import reading, shipped_teacher
from bench.system.environment import describe
from bench.system.errors import BenchError, did_you_mean
from bench.system.files import read_json, sha256_of, write_json
from bench.system.progress import Reporter

CARD = "teacher.json"
TEACHER = "teacher"
EARLY = "teacher-early"
SMALL = "student-small"
MODELS: dict[str, tuple[str, ...]] = {
    "dolly": (TEACHER, EARLY, "student"),
    "samsum": (TEACHER, "student", SMALL),
    "iwslt": (TEACHER, "student", SMALL),
}
"""The models of each task, by what their folders' names end in; Table 3's tasks have two sizes of student.

Dolly has a second teacher, with which KLD gains over SFT what `docs/tiny-regime.md` asks for: its training ends early.
"""
_EARLY_STEPS = 600
_TEACHER_TRAIN = "teacher_train"
_PARTS = (": data", "", ": evaluation")  # of making a model, as the progress shows them

# Like the paper's students these come pretrained. Dolly's and SAMSum's have read text of the synthetic world. At this
# scale a model learns to translate from pairs only, so IWSLT's has seen pairs; it was stopped early.
_ON_TEXT = {"steps": 6000, "batch_size": 16, "length": 64, "warmup_steps": 50}
PRETRAINING: dict[str, TrainingConfig] = {
    "dolly": StudentPretraining.model_validate({**_ON_TEXT, "learning_rate": 3e-3}),
    "samsum": StudentPretraining.model_validate({**_ON_TEXT, "learning_rate": 5e-3}),
    "iwslt": TrainingConfig.model_validate(
        {
            "steps": 1600,
            "batch_size": 32,
            "learning_rate": 3e-3,
            "warmup_steps": 100,
            "adam_beta2": 0.98,
            "validations": 4,
            "select_by": "loss",
        }
    ),
}


def make_models(
    task: str, target: Path | None, reporter: Reporter, models: Sequence[str] | None = None
) -> dict[str, dict[str, float]]:
    """Train the tiny models of a task and write them in half precision, each with a card: checksums, scores, origin.

    A student gets the tokenizer of the teacher made with it, or of the one that ships.

    Args:
        task: a task with synthetic data.
        target: parent folder of the models; None is the package's own.
        reporter: shows the progress.
        models: those to make, of `MODELS`; None is all that the task has.

    Returns:
        for each model made, its mean score on each test set.

    Raises:
        BenchError: unknown task, no such model of it, or the folder cannot be written.
    """
    if task not in MODELS:
        raise BenchError(f"no tiny models ship for {task}: {did_you_mean(task, MODELS)}")
    models = MODELS[task] if models is None else models
    if absent := [name for name in models if name not in MODELS[task]]:
        raise BenchError(f"{task} has no {absent[0]}: {', '.join(MODELS[task])}")
    workshop = Workshop.of(reporter)
    scores: dict[str, dict[str, float]] = {}
    tokenizer = "shipped"
    with reporter.session([f"{name}{part}" for name in models for part in _PARTS]):
        for name in models:
            with tempfile.TemporaryDirectory() as temporary:
                with reporter.stage(f"{name}{_PARTS[0]}"):
                    context = _context(task, name, tokenizer, workshop, Path(temporary))
                with reporter.stage(name):
                    made, training = _trained(context, name, workshop)
            folder = (shipped_teacher(task).parent if target is None else target) / _folder(task, name)
            with reporter.stage(f"{name}{_PARTS[2]}"):
                scores[name] = _write(context, workshop, made, folder, training)
            if name == TEACHER:
                tokenizer = str(folder)
    return scores


def _folder(task: str, name: str) -> str:
    return task if name == TEACHER else f"{task}-{name}"


def _trained(context: RunContext, name: str, workshop: Workshop) -> tuple[Path, TrainingConfig]:
    """The model's folder in the artifact cache, and how it was trained."""
    seed = stages.TEACHER_SEED
    if name in (TEACHER, EARLY):
        training = context.config.teacher_training
        return stages.fine_tuned(context, workshop, "teacher", training, seed, "teacher"), training
    training = PRETRAINING[context.config.task]
    on_text = pretrained_student(context, workshop)
    if on_text is not None:
        return on_text, training
    return stages.fine_tuned(context, workshop, "student", training, seed, "pretrained student"), training


def _context(task: str, name: str, tokenizer: str, workshop: Workshop, temporary: Path) -> RunContext:
    """The synthetic examples of a task, with the large split for teachers in the place of the training set."""
    # the preset takes few examples for training; teachers have all of their split
    assignments = ["data.max_train=null", "models.student=scratch", f"models.tokenizer={json.dumps(tokenizer)}"]
    if name in (TEACHER, EARLY):
        assignments += ["models.teacher=scratch", "models.tokenizer=trained"]
        assignments += [f"teacher_training.steps={_EARLY_STEPS}"] * (name == EARLY)
    elif isinstance(given := PRETRAINING[task], StudentPretraining):
        for split, texts in reading(task).items():
            lines = (json.dumps({"text": text}) + "\n" for text in texts)
            (temporary / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        settings = given.model_dump(mode="json") | {"file": str(temporary)}
        assignments += [f"student_pretraining={json.dumps(settings)}"]
    pair = f"{read_preset('tiny').models(task)}{'-small' if name == SMALL else ''}"
    config, method = resolve(preset="tiny", task=task, method="sft", models=pair, device="cpu", assignments=assignments)
    sets = (*SPLITS, _TEACHER_TRAIN, *TASKS[task].evaluation_sets)
    data = load_task(task, synthetic_splits=sets)
    kept = {name: examples for name, examples in data.splits.items() if name != _TEACHER_TRAIN}
    data = dataclasses.replace(data, splits=kept | {"train": data.splits[_TEACHER_TRAIN]})
    return prepare(config, method, workshop.cache, data=data)


def _write(
    context: RunContext, workshop: Workshop, made: Path, folder: Path, training: TrainingConfig
) -> dict[str, float]:
    shutil.rmtree(folder, ignore_errors=True)
    load(context, str(made), torch.float16).save(folder)
    found = stages.scores(context, workshop, str(folder), "shipped-model")
    history = read_json(made / ("training.json" if (made / "training.json").is_file() else "pretraining.json"))
    seconds = history["seconds"]
    result = {name: round(one.primary.mean, 4) for name, one in found.items()}
    card: dict[str, Any] = {
        "task": context.config.task,
        "made_by": f"bench make-teachers {context.config.task}",
        "metric": context.metric_infos[0].signature,
        "scores": result,
        "files": {p.name: sha256_of(p) for p in sorted(folder.iterdir())},
        "training": training.model_dump(mode="json"),
        "validations": history["validations"],
        "seconds": round(sum(seconds.values()) if isinstance(seconds, dict) else seconds, 1),
        "environment": describe(torch.device("cpu")).model_dump(include={"cpu", "threads", "packages"}),
    }
    write_json(folder / CARD, card)
    return result


def shipped(task: str) -> list[Path]:
    """Folders of all models that ship for a task."""
    return [shipped_teacher(task).with_name(_folder(task, name)) for name in MODELS[task]]


def intact(task: str) -> bool:
    """Whether the shipped models of a task have the checksums of their cards, and one vocabulary."""
    try:
        if len({sha256_of(folder / "tokenizer.json") for folder in shipped(task)}) > 1:
            return False
        for folder in shipped(task):
            files: dict[str, str] = read_json(folder / CARD)["files"]
            if any(sha256_of(folder / name) != checksum for name, checksum in files.items()):
                return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True
