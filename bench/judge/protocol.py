"""What a judge is asked, and how its answer is read: two ratings from 1 to 10, or which of two responses is better."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from importlib import resources
from typing import Literal

import yaml

from bench.judge.messages import Answer, Message
from bench.system.hashing import digest
from bench.system.manifest import Plain

PROMPTS = resources.files("bench") / "judge" / "prompts"
ProtocolName = Literal["rating", "pairwise"]
Verdict = tuple[float, float]
"""What the first and second response got: two ratings, or (1, 0), (0, 1) or (0.5, 0.5) for a preference or a tie."""

# two numbers and nothing else: prose around them was not asked for, and guessing would bias the score; both may be
# out of 10, or both named, first the first
_NUMBER = r"(\d{1,2}(?:\.\d{1,2})?)"
_BETWEEN = r"(?:[ \t]+|[ \t]*[,;][ \t]*)"
_RATINGS = [
    re.compile(f"{one}{_BETWEEN}{other}", re.ASCII | re.IGNORECASE)
    for unit in ("", "/10")
    for one, other in (
        (_NUMBER + unit, _NUMBER + unit),
        (rf"Assistant 1[ \t]*:[ \t]*{_NUMBER}{unit}", rf"Assistant 2[ \t]*:[ \t]*{_NUMBER}{unit}"),
    )
]
_EMPHASIS = re.compile(r"(?<![\w*`])(\*\*|__|[*_`])(?=\S)([^*_`]+)(?<=\S)\1(?![\w*`])")
# what a model thought before it answered. The opening tag may stand in the server's prompt instead
_THINKING = "think|thinking|thought|reasoning"
_THOUGHT = re.compile(rf"(?:[<\[]({_THINKING})[>\]])?(.*?)[<\[]/({_THINKING})[>\]]", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(rf"[<\[](/?)(?:{_THINKING})[>\]]", re.IGNORECASE)
# how models decline in plain text: an apology followed by a "but" or a person, or an inability right away
_REFUSAL = re.compile(
    r"(?:(?:i'm|i am)(?: very| so| really)? sorry|sorry|i apologi[sz]e|my apologies|unfortunately)\b,?(?: but)? "
    r"(?:i\b|as an ai\b|both\b|the\b|this\b|that\b|these\b)"
    r"|as an ai\b"
    r"|(?:i|we) (?:can't|cannot|can not|won't|will not|couldn't|could not|(?:must |have to )?(?:decline|refuse))\b"
    r"|(?:i'm|i am|we're|we are) (?:unable|not able|not allowed|not permitted)\b",
    re.IGNORECASE,
)
_PREFERENCES: dict[str, Verdict] = {"1": (1.0, 0.0), "2": (0.0, 1.0), "tie": (0.5, 0.5)}


class Outcome(StrEnum):
    """How a question ended. Only `SCORED` enters a score."""

    SCORED = "scored"
    UNPARSABLE = "unparsable"  # complete, but not in the requested form
    REFUSED = "refused"  # the judge declined
    TRUNCATED = "truncated"  # cut at the token limit before the verdict was whole
    FILTERED = "filtered"  # withheld by the server's content filter
    TOO_LONG = "too long"  # does not fit into the judge's context
    REJECTED = "rejected"  # turned down by the server for another reason, though it answers other questions


class Prompt(Plain):
    """A file of the folder `prompts`.

    Attributes:
        version: changes with the texts.
        source: where the prompt comes from, in words.
        system, user: the two messages, as format strings over `question`, `first`, `second` and `code`.
        reminder: added to `user` after an answer that could not be read.
    """

    version: str
    source: str
    system: str
    user: str
    reminder: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the texts: shows that a prompt has changed even if its version has not."""
        return digest(self.model_dump(include={"system", "user", "reminder"}))


@dataclass(frozen=True)
class Protocol:
    """A way of judging: its prompt, and how a verdict is read.

    Args:
        name: `rating` or `pairwise`, also the name of the prompt's file.
    """

    name: ProtocolName

    @cached_property
    def prompt(self) -> Prompt:
        """The prompt that ships under this name."""
        return Prompt.model_validate(yaml.safe_load((PROMPTS / f"{self.name}.yaml").read_text(encoding="utf-8")))

    def messages(self, question: str, first: str, second: str, *, again: bool = False) -> list[Message]:
        """The chat that asks for a verdict.

        Args:
            question: what the assistants were asked.
            first: the response shown first.
            second: the response shown second.
            again: add the reminder of the form, after an answer that could not be read.
        """
        texts = {"question": question, "first": first, "second": second}
        texts["code"] = _code(texts)
        user = self.prompt.user.format_map(texts) + (f"\n{self.prompt.reminder}" if again else "")
        return [
            Message(role="system", content=self.prompt.system.format_map(texts)),
            Message(role="user", content=user),
        ]

    def read(self, answer: Answer) -> tuple[Outcome, Verdict | None]:
        """The outcome of an answer, and its verdict if that is `Outcome.SCORED`."""
        if answer.finish_reason in (Outcome.TOO_LONG, Outcome.FILTERED, Outcome.REJECTED):
            return Outcome(answer.finish_reason), None
        if answer.finish_reason == "content_filter":
            return Outcome.FILTERED, None
        if answer.refusal:
            return Outcome.REFUSED, None
        cut = answer.finish_reason == "length"
        text = _without_thought(answer.content)
        if text is None:
            return Outcome.TRUNCATED if cut else Outcome.UNPARSABLE, None
        first, whole, _ = (text.lstrip() if cut else text.strip("\r\n\t ")).partition("\n")
        if _REFUSAL.match(first.replace("’", "'")):
            return Outcome.REFUSED, None
        if cut and not whole:
            return Outcome.TRUNCATED, None  # "1" may be the beginning of "10"
        verdict = self._verdict(first.strip())
        return (Outcome.SCORED, verdict) if verdict else (Outcome.UNPARSABLE, None)

    def _verdict(self, line: str) -> Verdict | None:
        line = _EMPHASIS.sub(r"\2", line)
        if self.name == "pairwise":
            return _PREFERENCES.get(line.lower())
        match = next((match for form in _RATINGS if (match := form.fullmatch(line))), None)
        if match is None:
            return None
        ratings = float(match[1]), float(match[2])
        return ratings if all(1 <= rating <= 10 for rating in ratings) else None


def _without_thought(text: str) -> str | None:
    """What follows a model's thoughts, all of it where it does not begin with any.

    None where it is open what that is: thoughts without an end, or tags inside or after them, perhaps of a response
    that is quoted there.
    """
    text = text.lstrip()
    tag = _TAG.search(text)
    if tag is None or (tag.start() and not tag[1]):
        return text
    thought = _THOUGHT.match(text)
    if thought is None or (thought[1] or thought[3]).lower() != thought[3].lower():
        return None
    rest = text[thought.end() :]
    return None if _TAG.search(thought[2]) or _TAG.search(rest) else rest


def _code(texts: dict[str, str]) -> str:
    """A code that occurs in none of the texts: equal for equal texts, and impossible to guess from inside them."""
    salt = 0
    while True:
        code = digest({**texts, "salt": salt})[:16]
        if not any(code in text for text in texts.values()):
            return code
        salt += 1
