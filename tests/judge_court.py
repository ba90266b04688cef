"""A court that asks the local server, without any run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.judge.answers import AnswerCache
from bench.judge.budget import Prices
from bench.judge.messages import Judge, Request
from bench.judge.protocol import Protocol
from bench.judge.runner import Court, Question
from bench.judge.unpaid import Ledger

PRICES = Prices(1e4, 1e4)  # the server's answer costs 1.03, and a request about 12 at most


class LocalCourt(Court):
    """Knows nothing but what is on disk; `said` holds what it told."""

    def __init__(self, url: str, folder: Path, **judge: Any) -> None:
        self.said: list[str] = []
        cache = AnswerCache(folder, self.said.append)
        super().__init__(Judge("m", url, **judge), Protocol("rating"), cache, Ledger(folder), reasks=2)


def questions(count: int) -> list[Question]:
    """So many different ones."""
    return [Question(f"question {i}", f"answer {i}", f"other {i}") for i in range(count)]


def most(court: Court, question: Question) -> float:
    """The most it can cost to ask a question once."""
    request = court.look(question)
    return PRICES.most(request if isinstance(request, Request) else court.request(question, 0))
