"""Wording templates: a text from free choices (``[a|b]``) and values (``{slot}``); lists and capital letters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from random import Random


def listing(items: Sequence[str]) -> str:
    """Items joined as "a, b and c"."""
    if len(items) == 1:
        return items[0]
    return f"{', '.join(items[:-1])} and {items[-1]}"


def capitalise(text: str) -> str:
    """Text with a capital letter at its start."""
    return text[:1].upper() + text[1:]


def capitalise_sentences(text: str) -> str:
    """Text with a capital letter at the start of every sentence."""
    return re.sub(r"([.?!] )([a-z])", lambda match: match[1] + match[2].upper(), capitalise(text))


Node = str | tuple[tuple["Node", ...], ...]


@cache
def _parse(template: str) -> tuple[Node, ...]:
    """Template as a sequence of literal texts and choices (each a tuple of sequences)."""
    stack: list[list[list[Node]]] = [[[]]]
    text = ""
    for letter in template:
        if letter not in "[|]" or (letter == "|" and len(stack) == 1):
            text += letter
            continue
        if text:
            stack[-1][-1].append(text)
            text = ""
        if letter == "[":
            stack.append([[]])
        elif letter == "|":
            stack[-1].append([])
        else:
            choice = stack.pop()
            stack[-1][-1].append(tuple(tuple(option) for option in choice))
    if len(stack) != 1:
        raise ValueError(f"unbalanced brackets in template: {template!r}")
    if text:
        stack[-1][-1].append(text)
    return tuple(stack[0][0])


def _draw(rng: Random, nodes: tuple[Node, ...]) -> str:
    return "".join(node if isinstance(node, str) else _draw(rng, rng.choice(node)) for node in nodes)


def realise(rng: Random, template: str, slots: Mapping[str, str] | None = None) -> str:
    """One wording of a template.

    ``[a|b]`` is a free choice of wording, ``{slot}`` a value. Values are put in after the choice, so they may
    hold any letters.
    """
    text = _draw(rng, _parse(template))
    return text.format_map(slots) if slots else text
