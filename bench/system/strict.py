"""Reading plain values (YAML, JSON, `--set`) into typed models, with errors in the words of the user's keys."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from bench.system.errors import BenchError, did_you_mean

_IN_PLAIN_WORDS = {
    "dict_type": "expected an object such as {key: value}",
    "list_type": "expected a list such as [10,20]",
    "missing": "is missing",
    "json_invalid": "a text in it is no valid Unicode (half of a surrogate pair)",
    "model_attributes_type": "expected an object such as {key: value}",
    "model_type": "expected an object such as {key: value}",
    "string_too_short": "expected a text that is not empty",
    "too_short": "expected at least one value",
    "tuple_type": "expected a list such as [a, b]",
}
_SHOWN = 300  # characters of a wrong value


class StrictModel(BaseModel):
    """Strict types, finite numbers, no unknown keys, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def later(default: Any, **given: Any) -> Any:
    """A field that plain values have only where it differs from its default: what was made before it keeps its bytes.

    Args:
        default: its default.
        given: the other arguments of `pydantic.Field`.
    """
    return Field(default, exclude_if=lambda value: bool(value == default), **given)


ModelT = TypeVar("ModelT", bound=StrictModel)


def validated(model: type[ModelT], values: Mapping[str, Any], where: str = "") -> ModelT:
    """Build a model from plain values.

    Args:
        model: what to build.
        values: as YAML or JSON gives them.
        where: the key under which they stand, put before the keys in messages.

    Raises:
        BenchError: one line for each unknown key, wrong type or value out of range.
    """
    try:
        return model.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise BenchError("\n".join(_explain(model, item, where) for item in error.errors())) from error
    except (TypeError, ValueError, RecursionError) as error:  # what JSON does not know, such as a list within itself
        raise BenchError(f"{where or 'configuration'}: {error}") from error


def first_error(error: ValidationError) -> str:
    """The first field that is missing or wrong in what a program wrote, and what is wrong with it."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"


def _explain(model: type[BaseModel], item: ErrorDetails, where: str) -> str:
    parts = [where] * bool(where) + [str(part) for part in item["loc"]]
    key = ".".join(parts)
    if item["type"] == "extra_forbidden":
        fields = _type_at(model, item["loc"][:-1]).model_fields
        known = [".".join([*parts[:-1], name]) for name in fields]
        return f"unknown key {key!r}: {did_you_mean(key, known) if known else 'it has no options'}"
    said = _IN_PLAIN_WORDS.get(item["type"], item["msg"].removeprefix("Value error, "))
    # a model's own check names its keys itself, and its input would be the whole file
    shown = "" if item["type"] in ("missing", "json_invalid") else f", got {item['input']!r}"
    shown = "" if isinstance(item["input"], dict) else shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
    return f"{key}: {said}{shown}" if key else f"{said}{shown}"


def _type_at(model: Any, path: Sequence[int | str]) -> Any:
    """The type that stands at a path of keys and positions in a model; `None` beside a type is left out."""
    for part in path:
        if isinstance(model, type) and issubclass(model, BaseModel):
            model = model.model_fields[str(part)].annotation
        else:  # a list, tuple or mapping: what it holds is the last of its arguments that is a type
            model = [one for one in get_args(model) if one is not Ellipsis][-1]
        if type(None) in get_args(model):
            model = next(one for one in get_args(model) if one is not type(None))
    return model
