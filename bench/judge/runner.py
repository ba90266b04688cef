"""Getting every question answered: what is on disk is not asked, what cannot be read is asked again, in parallel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench.judge.answers import AnswerCache
from bench.judge.budget import Prices, Purse
from bench.judge.client import Client, Rejected, no_answer
from bench.judge.messages import Answer, Judge, Request
from bench.judge.protocol import Outcome, Protocol, Verdict
from bench.judge.unpaid import Ledger

_REJECTIONS = 10  # so many, and not one answer: it is not the questions


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
        ledger: where requests without an answer are written down.
        reasks: how often a question is put again whose answer cannot be read.
    """

    def __init__(self, judge: Judge, protocol: Protocol, cache: AnswerCache, ledger: Ledger, reasks: int) -> None:
        self.judge, self.protocol, self.cache, self.ledger, self.reasks = judge, protocol, cache, ledger, reasks

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

    def spent(self, questions: Iterable[Question], prices: Prices | None) -> float:
        """What the questions have cost so far, with what may have been paid for in vain."""
        if prices is None:
            return 0.0
        found = 0.0
        for question in dict.fromkeys(questions):
            for attempt in range(self.reasks + 1):
                request = self.request(question, attempt)
                answer = self.cache.get(request.key)
                found += self.ledger.count(request.key) * prices.most(request)
                if answer is None:
                    break
                found += prices.paid(request, answer)
        return found


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
    total, done = len(waiting), 0
    answered = total > len(court.pending(waiting))
    rejected: list[tuple[Request, Rejected]] = []
    waiting.reverse()

    async def work() -> None:
        nonlocal done
        while waiting and not client.stopped:
            question = waiting.pop()
            while not client.stopped and isinstance(request := court.look(question), Request):
                try:
                    await _ask(court, client, request, purse)
                except Rejected as error:  # perhaps this one only: the others will tell
                    rejected.append((request, error))
                    if len(rejected) == _REJECTIONS and not (answered or client.answered):
                        raise
                    break
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
        await _wind_up(client, workers)
        raise
    if not rejected:
        return
    if not (answered or client.answered):
        raise rejected[0][1]
    client.note(f"{len(rejected)} questions count as rejected, the first of them because {rejected[0][1]}")
    for request, _ in rejected:  # for now only: it has cost nothing, and the server may be told to accept it
        court.cache.remember(request.key, no_answer(Outcome.REJECTED, court.judge.model))


async def _wind_up(client: Client, workers: list[asyncio.Task[None]]) -> None:
    """Wait for the requests on their way, each of which ends within its timeout: their answers may be paid for."""
    client.stopped = True
    late = [worker for worker in workers if worker in client.sending]
    for worker in workers:
        if worker not in client.sending:
            worker.cancel()
    if late:
        client.note(f"waiting for {len(late)} answers on their way, {client.timeout:g} s at most; Ctrl-C gives them up")
    await asyncio.gather(*workers, return_exceptions=True)


async def _ask(court: Court, client: Client, request: Request, purse: Purse) -> None:
    async with court.cache.claim(request.key):
        answer = court.cache.get(request.key)
        if answer is not None:  # another process asked in the meantime
            purse.spent += purse.price(request, answer)
            return
        answer = await client.ask(request, purse)
        court.cache.put(request, answer)
        purse.settle(request, answer)
