"""The text that pretrained students have read: no prompt of a test set, hardly a response."""

from __future__ import annotations

import pytest

from bench.data import TASKS
from bench.synthetic import PLAIN_TEXT_TASKS, generate, reading


@pytest.mark.parametrize("task", PLAIN_TEXT_TASKS)
def test_what_is_tested_was_not_read(task):
    splits = ("validation", "test", *TASKS[task].evaluation_sets)
    text = "\n".join(one for texts in reading(task).values() for one in texts)
    rows = [row for records in generate(task, splits).values() for row in records]
    prompts = [
        row["dialogue"] if task == "samsum" else f"{row['instruction']}\n{row['context']}".strip() for row in rows
    ]
    assert not [prompt for prompt in prompts if f"\n{prompt}\n" in f"\n{text}\n"]
    responses = [row["summary" if task == "samsum" else "response"] for row in rows]
    assert sum(response in text for response in responses) <= len(rows) / 50


def test_a_task_without_plain_text():
    with pytest.raises(KeyError):
        reading("iwslt")
