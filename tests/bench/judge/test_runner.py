"""Asking: a real server that misbehaves, what is kept of its answers, and what they are taken to have cost."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from bench.judge import client as client_module
from bench.judge.answers import UNANSWERED
from bench.judge.budget import Budget, Prices
from bench.judge.client import Client, retry_after
from bench.judge.messages import Judge
from bench.judge.protocol import Outcome
from bench.judge.queue import Question, Reading
from bench.judge.runner import ask_all
from bench.system.errors import BenchError
from tests.judge_queue import PRICES, LocalQueue, questions, upper_bound
from tests.judge_server import Handler, judge_server, rating


@pytest.fixture
def server():
    with judge_server() as running:
        yield running


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(client_module, "FIRST_WAIT", 0.02)


@pytest.fixture
def new_queue(server, tmp_path) -> Callable[..., LocalQueue]:
    return lambda **judge: LocalQueue(server.url, tmp_path, **judge)


async def asking(
    queue: LocalQueue,
    asked: Sequence[Question],
    *,
    limit: float | None = None,
    concurrency: int = 8,
    timeout: float = 5.0,
    retries: int = 8,
    key: str | None = None,
) -> Budget:
    budget = Budget(queue.answers, PRICES, limit, queue.spent(asked, PRICES))
    client = Client(queue.judge, key, timeout=timeout, retries=retries, note=queue.notes.append)
    async with client.api:
        await ask_all(queue, client, asked, budget, concurrency=concurrency, progress=lambda done, total: None)
    return budget


def ask(*arguments: Any, **options: Any) -> Budget:
    return asyncio.run(asyncio.wait_for(asking(*arguments, **options), 120))


def faults(handler: Handler, number: int) -> bool:
    """Half of all requests go wrong, each in its own way."""
    kind = number % 16
    if kind == 1:
        handler.error(429, "slow down", "rate_limit_exceeded", Retry_After="0.05")
    elif kind == 3:
        handler.error(500, "oops")
    elif kind == 5:
        handler.hang_up()
    elif kind == 7:
        handler.send(200, '{"choices": [')
    elif kind == 9:
        handler.send(200, "null")
    elif kind == 11 and number < 160:  # one byte at a time, each in time, the whole too late
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(140):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)
        handler.close_connection = True
    elif kind == 13:
        handler.error(503, "overloaded", None, retry_after_ms="20")
    elif kind == 15:
        handler.answer("11 3")
    else:
        return False
    return True


SECRET = "sk-test-0123456789abcdef"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_redirect_to_another_server_is_not_followed(server, tmp_path, status, host):
    """Not even to the same port under another name: who answers there is not for the first one to say."""
    with judge_server() as other:
        to = (server if host == "localhost" else other).url.replace("127.0.0.1", host)
        server.fault = lambda handler, number: (
            not handler.send(status, "", Location=f"{to}/chat/completions?k={SECRET}")
        )
        queue = LocalQueue(server.url, tmp_path)
        with pytest.raises(BenchError, match=f"redirects to http://{host}:") as error:
            ask(queue, questions(1), key=SECRET)
        assert SECRET not in str(error.value)
        assert (server.asked.total(), other.asked.total()) == (1, 0)
        assert queue.answers.unanswered(queue.request(questions(1)[0], 0).key) == 0, "it has cost nothing"


@pytest.mark.parametrize("location", ["/v2/chat/completions", "{url}/again"])
def test_a_redirect_on_the_same_server_is_followed(server, new_queue, location):
    server.fault = lambda handler, number: (
        handler.path == "/v1/chat/completions" and not handler.send(307, "", Location=location.format(url=server.url))
    )
    queue = new_queue()
    ask(queue, questions(1), key=SECRET)
    assert isinstance(queue.resolve(questions(1)[0]), Reading)
    assert [SECRET in headers["authorization"] for headers in server.headers_seen] == [True, True]


@pytest.mark.parametrize(
    ("url", "location", "followed"),
    [
        ("https://a/v1/x", "http://a/v1/x", False),
        ("https://a/v1/x", "https://a:444/v1/x", False),
        ("https://a/v1/x", "//b/v1/x", False),
        ("https://a/v1/x", "https://user@b/v1/x", False),
        ("https://a/v1/x", "https://a:443/v2/x", True),
        ("http://a/v1/x", "https://a/v1/x", True),
        ("http://a:8000/v1/x", "https://a/v1/x", False),
        ("http://a/v1/x", "http://[::1/x", False),
    ],
)
def test_no_redirect_leads_from_https_to_http(url, location, followed):
    client = Client(Judge("m", "http://a/v1"), None, timeout=1, retries=0, note=print)
    response = SimpleNamespace(has_redirect_location=True, url=url, headers={"location": location})
    with nullcontext() if followed else pytest.raises(BenchError, match="not followed"):
        asyncio.run(client._stay(response))


@pytest.mark.slow
def test_a_thousand_items_under_faults_none_lost_none_paid_twice(server, new_queue, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda file: None)  # half the time, and of use in a power cut only
    server.fault = faults
    asked, queue = questions(1000), new_queue()
    budget = ask(queue, asked, concurrency=32, timeout=5.0, retries=40)
    readings = [queue.resolve(question) for question in asked]
    for question, reading in zip(asked, readings, strict=True):
        assert isinstance(reading, Reading)
        assert reading.verdict in ((rating(question.first), rating(question.second)), None)
    # an answer that could not be read was asked for again, with a reminder, and three such are the end
    wrong = [answer for reading in readings for answer in reading.answers if answer.content == "11 3"]
    assert len(wrong) > 50
    assert sum(reading.verdict is None for reading in readings) < 10
    assert server.answered == Counter(
        json.dumps([message.model_dump() for message in queue.request(question, attempt).messages])
        for question, reading in zip(asked, readings, strict=True)
        for attempt in range(len(reading.answers))
    )
    assert server.asked.total() > 1500, "the faults did happen"
    seen = Counter[str]()
    for reading in readings:
        for answer in reading.answers:
            seen.update(answer.faults)
    assert {"http 429", "http 500", "http 503", "connection", "malformed", "timeout"} == seen.keys()
    lost = sum(len(path.read_bytes()) for path in (queue.answers.root / UNANSWERED).rglob("*") if path.is_file())
    assert lost == seen["connection"] + seen["malformed"] + seen["timeout"]
    assert budget.spent == pytest.approx(new_queue().spent(asked, PRICES)), "what is on disk is what was counted"
    assert budget.spent > 1.03 * server.answered.total() + 10 * lost


@pytest.mark.parametrize(
    ("fault", "paid"),
    [
        (lambda handler: handler.send(200, "null"), True),
        (lambda handler: handler.send(200, "{"), True),
        (lambda handler: handler.hang_up(), True),
        (lambda handler: time.sleep(0.7), True),
        (lambda handler: handler.error(504, "gateway timeout"), True),
        (lambda handler: handler.error(429, "slow down"), False),
        (lambda handler: handler.error(500, "oops"), False),
        (lambda handler: handler.error(503, "overloaded"), False),
    ],
)
def test_what_may_have_been_paid_for_in_vain_is_counted_and_written_down(server, new_queue, fault, paid):
    server.fault = lambda handler, number: number <= 2 and fault(handler) is None
    (question,) = questions(1)
    queue = new_queue()
    price = upper_bound(queue, question)
    budget = ask(queue, [question], timeout=0.5)
    assert server.asked.total() == 3
    assert budget.spent == pytest.approx(1.03 + 2 * price * paid)
    assert new_queue().spent([question], PRICES) == pytest.approx(budget.spent)
    assert new_queue().spent(questions(2)[1:], PRICES) == 0


def test_what_never_reached_a_server_was_not_paid_for(tmp_path, new_queue):
    queue = new_queue()
    queue.judge = Judge("m", "http://127.0.0.1:9/v1")
    with pytest.raises(BenchError, match="cannot reach the judge"):
        ask(queue, questions(1))
    assert queue.spent(questions(1), PRICES) == 0


def test_an_answer_without_usage_costs_the_most_it_can(server, new_queue):
    body = '{"choices": [{"message": {"content": "5 5"}}], "usage": {"prompt_tokens": -100, "completion_tokens": -3}}'
    server.fault = lambda handler, number: handler.send(200, body) is None
    asked = questions(1)
    assert ask(new_queue(), asked).spent == pytest.approx(upper_bound(new_queue(), asked[0]))


def test_a_limit_holds_over_all_commands_that_ask_the_same(server, new_queue):
    asked = questions(60)
    for _ in range(3):
        with pytest.raises(BenchError, match="--max-cost 40"):
            ask(new_queue(), asked, limit=40)
        answered = server.answered.total()
        assert 40 - 13 < new_queue().spent(asked, PRICES) <= 40
        assert answered == server.asked.total() == 60 - len(new_queue().pending(asked)), "what was sent is kept"
        assert 10 < answered < 40
    ask(new_queue(), asked, limit=100)
    assert server.answered.total() == server.asked.total() == 60


def test_a_limit_counts_requests_that_are_tried_again(server, new_queue):
    server.fault = lambda handler, number: handler.send(200, "null") is None
    asked = questions(1)
    limit = 3.5 * upper_bound(new_queue(), asked[0])
    for _ in range(2):
        with pytest.raises(BenchError, match="--max-cost"):
            ask(new_queue(), asked, limit=limit, retries=20)
        assert server.asked.total() == 3
    server.fault = lambda handler, number: False
    assert ask(new_queue(), asked, limit=2 * limit).spent == pytest.approx(3 / 3.5 * limit + 1.03)


@pytest.mark.parametrize("prices", [(float("nan"), 1), (1, float("inf")), (-1, 1)])
def test_prices_that_are_none_are_refused(prices):
    with pytest.raises(BenchError, match="--prices"):
        Prices(*prices)


def test_when_one_question_ends_it_all_answers_on_their_way_are_kept_and_nothing_is_tried_again(server, new_queue):
    def fault(handler: Handler, number: int) -> bool:
        if "question 0" in handler.chat:
            time.sleep(0.3)
            handler.error(401, "no key")
        elif "question 1" in handler.chat:
            handler.error(503, "later", Retry_After="20")
        elif "question 2" in handler.chat:
            time.sleep(0.8)
            return False
        else:
            time.sleep(0.6)
            handler.error(500, "oops")
        return True

    server.fault = fault
    queue, begun = new_queue(), time.monotonic()
    with pytest.raises(BenchError, match="says 401"):
        ask(queue, questions(10), concurrency=4)
    assert time.monotonic() - begun < 5
    assert [isinstance(queue.resolve(question), Reading) for question in questions(4)] == [False, False, True, False]
    assert server.asked.total() == 4
    assert "waiting up to 5 s for 2 answers in flight" in " ".join(queue.notes)


def test_retry_after_holds_back_every_request(server, new_queue):
    begun: list[float] = []

    def fault(handler: Handler, number: int) -> bool:
        begun.append(time.monotonic())
        time.sleep(0.1)
        return number == 1 and handler.error(429, "slow down", None, Retry_After="0.7") is None

    server.fault = fault
    ask(new_queue(), questions(6), concurrency=2)
    assert len(begun) == 7
    assert begun[1] - begun[0] < 0.1
    assert all(later - begun[0] >= 0.75 for later in begun[2:])


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after_in_all_its_forms(headers, seconds):
    assert retry_after(headers) == seconds


def test_a_server_that_says_to_wait_no_time_is_given_some(server, new_queue, monkeypatch):
    monkeypatch.setattr(client_module, "FIRST_WAIT", 0.1)
    server.fault = lambda handler, number: handler.error(429, "slow down", None, Retry_After="0") is None
    begun = time.monotonic()
    with pytest.raises(BenchError, match="failed 4 times in a row"):
        ask(new_queue(), questions(1), retries=3)
    assert time.monotonic() - begun >= 0.75 * (0.1 + 0.2 + 0.4)


@pytest.mark.parametrize(
    ("code", "wait", "said"),
    [("insufficient_quota", "1", "no credit left"), ("rate_limit_exceeded", "601", "asks to wait 601 s")],
)
def test_what_will_not_pass_is_not_waited_for(server, new_queue, code, wait, said):
    server.fault = lambda handler, number: handler.error(429, "no more", code, Retry_After=wait) is None
    with pytest.raises(BenchError, match=said):
        asyncio.run(asyncio.wait_for(asking(new_queue(), questions(1)), 10))
    assert server.asked.total() == 1


def test_two_at_a_time_ask_each_question_once(server, new_queue):
    server.delay = 0.03
    asked = questions(20)

    async def both() -> Sequence[Budget]:
        return await asyncio.gather(*(asking(new_queue(), asked, concurrency=4) for _ in range(2)))

    for budget in asyncio.run(both()):
        assert budget.spent == pytest.approx(20 * 1.03), "also what the other one paid"
    assert len(server.asked) == server.asked.total() == 20


def test_so_many_requests_are_on_their_way_at_once(server, new_queue):
    server.delay = 0.1
    ask(new_queue(), questions(12), concurrency=4)
    assert server.most_at_once == 4


def test_what_is_sent(server, new_queue):
    ask(new_queue(temperature=0.3, max_tokens=99), questions(1))
    (body,) = server.bodies
    messages = body.pop("messages")
    assert body == {"model": "m", "temperature": 0.3, "max_tokens": 99}
    assert [message["role"] for message in messages] == ["system", "user"]


@pytest.mark.parametrize(
    ("status", "code", "message", "outcome"),
    [
        (400, "context_length_exceeded", "too many tokens", Outcome.TOO_LONG),
        (400, None, "This model's maximum context length is 4096 tokens.", Outcome.TOO_LONG),
        (400, None, "the request exceeds the available context size. try increasing it", Outcome.TOO_LONG),
        (413, None, "Payload Too Large", Outcome.TOO_LONG),
        (400, "content_filter", "filtered", Outcome.FILTERED),
        (400, "invalid_prompt", "Invalid prompt: flagged", Outcome.FILTERED),
        (400, None, "something else", Outcome.REJECTED),
        (422, None, "something else", Outcome.REJECTED),
    ],
)
def test_one_question_that_is_turned_down_does_not_keep_the_others(server, new_queue, status, code, message, outcome):
    server.fault = lambda handler, number: "question 0" in handler.chat and handler.error(status, message, code) is None
    queue = new_queue()
    budget = ask(queue, questions(5), concurrency=1)
    readings = [queue.resolve(question) for question in questions(5)]
    assert [reading.outcome for reading in readings] == [outcome, *[Outcome.SCORED] * 4]
    assert budget.spent == pytest.approx(4 * 1.03)
    assert server.asked.total() == 5
    # what a server has not explained may change: it is asked again, for nothing, by the next command
    assert len(new_queue().pending(questions(5))) == (outcome == Outcome.REJECTED)
    again = new_queue()
    ask(again, questions(5))
    assert again.resolve(questions(1)[0]).outcome == outcome


@pytest.mark.parametrize("count", [2, 30])
def test_a_server_that_turns_everything_down_is_told_of(server, new_queue, count):
    server.fault = lambda handler, number: handler.error(400, "temperature must be 1") is None
    queue = new_queue()
    with pytest.raises(BenchError, match=r"says 400: temperature must be 1.*--temperature"):
        ask(queue, questions(count), concurrency=1)
    assert server.asked.total() == min(count, 10)
    assert len(queue.pending(questions(count))) == count


def test_an_answer_with_half_a_character_is_kept(server, new_queue):
    server.say = lambda user, texts: "7 8\n\ud800"
    ask(new_queue(), questions(2))
    ask(new_queue(), questions(2))
    assert server.asked.total() == 2
    assert new_queue().resolve(questions(1)[0]).verdict == (7, 8)


def test_a_damaged_answer_is_told_of_once_and_asked_for_again(server, new_queue):
    ask(new_queue(), questions(2))
    queue = new_queue()
    path = queue.answers.path(queue.request(questions(1)[0], 0).key)
    path.write_text("{", encoding="utf-8")
    ask(queue, questions(2))
    assert [note for note in queue.notes if "damaged" in note] == [
        f"cache: {path} is damaged; the question is asked again"
    ]
    assert server.asked.total() == 3
