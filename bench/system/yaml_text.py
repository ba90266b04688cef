"""The YAML that configurations, presets, model pairs and tasks are written in; JSON is read too.

YAML 1.1 takes `1e-3` for text. Here it is a number, when read and when written. It also takes `1:30` for 90, `010` for
8 and `no` for false, where YAML 1.2 has other values: these are refused unless they stand in quotes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from bench.system.errors import BenchError
from bench.system.files import KeyTwice, each_key_once, read_text

_EXPONENT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+$")
_ONE_MEANING = re.compile(
    r"true|True|TRUE|false|False|FALSE|[-+]?(?:0|[1-9][0-9]*|0x[0-9a-fA-F]+)"
    r"|[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_LARGEST = 100_000  # values in a file, each use of an alias counted: a few lines of aliases can stand for billions


class _Loader(yaml.SafeLoader):
    """Refuses what has two meanings: plain values that YAML 1.1 and 1.2 read differently, and keys that stand twice."""

    def get_single_data(self) -> Any:
        node = self.get_single_node()
        if node is None:
            return None
        self._count(node, {}, set())
        return self.construct_document(node)

    def as_written(self, node: yaml.ScalarNode) -> str:
        """The text of a value that is none of the kinds used here, such as a date."""
        text: str = node.value
        return text

    def one_meaning(self, node: yaml.ScalarNode) -> Any:
        """The value of a truth value or number.

        Raises:
            ConstructorError: YAML 1.2 reads it as another value, or as text.
        """
        given: str = node.value
        construct = getattr(yaml.SafeLoader, f"construct_yaml_{node.tag.rpartition(':')[2]}")
        if _ONE_MEANING.fullmatch(given):
            return construct(self, node)
        try:
            value = json.dumps(construct(self, node))
        except ValueError:  # 08, which has no such digit
            value = "no number"
        write = "" if value == "no number" else f"{value}, or "
        said = f'{given} is {value} in YAML 1.1 and something else in YAML 1.2; write {write}"{given}" for the text'
        raise ConstructorError(None, None, said, node.start_mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise ConstructorError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def _count(self, node: yaml.Node, counted: dict[int, int], inside: set[int]) -> int:
        """How many values a node stands for."""
        if id(node) in inside:
            raise ConstructorError(None, None, "an alias (*NAME) stands inside what it refers to", node.start_mark)
        if id(node) not in counted:
            inside.add(id(node))
            parts = [one for pair in node.value for one in pair] if isinstance(node, yaml.MappingNode) else node.value
            inner = 0 if isinstance(node, yaml.ScalarNode) else sum(self._count(p, counted, inside) for p in parts)
            counted[id(node)] = 1 + inner
            inside.remove(id(node))
        if counted[id(node)] > _LARGEST:
            raise ConstructorError(None, None, f"it stands for over {_LARGEST} values", node.start_mark)
        return counted[id(node)]


class _Dumper(yaml.SafeDumper):
    pass


for _each in (_Loader, _Dumper):  # the dumper as well, so that it quotes a text that reads like such a number
    _each.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))
    _each.add_implicit_resolver("tag:yaml.org,2002:int", _LEADING_ZERO, list("-+0"))
for _kind in ("bool", "int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.one_meaning)
# a date stays as it is written; nothing here is one
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.as_written)


def _quoted_if_need_be(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML writes some line breaks of Unicode bare, and reads them as others; in double quotes it escapes them
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _quoted_if_need_be)


def parse(text: str) -> Any:
    """The value that a text stands for, as JSON where it is JSON; all of it as JSON knows it (keys are texts).

    Raises:
        BenchError: it is neither JSON nor YAML, or can be read in two ways; begins with ", line N" where that is known.
    """
    try:
        return json.loads(_as_json(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        what = "" if isinstance(error, ConstructorError) else "neither YAML nor JSON: "
        raise BenchError(f"{f', line {mark.line + 1}' if mark else ''}: {what}{error.problem}") from error
    except KeyTwice as error:
        raise BenchError(f": {error}") from error
    except UnicodeEncodeError as error:
        raise BenchError(f": holds half of a surrogate pair: {error.reason}") from error
    except RecursionError:
        raise BenchError(": nested too deeply") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise BenchError(f": neither YAML nor JSON: {error}") from error


def dump(values: Mapping[str, Any]) -> str:
    """Plain values as YAML that `parse` reads as the same values, keys in the order given."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


@lru_cache(256)
def _as_json(text: str) -> str:
    """A text's value as JSON; remembered, because one command asks for the same preset hundreds of times."""
    try:
        value = json.loads(text, object_pairs_hook=each_key_once)
    except json.JSONDecodeError:
        value = yaml.load(text, _Loader)
    written = json.dumps(value, ensure_ascii=False)
    written.encode()
    return written


def read(path: Path) -> dict[str, Any]:
    """The keys and values in a YAML or JSON file, all as JSON knows them (a date is its text).

    Raises:
        BenchError: there is no such file, it cannot be read, or it holds something else.
    """
    text = read_text(path)
    try:
        found = parse(text)
    except BenchError as error:
        raise BenchError(f"{path}{error}") from error
    if not isinstance(found, dict):
        raise BenchError(f"{path}: expected keys with values (KEY: VALUE), got {found!r:.200}")
    return found
