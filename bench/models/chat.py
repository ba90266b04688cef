"""Prompts of chat sets: the tokenizer's chat template makes them."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from bench.data import Message
from bench.system.errors import BenchError


def chat_prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> tuple[int, ...]:
    """Ids of a conversation by the tokenizer's chat template, up to where the assistant's response begins.

    The template writes the special tokens itself: none are added.

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
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        ids: list[int] = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    except TemplateError as error:
        roles = ", ".join(message.role for message in messages)
        raise BenchError(f"the chat template of {name} refuses messages by {roles}: {error}") from error
    return tuple(ids)
