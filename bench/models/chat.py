"""Prompts of chat sets: the tokenizer's chat template makes them."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Collection, Sequence

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from bench.data import Message
from bench.system.errors import BenchError

_MARK = "\uffff"  # a character that no text has
_TODAY = datetime.date(2024, 7, 26)  # what Llama's templates write where they have no clock


def chat_prompt_ids(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    special: Collection[int],
    spelled: Callable[[str], list[int]],
) -> tuple[int, ...]:
    """Ids of a conversation by the tokenizer's chat template, up to where the assistant's response begins.

    The template writes the special tokens itself: none are added. Those that a message spells stay text. A template
    that writes the date writes the same one on every day.

    Args:
        tokenizer: has the template.
        messages: of the conversation.
        special: ids of the special tokens.
        spelled: gives the ids of a text that is no special token.

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
    marks = set(special) - {tokenizer.unk_token_id}  # which also stands for what cannot be written
    names = sorted(map(tokenizer.convert_ids_to_tokens, marks), key=len, reverse=True)
    marked = re.compile("|".join(f"({re.escape(name[0])}{_MARK}?{re.escape(name[1:])})" for name in names) or "(?!)")
    turns = [{"role": m.role, "content": marked.sub(_mark, m.content)} for m in messages]
    try:
        text: str = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=False, strftime_now=_TODAY.strftime
        )
    except TemplateError as error:
        roles = ", ".join(message.role for message in messages)
        raise BenchError(f"the chat template of {name} refuses messages by {roles}: {error}") from error
    ids: list[int] = tokenizer(text.replace(_MARK, ""), add_special_tokens=False, verbose=False)["input_ids"]
    if _MARK not in text:
        return tuple(ids)
    by_user = iter([_MARK in found.group() for found in marked.finditer(text)])
    made: list[int] = []
    for index in ids:
        is_text = index in marks and next(by_user, False)
        made += spelled(tokenizer.convert_ids_to_tokens(index)) if is_text else [index]
    return tuple(made)


def _mark(found: re.Match[str]) -> str:
    return found.group()[0] + _MARK + found.group()[1:]
