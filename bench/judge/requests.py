"""A question put to a judge, the answer it gave, and the key under which the answer is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from bench.config import digest
from bench.errors import BenchError

OPENAI = "https://api.openai.com/v1"


@dataclass(frozen=True)
class Judge:
    """The model that judges, where it is served, and how it decodes.

    Args:
        model: its name, as the server knows it.
        base_url: the server, up to and including `/v1`.
        temperature: of its decoding.
        max_tokens: the longest answer it may give.

    Raises:
        BenchError: the address is none, or holds a password or a query.
    """

    model: str
    base_url: str = OPENAI
    temperature: float = 0.0
    max_tokens: int = 64

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.username or parts.password or parts.query or parts.fragment:
            raise BenchError(
                "--base-url holds a password, a query or a fragment, which would end up in records. "
                "Give the plain address, and the key in the environment variable OPENAI_API_KEY"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BenchError(f"--base-url {self.base_url!r} is no address; one looks like http://localhost:8000/v1")

    @property
    def at_openai(self) -> bool:
        """Whether OpenAI itself serves it."""
        return self.base_url.rstrip("/") == OPENAI

    @property
    def parameters(self) -> dict[str, Any]:
        """What is sent with every question."""
        # OpenAI's newer models refuse the old name of the limit, and older servers ignore the new one
        limit = "max_completion_tokens" if self.at_openai else "max_tokens"
        return {"model": self.model, "temperature": self.temperature, limit: self.max_tokens}


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
            "base_url": self.judge.base_url.rstrip("/"),
            "body": self.body,
            "repeat": self.repeat,
            "attempt": self.attempt,
        }


class Answer(BaseModel):
    """An answer as it is kept.

    Attributes:
        content: the text.
        refusal: the judge's words where it declined.
        finish_reason: the server's ("stop", "length", "content_filter"), or "filtered" and "too long" for questions
            that the server turned down for that reason.
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
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
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
        choice = body["choices"][0]
        message, usage = choice["message"], body.get("usage") or {}
        return Answer(
            content=message.get("content") or "",
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
