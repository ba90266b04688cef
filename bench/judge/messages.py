"""A question put to a judge, the answer it gave, and the key under which the answer is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any

from pydantic import AnyHttpUrl, BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from bench.judge.redaction import KEY, holds_key, well_formed
from bench.system.errors import BenchError
from bench.system.hashing import digest

OPENAI = "https://api.openai.com/v1"


@dataclass(frozen=True)
class Judge:
    """The model that judges, where it is served, and how it decodes.

    Args:
        model: its name, as the server knows it.
        base_url: the server, up to and including `/v1`; kept in one spelling, without a slash at its end.
        temperature: of its decoding.
        max_tokens: the longest answer it may give.

    Raises:
        BenchError: the address is none, or it or the name holds what must not be recorded.
    """

    model: str
    base_url: str = OPENAI
    temperature: float = 0.0
    max_tokens: int = 64

    def __post_init__(self) -> None:
        if holds_key(self.model) or well_formed(self.model) != self.model or not self.model.strip():
            raise BenchError(f"--model holds a key, or is no name; give the key in the environment variable {KEY}")
        if not 0 <= self.temperature < math.inf:
            raise BenchError(f"--temperature {self.temperature:g}: expected a number of 0 or more")
        object.__setattr__(self, "base_url", _address(self.base_url))

    @property
    def at_openai(self) -> bool:
        """Whether OpenAI itself serves it."""
        return self.base_url == OPENAI

    @property
    def parameters(self) -> dict[str, Any]:
        """What is sent with every question."""
        # OpenAI's newer models refuse the old name of the limit, and older servers ignore the new one
        limit = "max_completion_tokens" if self.at_openai else "max_tokens"
        return {"model": self.model, "temperature": self.temperature, limit: self.max_tokens}


def _address(base_url: str) -> str:
    """An address in one spelling, so that one server is known again however it is written."""
    if any(sign in base_url for sign in "@?#") or holds_key(base_url):
        raise BenchError(  # without the address: errors are shown to others too
            "--base-url holds a password, a key, a query or a fragment, which would end up in records. "
            f"Give the plain address, and the key in the environment variable {KEY}"
        )
    try:
        return str(TypeAdapter(AnyHttpUrl).validate_python(base_url)).rstrip("/")
    except ValidationError as error:
        reason = error.errors()[0]["msg"].rpartition(", ")[2]
        raise BenchError(
            f"--base-url {base_url!r} is no address ({reason}); one looks like http://localhost:8000/v1"
        ) from error


@dataclass(frozen=True)
class Request:
    """One request for an answer.

    Args:
        judge: who is asked.
        messages: the chat.
        repeat: which of several independent answers to the same chat.
        attempt: which time it is asked, after answers that could not be read.
    """

    judge: Judge
    messages: list[dict[str, str]] = field(compare=False)
    repeat: int
    attempt: int

    @cached_property
    def body(self) -> dict[str, Any]:
        """What is sent."""
        return {**self.judge.parameters, "messages": self.messages}

    @cached_property
    def key(self) -> str:
        """Hash of all that the answer may depend on."""
        return digest(self.plain)

    @property
    def plain(self) -> dict[str, Any]:
        """The request as plain values."""
        return {
            "base_url": self.judge.base_url,
            "body": self.body,
            "repeat": self.repeat,
            "attempt": self.attempt,
        }


def _count(value: Any) -> int | None:
    """A number of tokens; None for what is none: a server's slip must not cost an answer that is paid for."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


class Answer(BaseModel):
    """An answer as it is kept.

    Attributes:
        content: the text.
        refusal: the judge's words where it declined.
        finish_reason: the server's ("stop", "length", "content_filter"), or "filtered", "too long" and "rejected" for
            questions that the server turned down.
        model: the model the server says it used.
        system_fingerprint: the server's, if it gives one.
        prompt_tokens: billed, if the server says.
        completion_tokens: billed, if the server says.
        received: when, in UTC.
        requests: how many requests it took.
        faults: what went wrong before, and how often.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    content: str
    refusal: str | None = None
    finish_reason: str
    model: str
    system_fingerprint: str | None = None
    prompt_tokens: Annotated[int | None, BeforeValidator(_count)] = None
    completion_tokens: Annotated[int | None, BeforeValidator(_count)] = None
    received: str
    requests: int = 1
    faults: dict[str, int] = {}


class MalformedAnswer(ValueError):
    """The server's answer is not what the API promises."""


def answer_from(body: Any, received: str, requests: int = 1, faults: Mapping[str, int] | None = None) -> Answer:
    """Read the body of a chat completion.

    Only what is needed is required: servers that speak the API differ in the rest.

    Raises:
        MalformedAnswer: no choice, or a wrong type.
    """
    try:
        body = well_formed(body)
        choice = body["choices"][0]
        message, usage = choice["message"], body.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        return Answer(
            content=_text(message.get("content")),
            refusal=message.get("refusal") or None,
            finish_reason=choice.get("finish_reason") or "stop",
            model=body.get("model") or "",
            system_fingerprint=body.get("system_fingerprint"),
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
            received=received,
            requests=requests,
            faults=dict(faults or {}),
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise MalformedAnswer(str(error)) from error


def _text(content: Any) -> str:
    """The text of a message, which some servers give in parts."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type", "text") in ("text", "output_text"))
    return content or ""
