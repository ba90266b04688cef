"""Tasks as data: what each consists of (`find_task`), and loading its examples (`load_task`)."""

from bench.data.examples import DataError, Example, Message, TaskData, references_hash
from bench.data.load import load_task, require_source, template_name
from bench.data.registry import TASKS, find_task, task_of, tasks
from bench.data.task import SPLITS, EvaluationOnlySet, HubSource, SplitSizes, TaskSpec, format_prompt

__all__ = [
    "SPLITS",
    "TASKS",
    "DataError",
    "EvaluationOnlySet",
    "Example",
    "HubSource",
    "Message",
    "SplitSizes",
    "TaskData",
    "TaskSpec",
    "find_task",
    "format_prompt",
    "load_task",
    "references_hash",
    "require_source",
    "task_of",
    "tasks",
    "template_name",
]
