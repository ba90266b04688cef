"""Sections of the configuration, and options that a dataclass declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, fields
from typing import Any, get_type_hints

from pydantic import ConfigDict, create_model

from bench.system.errors import BenchError
from bench.system.extensions import blamed
from bench.system.strict import StrictModel, validated


class Section(StrictModel):
    """A part of the configuration: strict types, finite numbers, no empty text, no unknown keys, immutable."""

    model_config = ConfigDict(str_min_length=1)


def dataclass_options(cls: type, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Validate options against the fields of a dataclass, types strict; returns them with the defaults filled in.

    Raises:
        BenchError: unknown option, wrong type, or a value the dataclass refuses.
    """
    try:
        hints = get_type_hints(cls)
        columns: dict[str, Any] = {f.name: (hints[f.name], _default(f)) for f in fields(cls) if f.init}
        model = create_model(f"{cls.__name__}Options", __base__=Section, **columns)
    except Exception as error:  # what a text of a hint, evaluated, may raise
        raise BenchError(
            f"{where}: the fields of {cls.__name__} must be plain numbers, texts or lists: {error}"
        ) from error
    valid = validated(model, given, where)
    try:
        checked = asdict(cls(**valid.model_dump()))
    except ValueError as error:
        raise BenchError(f"{where}.{error}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # of a user's own class, SystemExit too
        raise blamed(error) or error from error
    return {name: checked[name] for name in columns}


def _default(field: Field[Any]) -> Any:
    """An option's default; an ellipsis where it has none."""
    if field.default_factory is not MISSING:
        return field.default_factory()
    return ... if field.default is MISSING else field.default
