"""Layers of a configuration: nested settings as they are written, before anything checks them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Layer = dict[str, Any]
"""Part of a configuration by section and key; `bench.config.sections.Config` is the shape of the whole."""


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Layer:
    """Deep merge of two layers; the second wins.

    Architectures (`*_config`) are replaced whole, and a length in steps replaces one in epochs and the other way round.
    """
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both and not key.endswith("_config") else value
    for given, other in (("steps", "epochs"), ("epochs", "steps")):
        if over.get(given) is not None and other not in over:
            merged.pop(other, None)
    return merged


def with_values(layer: Mapping[str, Any], values: Mapping[str, Any]) -> Layer:
    """A layer with other values in its sections, by dotted key (`training.steps`); nothing else changes with them."""
    changed = dict(layer)
    for key, value in values.items():
        section, _, name = key.partition(".")
        changed[section] = {**changed[section], name: value}
    return changed
