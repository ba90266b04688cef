"""From a record to a prompt and its accepted responses: columns and a template, or a conversation."""

from collections.abc import Sequence
from typing import NamedTuple

from bench.data.examples import DataError, Message
from bench.data.readers import RawRecord
from bench.data.task import Column, TaskSpec, format_prompt

_ABSENT = object()


class Content(NamedTuple):
    """What a record holds.

    Attributes:
        key: What prompts are compared by: the texts of the prompt columns or messages, stripped.
        prompt: As `Example.prompt`.
        references: The accepted responses that are not blank, each once.
        messages: As `Example.messages`.
        blank: What has no text though it must have; a record with any is of no use.
    """

    key: tuple[str, ...]
    prompt: str
    references: tuple[str, ...]
    messages: tuple[Message, ...] | None
    blank: tuple[str, ...]


def read_content(spec: TaskSpec, template: str, record: RawRecord) -> Content:
    """Read a record of a task.

    Raises:
        DataError: A column is missing or holds something else than text or messages.
    """
    return _conversation(record) if spec.messages else _prompt_and_response(spec, template, record)


def record_id(record: RawRecord) -> str:
    """The column `id` as text; "" where there is none.

    Raises:
        DataError: it is neither text nor a whole number.
    """
    value = record.values.get("id")
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{record.where}: column 'id' holds {type(value).__name__}, expected text or a whole number")
    return clean_text(record, "id", value).strip() if isinstance(value, str) else str(value)


def _prompt_and_response(spec: TaskSpec, template: str, record: RawRecord) -> Content:
    assert spec.response_column is not None  # what has no messages has columns
    values = {column.name: _text(record, column) for column in spec.prompt_columns}
    references = _references(record, spec.response_column)
    blank = [c.name for c in spec.prompt_columns if not c.optional and not values[c.name].strip()]
    if not references:
        blank.append(spec.response_column.name)
    key = tuple(text.strip() for text in values.values())
    return Content(key, format_prompt(spec, template, values), references, None, tuple(blank))


def _conversation(record: RawRecord) -> Content:
    """The messages before the last one are the prompt; the last, by the assistant, is the response."""
    given = record.values.get("messages")
    if given is None:
        found = ", ".join(record.values) or "none"
        what = _named_for_what_it_is(record) if "conversations" in record.values else ""
        raise DataError(
            f"{record.where}: no column 'messages', which the task says its records have; found: {found}{what}"
        )
    if not isinstance(given, list) or not given:
        raise DataError(f"{record.where}: column 'messages' holds {given!r:.60}, expected a list of messages")
    *prompt, last = [_message(record, number, one) for number, one in enumerate(given, start=1)]
    if last.role != "assistant":
        raise DataError(
            f"{record.where}: column 'messages': the last message is by {last.role!r}, expected 'assistant', whose "
            "message is the response"
        )
    references = _distinct([last.content, *_reference_list(record)])
    blank = ["response"] * (not references)
    if not any(message.content.strip() for message in prompt):
        blank.insert(0, "messages before the response")
    key = tuple(part for message in prompt for part in (message.role, message.content.strip()))
    text = "\n\n".join(f"{message.role}: {message.content}" for message in prompt)
    return Content(key, text, references, tuple(prompt), tuple(blank))


def _message(record: RawRecord, number: int, value: object) -> Message:
    if not isinstance(value, dict) or not {"role", "content"} <= value.keys() or not isinstance(value["role"], str):
        raise DataError(
            f"{record.where}: column 'messages': message {number}: expected role and content, found {value!r:.60}"
        )
    return Message(
        clean_text(record, f"messages.{number}.role", value["role"]),
        clean_text(record, f"messages.{number}.content", value["content"]),
    )


def _lookup(record: RawRecord, column: Column) -> tuple[str, object]:
    """The spelling found and the value; the value is _ABSENT where the record has none of the spellings."""
    for name, path in column.paths:
        value: object = record.values
        for part in path:
            value = value.get(part, _ABSENT) if isinstance(value, dict) else _ABSENT
        if value is not _ABSENT:
            return name, value
    return column.name, _ABSENT


def _no_column(record: RawRecord, column: Column) -> DataError:
    # blanks around a name, and what cannot be printed, are seen in quotes
    found = ", ".join(key if key.strip() == key and key.isprintable() else repr(key) for key in record.values) or "none"
    wanted = " or ".join(repr(name) for name in column.names)
    return DataError(f"{record.where}: no column {wanted}; found: {found}{_named_for_what_it_is(record)}")


def _named_for_what_it_is(record: RawRecord) -> str:
    """What a record without the wanted columns is, where that can be told: a conversation."""
    if "messages" in record.values:
        return (
            "; these are conversations (messages data), which a task file with messages: true reads: "
            "its lines are `name: chat`, `metrics: [rouge_l]` and `messages: true`, in place of columns and templates"
        )
    if "conversations" in record.values:
        return (
            "; these are conversations under another name: write each as `messages`, a list of {role, content} with "
            "the roles system, user and assistant, and give a task file with messages: true"
        )
    return ""


def _text(record: RawRecord, column: Column) -> str:
    name, value = _lookup(record, column)
    if value is _ABSENT:
        if column.optional:
            return ""
        raise _no_column(record, column)
    return clean_text(record, name, value)


def _references(record: RawRecord, column: Column) -> tuple[str, ...]:
    """The accepted responses that are not blank, each once: the response, then the column `references`."""
    responses: list[str] = []
    name, value = _lookup(record, column)
    if value is not _ABSENT:
        responses = [clean_text(record, name, v) for v in (value if isinstance(value, list) else [value])]
    elif record.values.get("references") is None:
        raise _no_column(record, column)
    return _distinct([*responses, *_reference_list(record)])


def _reference_list(record: RawRecord) -> list[str]:
    """The texts of the column `references`, which any record may have."""
    given = record.values.get("references")
    if given is None:
        return []
    if not isinstance(given, list):
        raise DataError(f"{record.where}: column 'references' holds {type(given).__name__}, expected a list of texts")
    return [clean_text(record, "references", value) for value in given]


def _distinct(texts: Sequence[str]) -> tuple[str, ...]:
    """Texts that are not blank, each once."""
    return tuple(dict.fromkeys(text for text in texts if text.strip()))


def clean_text(record: RawRecord, name: str, value: object) -> str:
    """The text in a column: line ends as "\\n", a null as "".

    Raises:
        DataError: it is no text, or no text that can be written.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{record.where}: column {name!r} holds {type(value).__name__}, expected text")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can escape half of a surrogate pair, which no tokenizer takes
        raise DataError(f"{record.where}: column {name!r} holds half of a surrogate pair: {error.reason}") from error
    return value.replace("\r\n", "\n").replace("\r", "\n") if "\r" in value else value
