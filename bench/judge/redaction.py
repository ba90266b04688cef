"""Texts from outside: the key and half characters are taken out of them before they are kept, shown or sent on."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

KEY = "OPENAI_API_KEY"
_SHORTEST_SECRET = 8
_LIKE_A_KEY = re.compile(r"\bsk-[\w-]{16,}")


def key_in_environment() -> str | None:
    """The key, if one is set."""
    return os.environ.get(KEY, "").strip() or None


def without_key(value: Any, key: str | None) -> Any:
    """Text, or plain values with text in them, with the name of the key in its place.

    A placeholder such as "none" or "1", which servers of one's own are given, is no secret and is left alone.
    """
    if key is None or len(key) < _SHORTEST_SECRET:
        return value
    return _in_all_texts(value, lambda text: text.replace(key, f"[{KEY}]"))


def holds_key(text: str) -> bool:
    """Whether a text holds the key of the environment, or what looks like one of OpenAI's."""
    key, plain = key_in_environment(), unquote(text)
    return bool(_LIKE_A_KEY.search(plain)) or without_key(plain, key) != plain


def well_formed(value: Any) -> Any:
    """Text, or plain values with text in them, with U+FFFD for halves of surrogate pairs, which no file can hold."""
    return _in_all_texts(value, lambda text: text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def _in_all_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_in_all_texts(one, change) for one in value]
    if isinstance(value, dict):
        return {_in_all_texts(name, change): _in_all_texts(one, change) for name, one in value.items()}
    return value
