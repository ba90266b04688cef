"""Which questions are answered and which request comes next, as far as the answers on disk tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bench.judge.answers import AnswerCache
from bench.judge.budget import Prices
from bench.judge.messages import Answer, Judge, Request
from bench.judge.protocol import Outcome, Protocol, Verdict


@dataclass(frozen=True)
class Question:
    """Two responses to one prompt, in one order, to be judged once.

    Args:
        prompt: what the assistants were asked.
        first: the response shown first.
        second: the response shown second.
        repeat: which of several independent judgements.
    """

    prompt: str
    first: str
    second: str
    repeat: int = 0


@dataclass(frozen=True)
class Reading:
    """How a question ended.

    Attributes:
        outcome: of the last answer.
        verdict: None unless the outcome is `SCORED`.
        answers: all of them; each but the last could not be read.
        keys: of the requests they answer.
    """

    outcome: Outcome
    verdict: Verdict | None
    answers: tuple[Answer, ...]
    keys: tuple[str, ...]


class JudgeQueue:
    """The questions to one judge under one protocol.

    Args:
        judge: who is asked.
        protocol: what is asked.
        answers: where answers are kept, and requests without one counted.
        reasks: how often a question is asked again whose answer cannot be read.
    """

    def __init__(self, judge: Judge, protocol: Protocol, answers: AnswerCache, reasks: int) -> None:
        self.judge, self.protocol, self.answers, self.reasks = judge, protocol, answers, reasks

    def request(self, question: Question, attempt: int) -> Request:
        """The request that asks a question for the first time (`attempt` 0) or again."""
        messages = self.protocol.messages(question.prompt, question.first, question.second, again=attempt > 0)
        return self.judge.request(messages, question.repeat, attempt)

    def resolve(self, question: Question) -> Reading | Request:
        """How a question ended, or the request that is to be made next for it."""
        answers: list[Answer] = []
        keys: list[str] = []
        for request, answer in self._attempts(question):
            if answer is None:
                return request
            answers.append(answer)
            keys.append(request.key)
            outcome, verdict = self.protocol.read(answer)
            if outcome != Outcome.UNPARSABLE:
                break
        return Reading(outcome, verdict, tuple(answers), tuple(keys))

    def pending(self, questions: Iterable[Question]) -> list[Request]:
        """The next requests for all questions that have not ended, each distinct question once."""
        resolved = (self.resolve(question) for question in dict.fromkeys(questions))
        return [request for request in resolved if isinstance(request, Request)]

    def answered(self, question: Question) -> Iterator[tuple[Request, Answer]]:
        """The requests for a question that have an answer."""
        return ((request, answer) for request, answer in self._attempts(question) if answer is not None)

    def spent(self, questions: Iterable[Question], prices: Prices) -> float:
        """What the questions have cost so far, unanswered requests included."""
        total = 0.0
        for question in dict.fromkeys(questions):
            for request, answer in self._attempts(question):
                total += self.answers.unanswered(request.key) * prices.upper_bound(request)
                if answer is not None:
                    total += prices.paid(request, answer)
        return total

    def _attempts(self, question: Question) -> Iterator[tuple[Request, Answer | None]]:
        """The requests for a question with their answers, up to the first that has none."""
        for attempt in range(self.reasks + 1):
            request = self.request(question, attempt)
            answer = self.answers.get(request.key)
            yield request, answer
            if answer is None:
                return
