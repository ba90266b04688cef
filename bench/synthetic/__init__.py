"""The small data that ships as code: three tasks in the shape of Dolly, SAMSum and IWSLT 2017.

Grammars of our own make it. The same seed gives the same data on every machine; a prompt of the evaluation sets has
several right answers; no prompt is in two splits. `dolly/`, `samsum/` and `iwslt/` make the records of a task each,
`plain_text.py` makes prose, `world/` holds the facts that the English texts tell.
Tiny teachers trained on the split `teacher_train`, and pretrained students, ship beside it (`models/`, made by `bench
make-teachers`).
"""

from __future__ import annotations

import copy
import functools
from importlib import resources
from pathlib import Path
from random import Random
from typing import Any

from bench.synthetic import plain_text
from bench.synthetic.dolly.records import generate as generate_dolly
from bench.synthetic.iwslt.records import generate as generate_iwslt
from bench.synthetic.samsum.records import generate as generate_samsum

PLAIN_TEXT_TASKS = ("dolly", "samsum")
"""Tasks that plain text is generated for: those that answer in its language, English."""

_GENERATORS = {"dolly": generate_dolly, "samsum": generate_samsum, "iwslt": generate_iwslt}


def generate(task: str, splits: tuple[str, ...], seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Raw records of the splits of a task, with the column names of the data set it stands in for.

    Raises:
        KeyError: unknown task or split.
    """
    return {split: copy.deepcopy(_records(task, split, seed)) for split in splits}


@functools.cache  # seconds a split, and one process may make many runs
def _records(task: str, split: str, seed: int) -> list[dict[str, Any]]:
    return _GENERATORS[task](split, seed)


def reading(task: str) -> dict[str, list[str]]:
    """What the pretrained student of a task has read: prose and, among it, prompts of the teachers without responses.

    Returns:
        texts by split, `train` and `validation`; no prompt is of a split that runs use.

    Raises:
        KeyError: a task that no plain text is generated for.
    """
    if task not in PLAIN_TEXT_TASKS:
        raise KeyError(task)
    records = _records(task, "teacher_train", 0)
    if task == "samsum":
        prompts = [record["dialogue"] for record in records]
    else:
        prompts = [f"{record['instruction']}\n{record['context']}".strip() for record in records]
    texts = prompts + plain_text.generate(12_000, seed=7)
    Random(0).shuffle(texts)
    return {"train": texts, "validation": plain_text.generate(200, seed=1)}


STUDENTS = {"shipped": "student", "shipped-small": "student-small"}
"""What a configuration calls the pretrained tiny students, and what their folders' names end in."""


def shipped_student(task: str, name: str = "shipped") -> Path:
    """Folder of a pretrained tiny student of a task, with its tokenizer; not every task has the small one.

    Raises:
        KeyError: no name in `STUDENTS`.
    """
    return shipped_teacher(f"{task}-{STUDENTS[name]}")


TEACHERS = {"shipped": "", "shipped-early": "-teacher-early"}
"""What a configuration calls the tiny teachers, and what their folders' names add to the task's."""


def shipped_teacher(task: str, name: str = "shipped") -> Path:
    """Folder of a tiny teacher, with its tokenizer, for the synthetic data of a task; the early one is Dolly's alone.

    Raises:
        KeyError: no name in `TEACHERS`.
    """
    return Path(str(resources.files("bench") / "synthetic" / "models" / f"{task}{TEACHERS[name]}"))
