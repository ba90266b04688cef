"""Sections of the configuration, and options that a dataclass declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, fields
from typing import Any, ClassVar, get_type_hints

from pydantic import ConfigDict, SerializerFunctionWrapHandler, create_model, model_serializer

from bench.system.errors import BenchError
from bench.system.extensions import blamed
from bench.system.strict import StrictModel, validated

__all__ = ["Section", "dataclass_options", "validated"]


class Section(StrictModel):
    """A part of the configuration: strict types, finite numbers, no empty text, no unknown keys, immutable.

    Attributes:
        added_later: fields that plain values have only where they differ from their default: a run made before a field
            was there keeps its identity.
    """

    model_config = ConfigDict(str_min_length=1)
    added_later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _as_before(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = plain(self)
        if not self.added_later:
            return values
        known = type(self).model_fields
        usual = {name for name in self.added_later if getattr(self, name) == known[name].default}
        return {name: value for name, value in values.items() if name not in usual}


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
