"""Asks many questions at once: nothing that is on disk, and again what could not be read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from bench.judge.budget import Budget
from bench.judge.client import Client, Rejected, placeholder
from bench.judge.messages import Request
from bench.judge.protocol import Outcome
from bench.judge.queue import JudgeQueue, Question

_MAX_REJECTIONS = 10  # so many without a single answer: the cause is not in the questions


async def ask_all(
    queue: JudgeQueue,
    client: Client,
    questions: Iterable[Question],
    budget: Budget,
    *,
    concurrency: int,
    progress: Callable[[int, int], None],
) -> None:
    """Have every question answered, each distinct one once.

    Args:
        queue: knows what is still to be asked.
        client: sends the requests.
        questions: any number.
        budget: pays for them.
        concurrency: requests in flight at once.
        progress: called with the number of questions done and their total.

    Raises:
        BenchError: the server cannot or will not answer, or the budget does not suffice. Answers so far are kept.
    """
    remaining = list(dict.fromkeys(questions))
    total, done = len(remaining), 0
    some_on_disk = total > len(queue.pending(remaining))
    rejected: list[tuple[Request, Rejected]] = []
    paid = {request.key for question in remaining for request, _ in queue.answered(question)}
    remaining.reverse()

    async def work() -> None:
        nonlocal done
        while remaining and not client.stopped:
            question = remaining.pop()
            while not client.stopped and isinstance(request := queue.resolve(question), Request):
                try:
                    if await _ask(queue, client, request, budget):
                        paid.add(request.key)
                except Rejected as error:  # perhaps only this one: the others will show
                    rejected.append((request, error))
                    if len(rejected) == _MAX_REJECTIONS and not (some_on_disk or client.answered):
                        raise
                    break
            for request, answer in queue.answered(question):
                if request.key not in paid:  # another process has asked in the meantime
                    paid.add(request.key)
                    budget.spent += budget.prices.paid(request, answer)
            done += 1
            progress(done, total)

    workers = [asyncio.create_task(work()) for _ in range(min(concurrency, total))]
    if not workers:
        return
    try:
        # not `gather`: on Ctrl-C it would cancel the workers, and answers that were paid for would be lost
        ended, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
        for worker in ended:
            worker.result()
    except BaseException:
        await _wind_up(client, workers)
        raise
    if not rejected:
        return
    if not (some_on_disk or client.answered):
        raise rejected[0][1]
    client.note(f"{len(rejected)} questions count as rejected, the first of them because {rejected[0][1]}")
    for request, _ in rejected:  # for this process only: it cost nothing, and the server may accept it next time
        queue.answers.remember(request.key, placeholder(Outcome.REJECTED, queue.judge.model))


async def _wind_up(client: Client, workers: list[asyncio.Task[None]]) -> None:
    """Wait for the requests in flight, each of which ends within its timeout: their answers may have been billed."""
    client.stopped = True
    sending = [worker for worker in workers if worker in client.sending]
    for worker in workers:
        if worker not in client.sending:
            worker.cancel()
    if sending:
        client.note(f"waiting up to {client.timeout:g} s for {len(sending)} answers in flight; Ctrl-C gives them up")
    await asyncio.gather(*workers, return_exceptions=True)


async def _ask(queue: JudgeQueue, client: Client, request: Request, budget: Budget) -> bool:
    """Whether it was asked here; else another process did so in the meantime."""
    async with queue.answers.claim(request.key):
        if queue.answers.get(request.key) is not None:
            return False
        answer = await client.ask(request, budget)
        queue.answers.put(request, answer)
        budget.settle(request, answer)
        return True
