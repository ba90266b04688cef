"""The tiny teachers that ship with the package: how they are made, and whether the files are still those."""

from __future__ import annotations

import dataclasses
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from bench import models
from bench.artifacts import ArtifactCache, default_root
from bench.config import resolve
from bench.display import Reporter
from bench.embedded import shipped_teacher
from bench.environment import describe
from bench.experiment import TEACHER_SEED, Experiment
from bench.files import read_json, sha256_of, write_json
from bench.tasks import SPLITS, TASKS, TaskData, load_task

CARD = "teacher.json"
TEACHER_TRAIN = "teacher_train"


class _TeacherExperiment(Experiment):
    """Trains on the embedded data's large split for teachers in place of the distillation set."""

    @cached_property
    def data(self) -> TaskData:
        """The task's examples, with `teacher_train` as the training set."""
        sets = (*SPLITS, TEACHER_TRAIN, *TASKS[self.config.task].evaluation_sets)
        splits = load_task(self.config.task, embedded_splits=sets)
        kept = {name: examples for name, examples in splits.splits.items() if name != TEACHER_TRAIN}
        return dataclasses.replace(splits, splits=kept | {"train": splits.splits[TEACHER_TRAIN]})


def make_teacher(task: str, target: Path | None, reporter: Reporter) -> dict[str, float]:
    """Train the tiny teacher of a task and write it in half precision, with a card: checksums, scores, how it was made.

    Args:
        task: a task with embedded data.
        target: parent folder of the teachers; None is the package's own.
        reporter: shows the progress.

    Returns:
        its mean score on each test set.

    Raises:
        BenchError: unknown task, or the folder cannot be written.
    """
    config, method = resolve(
        preset="tiny",
        task=task,
        method="sft",
        device="cpu",
        assignments=["models.teacher=scratch", "models.tokenizer=trained"],
    )
    experiment = _TeacherExperiment(config, method, ArtifactCache(default_root(), reporter.note), reporter)
    folder = target / task if target else shipped_teacher(task)
    with reporter.session(["data", "teacher", "evaluation"]):
        with reporter.stage("data"):
            experiment.sequences  # noqa: B018  generate and encode
        with reporter.stage("teacher"):
            made = experiment.fine_tuned("teacher", config.teacher_training, TEACHER_SEED, "teacher")
        with reporter.stage("evaluation"):
            shutil.rmtree(folder, ignore_errors=True)
            models.save_model(models.load_model(str(made), config.models.kind, torch.float16), experiment.codec, folder)
            (folder / "training_args.bin").unlink(missing_ok=True)
            scores = experiment.scores_of(str(folder), "teacher")
    environment = describe(torch.device("cpu"))
    card: dict[str, Any] = {
        "task": task,
        "made_by": f"bench make-teachers {task}",
        "metric": experiment.signature,
        "scores": {name: round(one["mean"], 4) for name, one in scores.items()},
        "files": {p.name: sha256_of(p) for p in sorted(folder.iterdir())},
        "training": config.teacher_training.model_dump(mode="json"),
        "validations": read_json(made / "training.json")["validations"],
        "seconds": round(sum(read_json(made / "training.json")["seconds"].values()), 1),
        "environment": {key: environment[key] for key in ("cpu", "threads", "packages")},
    }
    write_json(folder / CARD, card)
    result: dict[str, float] = card["scores"]
    return result


def intact(task: str) -> bool:
    """Whether the shipped teacher of a task has the checksums of its card."""
    folder = shipped_teacher(task)
    try:
        files: dict[str, str] = read_json(folder / CARD)["files"]
        return all(sha256_of(folder / name) == checksum for name, checksum in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
