"""Requests to a judge over HTTP: faults are retried, Retry-After is honoured, the key stays where it belongs."""

from __future__ import annotations

import asyncio
import datetime
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn, TypeVar

import openai

from bench.judge.budget import Purse
from bench.judge.messages import Answer, Judge, MalformedAnswer, Request, answer_from
from bench.judge.protocol import Outcome
from bench.judge.redaction import KEY, key_in_environment, well_formed, without_key
from bench.system.errors import BenchError

FIRST_WAIT = 0.5  # seconds before a second try; twice as many before each further one
LONGEST_WAIT = 600.0  # seconds; a server that asks for more is left alone
_FIRST_CONTACTS = 3  # so often a server that never answered is tried
_NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached")
_NEVER_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError")  # by name: of httpx or its successor
_CODES = {
    "content_filter": Outcome.FILTERED,
    "content_policy_violation": Outcome.FILTERED,
    "invalid_prompt": Outcome.FILTERED,  # OpenAI's for prompts that break its usage policy
    "context_length_exceeded": Outcome.TOO_LONG,
    "string_above_max_length": Outcome.TOO_LONG,
}
_SAYS_TOO_LONG = (
    *("maximum context length", "maximum model length", "available context size", "context window"),
    "prompt is too long",
)
T = TypeVar("T")


def key_for(judge: Judge) -> str | None:
    """The key from the environment; None for a server of one's own that needs none.

    Raises:
        BenchError: OpenAI is asked and there is none, or it cannot be one.
    """
    key = key_in_environment()
    if key is None and judge.at_openai:
        raise BenchError(
            f"no key: set the environment variable {KEY}, or name a server of your own with --base-url "
            "(http://localhost:8000/v1, say)"
        )
    if key and (not (key.isascii() and key.isprintable()) or " " in key):
        raise BenchError(f"{KEY} holds a space, a line break or a character that no key has; set it again")
    return key


