"""A queue of questions to the local server, without any run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.judge.answers import AnswerCache
from bench.judge.budget import Prices
from bench.judge.messages import Judge, Request
from bench.judge.protocol import Protocol
from bench.judge.queue import JudgeQueue, Question

PRICES = Prices(1e4, 1e4)  # the server's answer costs 1.03, and a request about 12 at most


class LocalQueue(JudgeQueue):
    """Knows nothing but what is on disk; `notes` holds what it told the user."""

    def __init__(self, url: str, folder: Path, **judge: Any) -> None:
        self.notes: list[str] = []
        answers = AnswerCache(folder, self.notes.append)
        super().__init__(Judge("m", url, **judge), Protocol("rating"), answers, reasks=2)


def questions(count: int) -> list[Question]:
    """So many different ones."""
    return [Question(f"question {i}", f"answer {i}", f"other {i}") for i in range(count)]


def upper_bound(queue: JudgeQueue, question: Question) -> float:
    """The most it can cost to ask a question once."""
    request = queue.resolve(question)
    return PRICES.upper_bound(request if isinstance(request, Request) else queue.request(question, 0))
