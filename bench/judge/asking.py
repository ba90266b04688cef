"""Getting every question answered: what is on disk is not asked, what cannot be read is asked again, in parallel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench.judge.cache import AnswerCache
from bench.judge.client import Client
from bench.judge.cost import Purse
from bench.judge.protocol import Outcome, Protocol, Verdict
from bench.judge.requests import Answer, Judge, Request

_GRACE_SECONDS = 10.0  # after Ctrl-C or an error, for requests on their way: their answers are paid for


@dataclass(frozen=True)
class Question:
    """Two responses to a request, in one order, to be judged once.

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
    """What came of a question: its last answer, the requests that led to it, and the verdict if there is one."""

    outcome: Outcome
    verdict: Verdict | None
    answers: tuple[Answer, ...]
    keys: tuple[str, ...]


class Court:
    """Questions to one judge under one protocol, and the answers so far.

    Args:
        judge: who is asked.
        protocol: what is asked.
        cache: where answers are kept.
        reasks: how often a question is put again whose answer cannot be read.
    """

    def __init__(self, judge: Judge, protocol: Protocol, cache: AnswerCache, reasks: int) -> None:
        self.judge, self.protocol, self.cache, self.reasks = judge, protocol, cache, reasks

    def request(self, question: Question, attempt: int) -> Request:
        """The request that puts a question."""
        messages = self.protocol.messages(question.prompt, question.first, question.second, again=attempt > 0)
        return Request(self.judge, messages, question.repeat, attempt)

    def look(self, question: Question) -> Request | Reading:
        """The request to be made next for a question, or what came of it if it needs none."""
        answers: list[Answer] = []
        keys: list[str] = []
        for attempt in range(self.reasks + 1):
            request = self.request(question, attempt)
            answer = self.cache.get(request.key)
            if answer is None:
                return request
            answers.append(answer)
            keys.append(request.key)
            outcome, verdict = self.protocol.read(answer)
            if outcome != Outcome.UNPARSABLE:
                break
        return Reading(outcome, verdict, tuple(answers), tuple(keys))

    def pending(self, questions: Iterable[Question]) -> list[Request]:
        """The requests to be made next, for each different question once."""
        looked = (self.look(question) for question in dict.fromkeys(questions))
        return [one for one in looked if isinstance(one, Request)]


async def ask_all(
    court: Court,
    client: Client,
    questions: Iterable[Question],
    purse: Purse,
    *,
    concurrency: int,
    progress: Callable[[int, int], None],
) -> None:
    """Have every question answered, each different one once.

    Args:
        court: holds the answers.
        client: asks.
        questions: any number.
        purse: pays.
        concurrency: requests on their way at once.
        progress: told questions done, and in all.

    Raises:
        BenchError: the server cannot or will not answer; what it did answer is kept.
    """
    waiting = list(dict.fromkeys(questions))
    total, done, stopped = len(waiting), 0, False
    waiting.reverse()

    async def work() -> None:
        nonlocal done
        while waiting and not stopped:
            question = waiting.pop()
            while not stopped and isinstance(request := court.look(question), Request):
                await _ask(court, client, request, purse)
            done += 1
            progress(done, total)

    workers = [asyncio.create_task(work()) for _ in range(min(concurrency, total))]
    if not workers:
        return
    try:
        # not `gather`: cancelled by Ctrl-C, it would cancel the workers, and what they have paid for would be lost
        ended, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
        for worker in ended:
            worker.result()
    except BaseException:
        stopped = True
        _, late = await asyncio.wait(workers, timeout=_GRACE_SECONDS)
        for worker in late:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        raise


async def _ask(court: Court, client: Client, request: Request, purse: Purse) -> None:
    async with court.cache.claim(request.key):
        if court.cache.get(request.key) is not None:  # another process asked in the meantime
            return
        reserved = purse.reserve(request)
        answer = await client.ask(request)
        court.cache.put(request, answer)
        purse.settle(reserved, answer)
