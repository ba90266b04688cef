"""Strict validation of plain values, with errors in the words of the user's keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import ErrorDetails

from bench.system.errors import BenchError, did_you_mean

_IN_PLAIN_WORDS = {
    "list_type": "expected a list such as [10,20]",
    "too_short": "expected at least one value, such as [10,20]",
}


class Section(BaseModel):
    """A part of the configuration: strict types, finite numbers, no unknown keys, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


SectionT = TypeVar("SectionT", bound=Section)


def validated(model: type[SectionT], values: Mapping[str, Any], where: str = "") -> SectionT:
    """Build a section from plain values.

    Raises:
        BenchError: one line for each unknown key, wrong type or value out of range.
    """
    try:
        return model.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise BenchError("\n".join(_explain(model, item, where) for item in error.errors())) from error
    except TypeError as error:  # a value YAML knows and JSON does not, such as a date
        raise BenchError(f"{where or 'configuration'}: {error}") from error


def dataclass_options(cls: type, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Validate options against the fields of a dataclass, types strict; returns them with the defaults filled in.

    Raises:
        BenchError: unknown option, wrong type, or a value the dataclass refuses.
    """
    hints = get_type_hints(cls)
    columns: dict[str, Any] = {
        f.name: (hints[f.name], ... if f.default is MISSING else f.default) for f in fields(cls) if f.init
    }
    model = create_model(f"{cls.__name__}Options", __base__=Section, **columns)
    valid = validated(model, given, where)
    try:
        checked = asdict(cls(**valid.model_dump()))
    except ValueError as error:
        raise BenchError(f"{where}.{error}") from error
    return {name: checked[name] for name in columns}


def _explain(model: type[BaseModel], item: ErrorDetails, where: str) -> str:
    parts = [where] * bool(where) + [str(part) for part in item["loc"]]
    key = ".".join(parts)
    if item["type"] == "extra_forbidden":
        section = model
        for part in item["loc"][:-1]:
            annotation = section.model_fields[str(part)].annotation
            assert isinstance(annotation, type)
            section = annotation
        known = [".".join([*parts[:-1], name]) for name in section.model_fields]
        return f"unknown key {key!r}: {did_you_mean(key, known) if known else 'it has no options'}"
    shown = "" if item["type"] == "missing" else f", got {item['input']!r}"
    said = _IN_PLAIN_WORDS.get(item["type"], item["msg"].removeprefix("Value error, "))
    return f"{key}: {said}{shown}"
