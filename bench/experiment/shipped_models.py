"""The tiny models that ship with the package: how they are made, and whether the files are still those."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import torch

from bench.config.resolve import resolve
from bench.config.sections import TrainingConfig
from bench.data import SPLITS, TASKS, TaskData, load_task
from bench.experiment import stages
from bench.experiment.context import RunContext, prepare
from bench.experiment.identity import Side
from bench.experiment.stages import Workshop
from bench.synthetic import shipped_student, shipped_teacher
from bench.system.artifacts import ArtifactCache, default_root
from bench.system.environment import describe
from bench.system.files import read_json, sha256_of, write_json
from bench.system.progress import Reporter

CARD = "teacher.json"
TEACHER_TRAIN = "teacher_train"

# A student of this size needs more steps than a run has to find out how to copy and translate at all. Like the paper's
# students it comes pretrained; it stays far below the teacher.
PRETRAINED_STUDENTS = ("iwslt",)
PRETRAINING = TrainingConfig.model_validate(
    {
        "steps": 1200,
        "batch_size": 16,
        "learning_rate": 8e-3,
        "warmup_steps": 100,
        "adam_beta2": 0.98,
        "validations": 1,
        "select_by": "loss",
    }
)


def _teachers_data(task: str) -> TaskData:
    """The synthetic examples of a task, with the large split for teachers in the place of the training set."""
    sets = (*SPLITS, TEACHER_TRAIN, *TASKS[task].evaluation_sets)
    data = load_task(task, synthetic_splits=sets)
    kept = {name: examples for name, examples in data.splits.items() if name != TEACHER_TRAIN}
    return dataclasses.replace(data, splits=kept | {"train": data.splits[TEACHER_TRAIN]})


def make_teacher(task: str, target: Path | None, reporter: Reporter) -> dict[str, dict[str, float]]:
    """Train the tiny models of a task and write them in half precision, each with a card: checksums, scores, origin.

    Args:
        task: a task with synthetic data.
        target: parent folder of the models; None is the package's own.
        reporter: shows the progress.

    Returns:
        for each model made, its mean score on each test set.

    Raises:
        BenchError: unknown task, or the folder cannot be written.
    """
    config, method = resolve(
        preset="tiny",
        task=task,
        method="sft",
        device="cpu",
        assignments=["models.teacher=scratch", "models.student=scratch", "models.tokenizer=trained"],
    )
    workshop = Workshop(ArtifactCache(default_root(), reporter.note), reporter)
    sides: dict[Side, tuple[Path, TrainingConfig]] = {"teacher": (shipped_teacher(task), config.teacher_training)}
    if task in PRETRAINED_STUDENTS:
        sides["student"] = (shipped_student(task), PRETRAINING)
    scores = {}
    with reporter.session(["data", *sides, "evaluation"]):
        with reporter.stage("data"):
            context = prepare(config, method, workshop.cache, data=_teachers_data(task))
        made = {}
        for side, (_, training) in sides.items():
            with reporter.stage(side):
                label = "teacher" if side == "teacher" else "pretrained student"
                made[side] = stages.fine_tuned(context, workshop, side, training, stages.TEACHER_SEED, label)
        with reporter.stage("evaluation"):
            for side, (shipped, training) in sides.items():
                folder = target / shipped.name if target else shipped
                scores[side] = _write(context, workshop, made[side], folder, training)
    return {str(side): found for side, found in scores.items()}


def _write(
    context: RunContext, workshop: Workshop, made: Path, folder: Path, training: TrainingConfig
) -> dict[str, float]:
    shutil.rmtree(folder, ignore_errors=True)
    stages.load(context, str(made), torch.float16).save(folder)
    found = stages.scores(context, workshop, str(folder), "shipped-model")
    history = read_json(made / "training.json")
    result = {name: round(one.primary.mean, 4) for name, one in found.items()}
    card: dict[str, Any] = {
        "task": context.config.task,
        "made_by": f"bench make-teachers {context.config.task}",
        "metric": context.metric_infos[0].signature,
        "scores": result,
        "files": {p.name: sha256_of(p) for p in sorted(folder.iterdir())},
        "training": training.model_dump(mode="json"),
        "validations": history["validations"],
        "seconds": round(sum(history["seconds"].values()), 1),
        "environment": describe(torch.device("cpu")).model_dump(include={"cpu", "threads", "packages"}),
    }
    write_json(folder / CARD, card)
    return result


def shipped(task: str) -> list[Path]:
    """Folders of all models that ship for a task."""
    return [shipped_teacher(task), *([shipped_student(task)] if task in PRETRAINED_STUDENTS else [])]


def intact(task: str) -> bool:
    """Whether the shipped models of a task have the checksums of their cards."""
    try:
        for folder in shipped(task):
            files: dict[str, str] = read_json(folder / CARD)["files"]
            if any(sha256_of(folder / name) != checksum for name, checksum in files.items()):
                return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True
