"""Prompts of chat sets: the tokenizer's chat template makes them."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Collection, Sequence

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from bench.data import Message
from bench.system.errors import BenchError

MARK = "\uffff"  # a character that no text has
Part = tuple[str, bool]  # of a text: whether it is a special token
_TODAY = datetime.date(2024, 7, 26)  # what Llama's templates write where they have no clock


def chat_prompt_ids(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    special: Collection[str],
    parts_ids: Callable[[Sequence[Part]], list[int]],
) -> tuple[int, ...]:
    """Ids of a conversation by the tokenizer's chat template, up to where the assistant's response begins.

    The template writes the special tokens itself: none are added. Those that a message spells stay text. A template
    that writes the date writes the same one on every day.

    Args:
        tokenizer: has the template.
        messages: of the conversation.
        special: the special tokens that no text needs.
        parts_ids: gives the ids of a text in parts, of which some are special tokens.

    Raises:
        BenchError: the tokenizer has no chat template, or its template refuses the conversation.
    """
    name = tokenizer.name_or_path
    if tokenizer.chat_template is None:
        raise BenchError(
            f"the tokenizer {name} has no chat template, which a task with messages needs; use the tokenizer of an "
            "instruction-tuned model (--set models.tokenizer=ID_OR_FOLDER), put a chat_template.jinja beside this one, "
            "or give the task prompt_columns, response_column and templates instead"
        )
    longest_first = sorted(special, key=len, reverse=True)
    marked = re.compile("|".join(f"{re.escape(s[0])}{MARK}?{re.escape(s[1:])}" for s in longest_first) or "(?!)")
    turns = [{"role": m.role, "content": marked.sub(_mark, m.content)} for m in messages]
    try:
        text: str = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=False, strftime_now=_TODAY.strftime
        )
    except TemplateError as error:
        roles = ", ".join(message.role for message in messages)
        raise BenchError(f"the chat template of {name} refuses messages by {roles}: {error}") from error
    if MARK not in text:
        ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return tuple(ids)
    parts: list[Part] = []
    end = 0
    for found in marked.finditer(text):
        if MARK not in found.group():
            parts += [(text[end : found.start()].replace(MARK, ""), False), (found.group(), True)]
            end = found.end()
    return tuple(parts_ids([*parts, (text[end:].replace(MARK, ""), False)]))


def _mark(found: re.Match[str]) -> str:
    return found.group()[0] + MARK + found.group()[1:]
