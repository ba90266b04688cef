"""Tasks as data: what each consists of (`TASKS`), and loading its examples (`load_task`)."""

from bench.data.examples import DataError, Example, TaskData
from bench.data.load import load_task
from bench.data.task import (
    SPLITS,
    TASKS,
    Column,
    EvaluationSet,
    HubSource,
    TaskSpec,
    Template,
    format_prompt,
)

__all__ = [
    "SPLITS",
    "TASKS",
    "Column",
    "DataError",
    "EvaluationSet",
    "Example",
    "HubSource",
    "TaskData",
    "TaskSpec",
    "Template",
    "format_prompt",
    "load_task",
]