def retry_after(headers: Any) -> float | None:
    """Seconds the server asks to wait; None if it does not say."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time.time()
            except (ValueError, TypeError):
                continue
        if seconds == seconds:  # not NaN
            return max(0.0, seconds)
    return None


class Rejected(BenchError):
    """The server turns a request down: this one, or all."""


class _Retry(Exception):
    """A fault that may pass: what it was, how long the server asks to wait, whether it may have been paid for."""

    def __init__(self, fault: str, reason: str, wait: float | None = None, *, paid: bool) -> None:
        super().__init__(fault)
        self.fault, self.reason, self.wait, self.paid = fault, reason, wait, paid


class Client:
    """Asks one judge.

    Retrying is done here and not by the `openai` client: that one neither counts, nor waits longer than two minutes,
    nor retries an answer that is not JSON, nor holds back other requests when one is told to wait.

    Args:
        judge: who is asked.
        key: from `key_for`.
        timeout: seconds for an answer from start to end, however slowly it trickles in.
        retries: how often a request is tried again.
        note: told what a user should know.

    Attributes:
        sending: the tasks that wait for a server.
        stopped: nothing is tried again.
        answered: questions answered.
    """

    def __init__(
        self, judge: Judge, key: str | None, *, timeout: float, retries: int, note: Callable[[str], None]
    ) -> None:
        self.judge, self.timeout, self.retries, self.note = judge, timeout, retries, note
        self.key = key
        self.api = openai.AsyncOpenAI(
            api_key=key or "none", base_url=judge.base_url, max_retries=0, timeout=openai.Timeout(timeout)
        )
        self.sending: set[asyncio.Task[Any] | None] = set()
        self.stopped, self.answered = False, 0
        self._reached = False
        self._resume_at = 0.0

    def hide(self, text: str) -> str:
        """The text without the key, fit to be shown."""
        return str(well_formed(without_key(text, self.key)))

    async def ask(self, request: Request, purse: Purse) -> Answer:
        """The judge's answer, however many requests it takes; `purse` has paid for it and is to be settled.

        Raises:
            Rejected: the server turns the request down, and may answer others.
            BenchError: the server cannot be reached, refuses all requests, or does not recover; or the purse is empty.
        """
        faults: Counter[str] = Counter()

        async def complete() -> Any:
            async with asyncio.timeout(self.timeout):  # the client's own timeout starts again with every byte
                raw = await self.api.chat.completions.with_raw_response.create(**request.body)
                return without_key(json.loads(raw.text), self.key)

        async def paid() -> Answer:
            await purse.reserve(request)
            try:
                return await self._answer(complete, faults)
            except _Retry as fault:
                if fault.paid:
                    purse.lost()
                else:
                    purse.unpaid(request)
                raise
            except BenchError:
                purse.unpaid(request)
                raise

        answer = await self._patiently(paid, faults)
        self.answered += 1
        return answer

    async def call(self, send: Callable[[], Awaitable[T]]) -> T:
        """What the server says to a request that costs nothing, however many times it takes.

        Raises:
            openai.APIStatusError: the server turns it down.
            BenchError: the server cannot be reached, or does not recover.
        """
        return await self._patiently(lambda: self._once(send), Counter())

    async def _patiently(self, send: Callable[[], Awaitable[T]], faults: Counter[str]) -> T:
        while True:
            while (left := self._resume_at - time.monotonic()) > 0:
                await asyncio.sleep(left)
            try:
                return await send()
            except _Retry as fault:
                faults[fault.fault] += 1
                tried = faults.total()
                first = not self._reached and fault.fault == "connection" and tried >= _FIRST_CONTACTS
                if self.stopped or tried > self.retries or first:
                    raise self._gave_up(tried, fault) from fault
                await asyncio.sleep(self._wait(tried, fault))

    def _wait(self, tried: int, fault: _Retry) -> float:
        wait = float(min(30.0, FIRST_WAIT * 2 ** (tried - 1)) * random.uniform(0.75, 1.0))
        if fault.wait is None:
            return wait
        if fault.wait > LONGEST_WAIT:
            raise BenchError(
                f"the judge at {self.judge.base_url} asks to wait {fault.wait:.0f} s ({fault.reason}); "
                "answers are kept: the same command then goes on"
            )
        # what the server says to one request goes for all of them
        self._resume_at = max(self._resume_at, time.monotonic() + fault.wait)
        return max(wait, fault.wait)  # a server that always says 0 would have used up all tries at once

    def _gave_up(self, tried: int, fault: _Retry) -> BenchError:
        if not self._reached:
            return BenchError(
                f"cannot reach the judge at {self.judge.base_url}: {fault.reason}. "
                "Is the server running, and is --base-url right?"
            )
        return BenchError(
            f"the judge at {self.judge.base_url} failed {tried} times in a row on one request, last with "
            f"{fault.reason}. Answers are kept: the same command goes on; fewer at once (--concurrency), more time "
            "(--timeout) or more --retries may help"
        )

    async def _answer(self, complete: Callable[[], Awaitable[Any]], faults: Counter[str]) -> Answer:
        try:
            return answer_from(await self._once(complete), now(), faults.total() + 1, faults)
        except MalformedAnswer as error:
            raise self._malformed(error) from None
        except openai.APIStatusError as error:
            said = said_by(error.body) or error.response.reason_phrase
            turned_down = turned_down_for(error.status_code, error.code, said)
            if turned_down is None:
                raise self.refusal(error.status_code, said) from None
            return no_answer(turned_down, self.judge.model, faults.total() + 1, faults)

    async def _once(self, send: Callable[[], Awaitable[T]]) -> T:
        self.sending.add(asyncio.current_task())
        try:
            result = await send()
            self._reached = True
            return result
        except (TimeoutError, openai.APITimeoutError):
            raise _Retry("timeout", f"no whole answer within {self.timeout:g} s", paid=True) from None
        except openai.APIConnectionError as error:
            reason = self.hide(str(error.__cause__ or error)) or "no connection"
            raise _Retry("connection", reason, paid=type(error.__cause__).__name__ not in _NEVER_SENT) from None
        except openai.APIStatusError as error:
            self._reached = True
            self._retry_or_raise(error)
        except ValueError as error:
            self._reached = True
            raise self._malformed(error) from None
        finally:
            self.sending.discard(asyncio.current_task())

    def _malformed(self, error: ValueError) -> _Retry:
        return _Retry("malformed", f"an answer that is none of this API ({self.hide(str(error))[:120]})", paid=True)

    def _retry_or_raise(self, error: openai.APIStatusError) -> NoReturn:
        status, said = error.status_code, self.hide(said_by(error.body) or error.response.reason_phrase)
        if status == 429 and (error.code in _NO_MONEY or error.type in _NO_MONEY):
            raise BenchError(
                f"the account at {self.judge.base_url} has no credit left: {said}. Answers are kept"
            ) from None
        if status in (408, 409, 429) or status >= 500:
            # behind a gateway that did not wait any longer, a server may have answered
            paid = status in (408, 502) or status >= 504
            wait = retry_after(error.response.headers)
            raise _Retry(f"http {status}", f"status {status}: {said}", wait, paid=paid) from None
        raise error

    def refusal(self, status: int, said: str) -> BenchError:
        """The error for a request that this server will never answer; `Rejected` if it may be the only such one."""
        advice = {
            401: f"Set {KEY} to a key that is valid there",
            403: f"The key in {KEY} may not use model {self.judge.model!r}; choose another with --model",
            404: f"Does it serve model {self.judge.model!r} (--model)? Addresses mostly end in /v1 (--base-url)",
        }.get(status, "See --model, --temperature and --max-tokens; models that reason take --temperature 1 only")
        kind = Rejected if status in (400, 422) else BenchError
        return kind(f"the judge at {self.judge.base_url} says {status}: {self.hide(said)[:300]}. {advice}")


def turned_down_for(status: int, code: object, said: str) -> Outcome | None:
    """What it is about one question that a server turns it down; None if it does not say."""
    if status == 413 or any(words in said.lower() for words in _SAYS_TOO_LONG):
        return Outcome.TOO_LONG
    return _CODES.get(str(code))


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def no_answer(outcome: Outcome, model: str, requests: int = 1, faults: Counter[str] | None = None) -> Answer:
    """What is kept for a question that the server turned down."""
    return Answer(
        content="",
        finish_reason=outcome.value,
        model=model,
        prompt_tokens=0,
        completion_tokens=0,
        received=now(),
        requests=requests,
        faults=dict(faults or {}),
    )


def said_by(body: Any) -> str:
    """The message in the body of an error, whatever its shape."""
    if isinstance(body, dict):
        inner = body.get("error", body)
        message = inner.get("message") if isinstance(inner, dict) else inner
        return str(message or "")
    return str(body or "")[:300]
