"""Cleans texts from outside before they are kept, shown or sent: no API key, no unpaired surrogates."""

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
    """The API key, if one is set."""
    return os.environ.get(KEY, "").strip() or None


def without_key(value: Any, key: str | None) -> Any:
    """The value with the key replaced by the name of its variable in all texts, however nested.

    A short key is left alone: people set placeholders such as "none" or "1" for their own servers.
    """
    if key is None or len(key) < _SHORTEST_SECRET:
        return value
    return _in_all_texts(value, lambda text: text.replace(key, f"[{KEY}]"))


def holds_key(text: str) -> bool:
    """Whether a text holds the key from the environment, or something that looks like one of OpenAI's."""
    key, plain = key_in_environment(), unquote(text)
    return bool(_LIKE_A_KEY.search(plain)) or without_key(plain, key) != plain


def well_formed(value: Any) -> Any:
    """The value with U+FFFD for unpaired surrogates, which UTF-8 cannot encode, in all texts, however nested."""
    return _in_all_texts(value, lambda text: text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def _in_all_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_in_all_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {_in_all_texts(name, change): _in_all_texts(item, change) for name, item in value.items()}
    return value
