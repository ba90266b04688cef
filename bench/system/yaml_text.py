"""The YAML that configurations, presets, model pairs and tasks are written in; JSON is read too.

YAML 1.1 takes `1e-3` for text. Here it is a number, when read and when written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from bench.system.errors import BenchError

_EXPONENT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")


class _Loader(yaml.SafeLoader):
    pass


class _Dumper(yaml.SafeDumper):
    pass


for _each in (_Loader, _Dumper):  # the dumper as well, so that it quotes a text that reads like such a number
    _each.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def _quoted_if_need_be(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML writes some line breaks of Unicode bare, and reads them as others; in double quotes it escapes them
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _quoted_if_need_be)


def parse(text: str) -> Any:
    """The value that a text stands for, as JSON where it is JSON.

    Raises:
        yaml.YAMLError: it is neither JSON nor YAML.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return yaml.load(text, _Loader)


def dump(values: Mapping[str, Any]) -> str:
    """Plain values as YAML that `parse` reads as the same values, keys in the order given."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


@lru_cache(256)
def _as_json(text: str) -> str:
    """What `parse` gives, as JSON; remembered, because one command asks for the same preset hundreds of times."""
    return json.dumps(parse(text), default=str)


def read(path: Path) -> dict[str, Any]:
    """The keys and values in a YAML or JSON file, all as JSON knows them (a date is its text).

    Raises:
        BenchError: there is no such file, it cannot be read, or it holds something else.
    """
    try:
        found = json.loads(_as_json(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BenchError(f"{path}: cannot be read: {error.strerror or error}") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BenchError(f"{path}{line}: neither YAML nor JSON: {error.problem}") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise BenchError(f"{path}: neither YAML nor JSON: {error}") from error
    if not isinstance(found, dict):
        raise BenchError(f"{path}: expected keys with values (KEY: VALUE), got {found!r}")
    return found
