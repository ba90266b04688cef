"""The batch API: nothing is sent twice and nothing is stuck, whatever goes wrong in between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bench.judge import batches as batches_module
from bench.judge import client as client_module
from bench.judge.batches import Batches
from bench.judge.budget import Budget
from bench.judge.client import Client
from bench.judge.protocol import Outcome
from bench.judge.queue import Question, Reading
from bench.system.errors import BenchError
from tests.judge_queue import PRICES, LocalQueue, questions, upper_bound
from tests.judge_server import Handler, JudgeServer, judge_server

ASKED = questions(10)


@pytest.fixture
def server():
    with judge_server() as running:
        yield running


@pytest.fixture
def new_queue(server, tmp_path, monkeypatch):
    """A function that makes a queue which knows nothing but what is on disk."""
    monkeypatch.setattr(client_module, "FIRST_WAIT", 0.02)
    return lambda url=server.url: LocalQueue(url, tmp_path)


async def asking(queue: LocalQueue, asked: list[Question], *, limit: float | None = None, retries: int = 4) -> None:
    client = Client(queue.judge, None, timeout=5.0, retries=retries, note=queue.notes.append)
    async with client.api:
        budget = Budget(queue.answers, PRICES, limit)
        await Batches(queue, client, budget, poll=0.02).ask_all(asked, lambda done, total: None)


def ask(queue: LocalQueue, asked: list[Question] = ASKED, **options: Any) -> LocalQueue:
    asyncio.run(asking(queue, asked, **options))
    return queue


def sizes(server: JudgeServer) -> list[int]:
    return [len(server.sent_in(batch)) for batch in server.batches.values()]


def noted(queue: LocalQueue) -> list[object]:
    return list((queue.answers.root / batches_module.FOLDER).glob("*.json"))


def scored(queue: LocalQueue, asked: list[Question] = ASKED) -> int:
    readings = [queue.resolve(question) for question in asked]
    return sum(isinstance(reading, Reading) and reading.outcome == Outcome.SCORED for reading in readings)


def test_everything_is_answered_once_though_some_lines_fail(server, new_queue):
    failed = {"status_code": 500, "body": {"error": {"message": "oops"}}}
    server.batch_line = lambda batch, number: failed if batch == "batch-0" and number in (3, 7) else None
    queue = ask(new_queue())
    assert scored(queue) == 10
    assert sizes(server) == [10, 2]
    assert set(server.answered.values()) == {1}
    assert server.asked.total() == 0
    assert noted(queue) == []
    assert queue.spent(ASKED, PRICES) == pytest.approx(10 * 1.03)


def test_what_does_not_fit_one_batch_goes_into_several(server, new_queue, monkeypatch):
    monkeypatch.setattr(batches_module, "LARGEST", 4)
    assert scored(ask(new_queue())) == 10
    assert sizes(server) == [4, 4, 2]


def test_a_batch_whose_answer_was_lost_is_not_sent_again(server, new_queue):
    server.batch_fault = lambda handler, what: (
        what == "created" and len(server.batches) == 1 and handler.hang_up() is None
    )
    assert scored(ask(new_queue())) == 10
    assert sizes(server) == [10]


def test_a_batch_that_was_sent_is_found_again_though_its_sender_never_heard_of_it(server, new_queue):
    server.batch_fault = lambda handler, what: what in ("created", "list") and handler.hang_up() is None
    with pytest.raises(BenchError, match="the same command"):
        ask(new_queue())
    assert len(noted(new_queue())) == 1
    server.batch_fault = lambda handler, what: False
    queue = ask(new_queue())
    assert scored(queue) == 10
    assert sizes(server) == [10]
    assert noted(queue) == []


def test_a_batch_that_is_refused_is_forgotten(server, new_queue):
    def fault(handler: Handler, what: str) -> bool:
        if what == "created":
            server.batches["batch-0"] |= {"status": "failed", "errors": {"data": [{"message": "model not allowed"}]}}
        return False

    server.batch_fault = fault
    with pytest.raises(BenchError, match="refused the batch: model not allowed"):
        ask(new_queue())
    server.batch_fault = lambda handler, what: False
    assert scored(ask(new_queue())) == 10
    assert sizes(server) == [10, 10]


def test_a_batch_that_the_server_has_lost_is_forgotten(server, new_queue):
    server.batch_fault = lambda handler, what: (
        what == "look" and len(server.batches) == 1 and handler.error(404, "no such batch") is None
    )
    queue = ask(new_queue())
    assert "no longer knows batch batch-0" in " ".join(queue.notes)
    assert scored(queue) == 10
    assert sizes(server) == [10, 10]


def test_faults_that_pass_do_not_end_the_waiting(server, new_queue):
    gone: dict[str, int] = {}

    def fault(handler: Handler, what: str) -> bool:
        gone[what] = gone.get(what, 0) + 1
        if gone[what] > 3:
            return False
        if gone[what] == 1:
            handler.error(429, "slow down", Retry_After="0.1")
        elif gone[what] == 2:
            handler.error(500, "oops")
        else:
            handler.hang_up()
        return True

    server.batch_fault = fault
    assert scored(ask(new_queue())) == 10
    assert sizes(server) == [10]
    assert gone.pop("created") == 1, "found instead"
    assert min(gone[what] for what in ("upload", "list", "look", "content")) > 3


def test_a_key_that_is_refused_is_told_of(server, new_queue):
    server.batch_fault = lambda handler, what: handler.error(401, "no key") is None
    with pytest.raises(BenchError, match="says 401: no key"):
        ask(new_queue())


def test_one_server_is_known_by_every_spelling_of_its_address(server, new_queue):
    server.batch_fault = lambda handler, what: what == "look" and handler.error(401, "not now") is None
    with pytest.raises(BenchError, match="says 401"):
        ask(new_queue())
    server.batch_fault = lambda handler, what: False
    assert scored(ask(new_queue(server.url.replace("http", "HTTP") + "/"))) == 10
    assert sizes(server) == [10]


def test_two_at_a_time_send_each_question_once(server, new_queue):
    async def both() -> None:
        await asyncio.gather(*(asking(queue, ASKED) for queue in queues))

    queues = [new_queue(), new_queue()]
    asyncio.run(both())
    assert [scored(queue) for queue in queues] == [10, 10]
    assert sizes(server) == [10]
    assert sum("another process has batches" in " ".join(queue.notes) for queue in queues) == 1


@pytest.mark.parametrize("line", [{}, {"status_code": 200, "body": {"choices": []}}])
def test_a_line_that_is_no_answer_is_asked_for_again_and_may_have_been_paid_for(server, new_queue, line):
    server.batch_line = lambda batch, number: line if batch == "batch-0" and number == 4 else None
    queue = ask(new_queue())
    assert scored(queue) == 10
    assert sizes(server) == [10, 1]
    assert queue.spent(ASKED, PRICES) == pytest.approx(10 * 1.03 + upper_bound(queue, ASKED[4]))


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        ({"code": "context_length_exceeded", "message": "x"}, Outcome.TOO_LONG),
        ({"code": "invalid_prompt", "message": "x"}, Outcome.FILTERED),
        ({"message": "something else"}, Outcome.REJECTED),
    ],
)
def test_one_question_that_is_turned_down_does_not_keep_the_others(server, new_queue, error, outcome):
    server.batch_line = lambda batch, number: {"status_code": 400, "body": {"error": error}} if number == 4 else None
    queue = ask(new_queue())
    assert queue.resolve(ASKED[4]).outcome == outcome
    assert scored(queue) == 9
    assert sizes(server) == [10]


def test_a_server_that_fails_every_line_is_told_of(server, new_queue):
    server.batch_line = lambda batch, number: {"status_code": 400, "body": {"error": {"message": "temperature"}}}
    with pytest.raises(BenchError, match=r"10 questions failed in 3 batches .* 400: temperature"):
        ask(new_queue())
    assert sizes(server) == [10] * 3


def test_a_limit_is_kept(server, new_queue):
    queue = new_queue()
    price = upper_bound(queue, ASKED[0])
    with pytest.raises(BenchError, match="--max-cost"):
        ask(queue, limit=price / 2)
    assert server.batches == {}
    with pytest.raises(BenchError, match="--max-cost"):
        ask(queue, limit=1.5 * price)  # one after the other: each turns out cheaper than it might
    answered = server.answered.total()
    assert 2 < answered < 10
    assert queue.spent(ASKED, PRICES) == pytest.approx(answered * 1.03)
    with pytest.raises(BenchError, match="--max-cost"):
        ask(new_queue(), limit=1.5 * price)
    assert server.answered.total() == answered
    assert scored(ask(new_queue(), limit=100)) == 10
    assert set(server.answered.values()) == {1}
