"""Requests to a judge over HTTP: faults are retried, Retry-After is honoured, the key stays where it belongs."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import openai

from bench.errors import BenchError
from bench.judge.protocol import Outcome
from bench.judge.requests import Answer, Judge, MalformedAnswer, Request, answer_from

KEY = "OPENAI_API_KEY"
LONGEST_WAIT = 600.0  # seconds; a server that asks for more is left alone
_SHORTEST_SECRET = 8
_FIRST_CONTACTS = 3  # so often a server that never answered is tried
_NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached")


def key_for(judge: Judge) -> str | None:
    """The key from the environment; None for a server of one's own that needs none.

    Raises:
        BenchError: OpenAI is asked and there is none, or it cannot be one.
    """
    key = os.environ.get(KEY, "").strip()
    if not key and judge.at_openai:
        raise BenchError(
            f"no key: set the environment variable {KEY}, or name a server of your own with --base-url "
            "(http://localhost:8000/v1, say)"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise BenchError(f"{KEY} holds a space, a line break or a character that no key has; set it again")
    return key or None


def without_key(value: Any, key: str | None) -> Any:
    """Text, or plain values with text in them, with the name of the key in its place.

    A placeholder such as "none" or "1", which servers of one's own are given, is no secret and is left alone.
    """
    if key is None or len(key) < _SHORTEST_SECRET:
        return value
    if isinstance(value, str):
        return value.replace(key, f"[{KEY}]")
    if isinstance(value, list):
        return [without_key(one, key) for one in value]
    if isinstance(value, dict):
        return {without_key(name, key): without_key(one, key) for name, one in value.items()}
    return value


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


class _Retry(Exception):
    """A fault that may pass: what it was, and how long the server asks to wait."""

    def __init__(self, fault: str, reason: str, wait: float | None = None) -> None:
        super().__init__(fault)
        self.fault, self.reason, self.wait = fault, reason, wait


class Client:
    """Asks one judge.

    Retrying is done here and not by the `openai` client: that one neither counts, nor waits longer than two minutes,
    nor retries an answer that is not JSON, nor holds back other requests when one is told to wait.

    Args:
        judge: who is asked.
        key: from `key_for`.
        timeout: seconds for a request from start to end, however slowly the answer trickles in.
        retries: how often a request is tried again.
        note: told what a user should know.
    """

    def __init__(
        self, judge: Judge, key: str | None, *, timeout: float, retries: int, note: Callable[[str], None]
    ) -> None:
        self.judge, self.timeout, self.retries, self.note = judge, timeout, retries, note
        self.key = key
        self.api = openai.AsyncOpenAI(
            api_key=key or "none", base_url=judge.base_url, max_retries=0, timeout=openai.Timeout(timeout)
        )
        self._reached = False
        self._resume_at = 0.0

    def hide(self, text: str) -> str:
        """The text without the key."""
        return str(without_key(text, self.key))

    async def ask(self, request: Request) -> Answer:
        """The judge's answer, however many requests it takes.

        Raises:
            BenchError: the server cannot be reached, refuses the request, or does not recover.
        """
        faults: Counter[str] = Counter()
        while True:
            await self._patience()
            try:
                return await self._once(request, faults)
            except _Retry as fault:
                faults[fault.fault] += 1
                tried = faults.total()
                if tried > self.retries or (
                    not self._reached and fault.fault == "connection" and tried >= _FIRST_CONTACTS
                ):
                    raise self._gave_up(tried, fault) from fault
                await asyncio.sleep(self._wait(tried, fault))

    async def _patience(self) -> None:
        while (left := self._resume_at - time.monotonic()) > 0:
            await asyncio.sleep(left)

    def _wait(self, tried: int, fault: _Retry) -> float:
        if fault.wait is None:
            return float(min(30.0, 0.5 * 2 ** (tried - 1)) * random.uniform(0.75, 1.0))
        if fault.wait > LONGEST_WAIT:
            raise BenchError(
                f"the judge at {self.judge.base_url} asks to wait {fault.wait:.0f} s ({fault.reason}); "
                "answers are kept: the same command then goes on"
            )
        # what the server says to one request goes for all of them
        self._resume_at = max(self._resume_at, time.monotonic() + fault.wait)
        return fault.wait

    def _gave_up(self, tried: int, fault: _Retry) -> BenchError:
        if not self._reached:
            return BenchError(
                f"cannot reach the judge at {self.judge.base_url}: {fault.reason}. "
                "Is the server running, and is --base-url right?"
            )
        return BenchError(
            f"the judge at {self.judge.base_url} failed {tried} times in a row on one question, last with "
            f"{fault.reason}. Answers are kept: the same command goes on; fewer at once (--concurrency), more time "
            "(--timeout) or more --retries may help"
        )

    async def _once(self, request: Request, faults: Counter[str]) -> Answer:
        try:
            async with asyncio.timeout(self.timeout):  # the client's own timeout starts again with every byte
                raw = await self.api.chat.completions.with_raw_response.create(**request.body)
                self._reached = True
                body = without_key(json.loads(raw.text), self.key)
            return answer_from(body, now(), faults.total() + 1, faults)
        except (TimeoutError, openai.APITimeoutError):
            raise _Retry("timeout", f"no whole answer within {self.timeout:g} s") from None
        except openai.APIConnectionError as error:
            raise _Retry("connection", self.hide(str(error.__cause__ or error)) or "no connection") from None
        except openai.APIStatusError as error:
            self._reached = True
            return self._status(error, faults)
        except (ValueError, MalformedAnswer) as error:
            raise _Retry("malformed", f"an answer that is no chat completion ({self.hide(str(error))[:120]})") from None

    def _status(self, error: openai.APIStatusError, faults: Counter[str]) -> Answer:
        status, said = error.status_code, self.hide(said_by(error.body) or error.response.reason_phrase)
        if status == 429 and error.code in _NO_MONEY:
            raise BenchError(
                f"the account at {self.judge.base_url} has no credit left: {said}. Answers are kept"
            ) from None
        if status in (408, 409, 429) or status >= 500:
            raise _Retry(f"http {status}", f"status {status}: {said}", retry_after(error.response.headers)) from None
        turned_down = self.turned_down(error.code, said)
        if turned_down:
            return no_answer(turned_down, self.judge.model, faults.total() + 1, faults)
        raise self.refusal(status, said) from None

    @staticmethod
    def turned_down(code: str | None, said: str) -> Outcome | None:
        """Whether an error concerns this one question only: its length or the content filter."""
        if code == "content_filter":
            return Outcome.FILTERED
        if code == "context_length_exceeded" or "maximum context length" in said:
            return Outcome.TOO_LONG
        return None

    def refusal(self, status: int, said: str) -> BenchError:
        """The error for a request that this server will never answer."""
        advice = {
            401: f"Set {KEY} to a key that is valid there",
            403: f"The key in {KEY} may not use model {self.judge.model!r}; choose another with --model",
            404: f"Does it serve model {self.judge.model!r} (--model)? Addresses mostly end in /v1 (--base-url)",
        }.get(status, "See --model, --temperature and --max-tokens; models that reason take --temperature 1 only")
        return BenchError(f"the judge at {self.judge.base_url} says {status}: {said[:300]}. {advice}")


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
