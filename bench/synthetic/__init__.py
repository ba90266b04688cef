"""The small data that ships as code: three tasks in the shape of Dolly, SAMSum and IWSLT 2017.

Made by grammars of our own, deterministic from a seed; several right answers to every prompt, no prompt in two splits.
Tiny teachers trained on the split `teacher_train` ship beside it (`models/`, made by `bench make-teachers`).
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from bench.synthetic import dolly, iwslt, samsum

PLAIN_TEXT_TASKS = ("dolly", "samsum")
"""Tasks that plain text is generated for: those that answer in its language, English."""

_GENERATORS = {"dolly": dolly.generate, "samsum": samsum.generate, "iwslt": iwslt.generate}


def generate(task: str, splits: tuple[str, ...], seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Raw records of the splits of a task, with the column names of the data set it stands in for."""
    return _GENERATORS[task](seed=seed, splits=splits)


def shipped_student(task: str) -> Path:
    """Folder of the pretrained tiny student of a task whose student would learn too little from scratch."""
    return shipped_teacher(f"{task}-student")


def shipped_teacher(task: str) -> Path:
    """Folder of the tiny teacher, with its tokenizer, that ships for the synthetic data of a task."""
    return Path(str(resources.files("bench") / "synthetic" / "models" / task))
