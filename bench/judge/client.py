"""Requests to a judge over HTTP: passing faults are retried, Retry-After is honoured, the key appears in no message."""

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
from urllib.parse import urljoin, urlsplit

import openai

from bench.judge.budget import Budget
from bench.judge.messages import Answer, Judge, MalformedAnswer, Request, answer_from
from bench.judge.protocol import Outcome
from bench.judge.redaction import KEY, key_in_environment, well_formed, without_key
from bench.system.errors import BenchError

FIRST_WAIT = 0.5  # seconds before the second attempt, doubled before each further one
LONGEST_WAIT = 600.0  # seconds; a server that asks for more ends the command
_FIRST_CONTACTS = 3  # attempts at a server that has never answered
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached")
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
    """The API key from the environment; None if it is not set.

    Raises:
        BenchError: OpenAI is asked and no key is set, or the key holds a character that no key has.
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
    """Seconds that the server asks to wait; None if its headers do not say."""
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
    """The server turns down a request; whether this one or all, only other requests can show."""


class _PassingFault(Exception):
    """A fault that may pass.

    Args:
        kind: as answers record it ("timeout", "http 503").
        reason: in words.
        wait: seconds that the server asks to wait; None if it does not say.
        billed: whether the request may have been billed all the same.
    """

    def __init__(self, kind: str, reason: str, wait: float | None = None, *, billed: bool) -> None:
        super().__init__(kind)
        self.kind, self.reason, self.wait, self.billed = kind, reason, wait, billed


class Client:
    """Sends requests to one judge.

    It retries by itself, because the `openai` client does not count retries, never waits longer than two minutes, does
    not retry an answer that is not JSON, and does not hold back other requests when the server says to wait.

    Args:
        judge: who is asked.
        key: from `key_for`.
        timeout: seconds from the start of a request to the end of its answer, however slowly the answer arrives.
        retries: how often a request is repeated.
        note: receives messages for the user.

    Attributes:
        sending: the tasks that are waiting for the server.
        stopped: set from outside to end all retries.
        answered: number of questions answered.
    """

    def __init__(
        self, judge: Judge, key: str | None, *, timeout: float, retries: int, note: Callable[[str], None]
    ) -> None:
        self.judge, self.timeout, self.retries, self.note = judge, timeout, retries, note
        self.key = key
        self.api = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=judge.base_url,
            max_retries=0,
            timeout=openai.Timeout(timeout),
            http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [self._stay]}),
        )
        self.sending: set[asyncio.Task[Any] | None] = set()
        self.stopped, self.answered = False, 0
        self._reached = False
        self._resume_at = 0.0

    async def _stay(self, response: Any) -> None:
        """Refuse a redirect that leads to another server, or from https to http: prompts and key are not for it."""
        if not response.has_redirect_location:
            return
        url = str(response.url)
        here, there = _server(url), _server(url, response.headers["location"])
        if there != here and (here[0], here[2], there) != ("http", 80, ("https", here[1], 443)):
            where = "{}://{}:{}".format(*there) if any(there) else "an address that is none"
            raise BenchError(
                f"the judge at {self.judge.base_url} redirects to {self.redacted(where)}, which is not followed: the "
                "texts and the key are meant for the server that --base-url names. If you trust it, name it there"
            )

    def redacted(self, text: str) -> str:
        """The text without the key, fit to be shown."""
        return str(well_formed(without_key(text, self.key)))

    async def ask(self, request: Request, budget: Budget) -> Answer:
        """The judge's answer, after as many attempts as it takes.

        The last attempt remains reserved in the budget: the caller keeps the answer first and then settles it.

        Raises:
            Rejected: the server turns down the request, and may answer others.
            BenchError: the server cannot be reached, refuses all requests or does not recover, or the budget does not
                suffice.
        """
        faults: Counter[str] = Counter()

        async def complete() -> Any:
            async with asyncio.timeout(self.timeout):  # the client's own timeout starts again with every byte
                raw = await self.api.chat.completions.with_raw_response.create(
                    **request.body.model_dump(exclude_none=True)
                )
                try:
                    return without_key(json.loads(raw.text), self.key)
                except RecursionError:
                    raise ValueError("nested too deeply") from None

        async def attempt() -> Answer:
            await budget.reserve(request)
            try:
                return await self._answer(complete, faults)
            except _PassingFault as fault:
                if fault.billed:
                    budget.lose()
                else:
                    budget.refund(request)
                raise
            except BenchError:
                budget.refund(request)
                raise

        answer = await self._with_retries(attempt, faults)
        self.answered += 1
        return answer

    async def call(self, send: Callable[[], Awaitable[T]]) -> T:
        """The server's answer to a request that costs nothing, after as many attempts as it takes.

        Raises:
            openai.APIStatusError: the server turns it down.
            BenchError: the server cannot be reached or does not recover.
        """
        return await self._with_retries(lambda: self._send_once(send), Counter())

    async def _with_retries(self, send: Callable[[], Awaitable[T]], faults: Counter[str]) -> T:
        while True:
            while (left := self._resume_at - time.monotonic()) > 0:
                await asyncio.sleep(left)
            try:
                return await send()
            except _PassingFault as fault:
                faults[fault.kind] += 1
                attempts = faults.total()
                unreachable = not self._reached and fault.kind == "connection" and attempts >= _FIRST_CONTACTS
                if self.stopped or attempts > self.retries or unreachable:
                    raise self._gave_up(attempts, fault) from fault
                await asyncio.sleep(self._wait(attempts, fault))

    def _wait(self, attempts: int, fault: _PassingFault) -> float:
        """Seconds before the next attempt."""
        wait = float(min(30.0, FIRST_WAIT * 2 ** (attempts - 1)) * random.uniform(0.75, 1.0))
        if fault.wait is None:
            return wait
        if fault.wait > LONGEST_WAIT:
            raise BenchError(
                f"the judge at {self.judge.base_url} asks to wait {fault.wait:.0f} s ({fault.reason}); "
                "answers are kept: the same command continues later"
            )
        # the server counts requests per account: a wait that one is told holds for all
        self._resume_at = max(self._resume_at, time.monotonic() + fault.wait)
        return max(wait, fault.wait)  # a server that always says 0 would use up all attempts at once

    def _gave_up(self, attempts: int, fault: _PassingFault) -> BenchError:
        if not self._reached:
            return BenchError(
                f"cannot reach the judge at {self.judge.base_url}: {fault.reason}. "
                "Is the server running, and is --base-url right?"
            )
        return BenchError(
            f"the judge at {self.judge.base_url} failed {attempts} times in a row on one request, last with "
            f"{fault.reason}. Answers are kept: the same command continues; fewer requests at once (--concurrency), "
            "more time (--timeout) or more --retries may help"
        )

    async def _answer(self, complete: Callable[[], Awaitable[Any]], faults: Counter[str]) -> Answer:
        try:
            return answer_from(await self._send_once(complete), now(), faults.total() + 1, faults)
        except MalformedAnswer as error:
            raise self._malformed(error) from None
        except openai.APIStatusError as error:
            message = error_message(error.body) or error.response.reason_phrase
            outcome = outcome_of_error(error.status_code, error.code, message)
            if outcome is None:
                raise self.refusal(error.status_code, message) from None
            return placeholder(outcome, self.judge.model, faults.total() + 1, faults)

    async def _send_once(self, send: Callable[[], Awaitable[T]]) -> T:
        self.sending.add(asyncio.current_task())
        try:
            result = await send()
            self._reached = True
            return result
        except (TimeoutError, openai.APITimeoutError):
            raise _PassingFault("timeout", f"no complete answer within {self.timeout:g} s", billed=True) from None
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, BenchError):
                raise error.__cause__ from None
            reason = self.redacted(str(error.__cause__ or error)) or "no connection"
            billed = type(error.__cause__).__name__ not in _NEVER_SENT
            raise _PassingFault("connection", reason, billed=billed) from None
        except openai.APIStatusError as error:
            self._reached = True
            self._retry_or_raise(error)
        except ValueError as error:
            self._reached = True
            raise self._malformed(error) from None
        finally:
            self.sending.discard(asyncio.current_task())

    def _malformed(self, error: ValueError) -> _PassingFault:
        reason = f"an answer that is not in the form of this API ({self.redacted(str(error))[:120]})"
        return _PassingFault("malformed", reason, billed=True)

    def _retry_or_raise(self, error: openai.APIStatusError) -> NoReturn:
        status = error.status_code
        message = self.redacted(error_message(error.body) or error.response.reason_phrase)
        if status == 429 and (error.code in _NO_CREDIT or error.type in _NO_CREDIT):
            raise BenchError(
                f"the account at {self.judge.base_url} has no credit left: {message}. Answers are kept"
            ) from None
        if status in (408, 409, 429) or status >= 500:
            # a gateway gave up waiting: the server behind it may have answered
            billed = status in (408, 502) or status >= 504
            wait = retry_after(error.response.headers)
            raise _PassingFault(f"http {status}", f"status {status}: {message}", wait, billed=billed) from None
        raise error

    def refusal(self, status: int, message: str) -> BenchError:
        """The error for a request that this server will never answer; `Rejected` if it may answer others."""
        advice = {
            401: f"Set {KEY} to a key that is valid there",
            403: f"The key in {KEY} may not use model {self.judge.model!r}; choose another with --model",
            404: f"Does it serve model {self.judge.model!r} (--model)? Most addresses end in /v1 (--base-url)",
        }.get(status, "See --model, --temperature and --max-tokens; reasoning models accept only --temperature 1")
        kind = Rejected if status in (400, 422) else BenchError
        return kind(f"the judge at {self.judge.base_url} says {status}: {self.redacted(message)[:300]}. {advice}")


def _server(url: str, location: str = "") -> tuple[str, str, int]:
    """Scheme, host and port of an address, or of another one relative to it; empty if it is none."""
    try:
        parts = urlsplit(urljoin(url, location))
        return parts.scheme, (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return "", "", 0


def outcome_of_error(status: int, code: object, message: str) -> Outcome | None:
    """The outcome of a question that a server turns down for what is in it; None if the error does not say so."""
    if status == 413 or any(words in message.lower() for words in _SAYS_TOO_LONG):
        return Outcome.TOO_LONG
    return _CODES.get(str(code))


def now() -> str:
    """The time in UTC, to the second (ISO 8601)."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def placeholder(outcome: Outcome, model: str, requests: int = 1, faults: Counter[str] | None = None) -> Answer:
    """Stands for the answer to a question that the server turned down."""
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


def error_message(body: Any) -> str:
    """The message in the body of an error, whatever its shape; empty if there is none."""
    if isinstance(body, dict):
        inner = body.get("error", body)
        message = inner.get("message") if isinstance(inner, dict) else inner
        return str(message or "")
    return str(body or "")[:300]
