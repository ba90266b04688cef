"""The keys of the configuration that `--set` takes, with what each stands for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

from bench.config.resolve import CHOSEN_BY, GIVEN_BY_PRESETS
from bench.config.sections import Config

_WORDS = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    list: "list",
    tuple: "list",
    dict: "object",
}
_TRAININGS_BESIDE = ("teacher_training", "init_training", "student_pretraining")


class Setting(NamedTuple):
    """A key.

    Attributes:
        key: dotted; it ends in `*` where a section has the keys of another.
        value: what it takes, in words.
        default: as JSON; "" where every preset says it, or the task or the method does.
        what: what it stands for.
    """

    key: str
    value: str
    default: str
    what: str


def settings() -> Iterator[Setting]:
    """Every key but those that commands have an option for, and those that presets alone give."""
    yield Setting("method.*", "", "", "the objective's options, such as method.alpha (`bench list methods`)")
    yield from _of_section(Config, "", {})


def _of_section(section: type[BaseModel], before: str, listed: dict[type, str]) -> Iterator[Setting]:
    """A section's keys; where its type, or what that is made from, is listed already, it is named in their place."""
    alike = next((kind for kind in section.__mro__[:2] if kind in listed), None)
    if alike is not None:
        yield Setting(f"{before}*", "", "", f"as {listed[alike]}*")
    listed.setdefault(section, before)
    # the student's own training first, as which others are
    for name, field in sorted(section.model_fields.items(), key=lambda item: item[0] in _TRAININGS_BESIDE):
        key = f"{before}{name}"
        inherited = alike is not None and (alike is section or name not in section.__annotations__)
        if inherited or key in CHOSEN_BY or key.partition(".")[0] in (*GIVEN_BY_PRESETS, "tuning"):
            continue
        types = _choices(field.annotation)
        inner = next((one for one in types if isinstance(one, type) and issubclass(one, BaseModel)), None)
        if inner is None or NoneType in types:
            default = "" if field.is_required() else json.dumps(field.default)
            yield Setting(key, _in_words(field.annotation), default, field.description or "")
        if inner is not None:
            yield from _of_section(inner, f"{key}.", listed)


def _choices(annotation: Any) -> tuple[Any, ...]:
    """The types of which a value may be one."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _in_words(annotation: Any) -> str:
    told = []
    for one in _choices(annotation):
        origin = get_origin(one)
        if origin is Annotated:
            told.append(_in_words(get_args(one)[0]))
        elif origin is Literal:
            told += map(str, get_args(one))
        else:
            told.append("null" if one is NoneType else _WORDS.get(origin or one, "object"))
    return ", ".join(told)
