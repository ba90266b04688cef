"""Where methods come from: the paper's, the baselines, installed packages, or a file of the user's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import get_args

import baselines
import distillm
from bench.config.sections import MethodConfig
from bench.system.errors import BenchError, did_you_mean
from bench.system.extensions import from_file, in_file, with_packages
from bench.system.files import sha256_of
from bench.system.names import checked_name
from distillm import SOURCES, Method
from distillm.interface import Init, PlainText

ENTRY_POINTS = "distillm_bench.methods"


@cache
def methods() -> dict[str, Method]:
    """All methods known by name: built in, and of installed packages that declare an entry point.

    Raises:
        BenchError: two methods share a name, or an entry point fails to load or gives something else than a method.
    """
    built_in = {method.name: method for method in (*baselines.METHODS, *distillm.METHODS)}
    return with_packages(built_in, ENTRY_POINTS, _checked, "method")


def find_method(name: str, sha256: str | None = None) -> tuple[Method, str | None]:
    """A method by its name, or by `path/to/file.py:NAME`; with the file's SHA-256 in the second case.

    Args:
        name: name or file.
        sha256: what the file's SHA-256 has to be; None = anything. Another file is refused before it is run.

    Raises:
        BenchError: unknown name, no such file, another file than expected, or one that does not define such a method.
    """
    if place := in_file(name):
        return _from_file(*place, sha256)
    if name not in methods():
        raise BenchError(
            f"unknown method {name!r}: {did_you_mean(name, methods())}\n"
            "A method of your own: --method path/to/file.py:NAME"
        )
    return methods()[name], None


def _from_file(path: Path, name: str, expected: str | None) -> tuple[Method, str]:
    where = f"method {path}:{name}"
    if expected is not None and path.is_file() and (now := sha256_of(path)) != expected:
        raise BenchError(
            f"{where}: the file has changed: its SHA-256 is {now}, method.file_sha256 of the configuration is "
            f"{expected}.\nTo run it as it is now: --set method.file_sha256=null"
        )
    found, sha256 = from_file(path, name, lambda value: isinstance(value, Method), where)
    method = _checked(found, where)
    if method.name in methods():
        raise BenchError(f"{where}: a method named {method.name!r} exists already; rename yours")
    return method, sha256


def _checked(method: object, where: str) -> Method:
    if not isinstance(method, Method):
        raise BenchError(f"{where}: expected a distillm.Method, got {type(method).__name__}")
    for field in ("name", "source", "init", "paper", "summary", "deviations"):
        if not isinstance(given := getattr(method, field), str):
            raise BenchError(f"{where}: {field}: expected a text, got {given!r}")
    checked_name(method.name, where)
    if not isinstance(method.plain_text, PlainText) or not isinstance(method.source_options, Mapping):
        raise BenchError(f"{where}: expected plain_text=PlainText(...) and source_options={{...}}")
    if not (isinstance(method.objective, type) and dataclasses.is_dataclass(method.objective)):
        raise BenchError(f"{where}: the objective must be a dataclass; its fields are the method's options")
    if not isinstance(getattr(method.objective, "needs_teacher", None), bool | property):
        raise BenchError(f"{where}: the objective must say `needs_teacher: ClassVar[bool] = True` (or False)")
    if taken := {f.name for f in dataclasses.fields(method.objective)} & MethodConfig.model_fields.keys():
        raise BenchError(f"{where}: the objective cannot have an option named {' or '.join(sorted(taken))}")
    if method.init not in get_args(Init):
        raise BenchError(f"{where}: unknown init student {method.init!r}: expected {' or '.join(get_args(Init))}")
    if method.source not in SOURCES:
        raise BenchError(f"{where}: unknown output source {method.source!r}: {did_you_mean(method.source, SOURCES)}")
    return method
