"""What is sent to a judge and what comes back, and the key under which an answer is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from pydantic import AnyHttpUrl, BeforeValidator, Field, TypeAdapter, ValidationError

from bench.judge.redaction import KEY, holds_key, well_formed
from bench.system.errors import BenchError
from bench.system.hashing import digest
from bench.system.manifest import Plain

OPENAI = "https://api.openai.com/v1"


class Parameters(Plain):
    """The judge and how it decodes, as the API names it; one of the two limits is set.

    Attributes:
        max_completion_tokens: the longest answer, by its name at OpenAI, whose newer models refuse the older name.
        max_tokens: the same by its name at all other servers, some of which ignore the newer name.
    """

    model: str
    temperature: float
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


class Message(Plain):
    """One turn of a chat."""

    role: str
    content: str


class Body(Parameters):
    """The body of a request for a chat completion."""

    messages: list[Message]


class Request(Plain):
    """One request for an answer.

    Attributes:
        base_url: the server.
        body: what is sent to it.
        repeat: which of several independent answers to the same chat.
        attempt: 0, or more after answers that could not be read.
    """

    base_url: str
    body: Body
    repeat: int
    attempt: int

    @cached_property
    def key(self) -> str:
        """Hash of everything that the answer may depend on."""
        return digest(self.model_dump(exclude_none=True))

    @property
    def messages(self) -> list[Message]:
        """The chat."""
        return self.body.messages

    @property
    def max_tokens(self) -> int:
        """The longest answer that it allows."""
        return self.body.max_tokens or self.body.max_completion_tokens or 0


@dataclass(frozen=True)
class Judge:
    """The model that judges, where it is served, and how it decodes.

    Args:
        model: its name, as the server knows it.
        base_url: the server, up to and including `/v1`; kept in one spelling, without a slash at its end.
        temperature: of its decoding.
        max_tokens: the longest answer it may give.

    Raises:
        BenchError: the address is malformed, or the address or the name holds what must not be recorded.
    """

    model: str
    base_url: str = OPENAI
    temperature: float = 0.0
    max_tokens: int = 64

    def __post_init__(self) -> None:
        if holds_key(self.model) or well_formed(self.model) != self.model or not self.model.strip():
            raise BenchError(
                f"--model is empty, malformed or holds a key; give the key in the environment variable {KEY}"
            )
        if not 0 <= self.temperature < math.inf:
            raise BenchError(f"--temperature {self.temperature:g}: expected a number of 0 or more")
        object.__setattr__(self, "base_url", _address(self.base_url))

    @property
    def at_openai(self) -> bool:
        """Whether OpenAI itself serves it."""
        return self.base_url == OPENAI

    @property
    def parameters(self) -> Parameters:
        """What is sent with every question."""
        if self.at_openai:
            return Parameters(model=self.model, temperature=self.temperature, max_completion_tokens=self.max_tokens)
        return Parameters(model=self.model, temperature=self.temperature, max_tokens=self.max_tokens)

    def request(self, messages: list[Message], repeat: int, attempt: int) -> Request:
        """The request for an answer to a chat."""
        body = Body(**self.parameters.model_dump(), messages=messages)
        return Request(base_url=self.base_url, body=body, repeat=repeat, attempt=attempt)


def _address(base_url: str) -> str:
    """An address in one spelling, so that a server is recognised however its address is written."""
    if any(sign in base_url for sign in "@?#") or holds_key(base_url):
        raise BenchError(  # without the address: other people may see error messages
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


def _token_count(value: Any) -> int | None:
    """A number of tokens; None for anything else: a malformed count must not discard an answer that was paid for."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


class Answer(Plain):
    """An answer as it is kept.

    Attributes:
        content: the text.
        refusal: the judge's words where it declined.
        finish_reason: the server's ("stop", "length", "content_filter"), or "filtered", "too long" and "rejected" for
            questions that the server turned down.
        model: the model that the server says it used.
        system_fingerprint: the server's, if it gives one.
        prompt_tokens: billed, if the server says so.
        completion_tokens: billed, if the server says so.
        received: when, in UTC (ISO 8601).
        requests: how many requests it took.
        faults: what failed before, and how often.
    """

    content: str
    refusal: str | None = None
    finish_reason: str
    model: str
    system_fingerprint: str | None = None
    prompt_tokens: Annotated[int | None, BeforeValidator(_token_count)] = None
    completion_tokens: Annotated[int | None, BeforeValidator(_token_count)] = None
    received: str
    requests: int = 1
    faults: dict[str, int] = Field(default_factory=dict)


class MalformedAnswer(ValueError):
    """The server's answer is not what the API promises."""


def answer_from(body: Any, received: str, requests: int = 1, faults: Mapping[str, int] | None = None) -> Answer:
    """Read the body of a chat completion.

    Only what is needed is required: servers that speak the API differ in the rest.

    Raises:
        MalformedAnswer: the body holds no choice, or a value of a wrong type.
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
