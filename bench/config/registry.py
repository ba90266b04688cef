"""Where methods come from: the paper's, the baselines, installed packages, or a file of the user's."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import baselines
import distillm
from bench.system.errors import BenchError, did_you_mean
from bench.system.extensions import from_entry_points, from_file, in_file
from distillm import SOURCES, Method

ENTRY_POINTS = "distillm_bench.methods"


@cache
def methods() -> dict[str, Method]:
    """All methods known by name: built in, and of installed packages that declare an entry point.

    Raises:
        BenchError: two methods share a name, or an entry point fails to load or gives something else than a method.
    """
    known: dict[str, Method] = {}
    for method in (*baselines.METHODS, *distillm.METHODS):
        known[method.name] = method
    for where, loaded in from_entry_points(ENTRY_POINTS):
        method = _checked(loaded, where)
        if method.name in known:
            raise BenchError(f"{where}: a method named {method.name!r} exists already")
        known[method.name] = method
    return known


def find_method(name: str) -> tuple[Method, str | None]:
    """A method by its name, or by `path/to/file.py:NAME`; with the file's SHA-256 in the second case.

    Raises:
        BenchError: unknown name, no such file, or the file does not define such a method.
    """
    if place := in_file(name):
        return _from_file(*place)
    if name not in methods():
        raise BenchError(
            f"unknown method {name!r}: {did_you_mean(name, methods())}\n"
            "A method of your own: --method path/to/file.py:NAME"
        )
    return methods()[name], None


def _from_file(path: Path, name: str) -> tuple[Method, str]:
    where = f"--method {path}:{name}"
    found, sha256 = from_file(path, name, lambda value: isinstance(value, Method), where)
    method = _checked(found, where)
    if method.name in methods():
        raise BenchError(f"{where}: a method named {method.name!r} exists already; rename yours")
    return method, sha256


def _checked(method: object, where: str) -> Method:
    if not isinstance(method, Method):
        raise BenchError(f"{where}: expected a distillm.Method, got {type(method).__name__}")
    if not dataclasses.is_dataclass(method.objective):
        raise BenchError(f"{where}: the objective must be a dataclass; its fields are the method's options")
    if not isinstance(getattr(method.objective, "needs_teacher", None), bool | property):
        raise BenchError(f"{where}: the objective must say `needs_teacher: ClassVar[bool] = True` (or False)")
    if method.source not in SOURCES:
        raise BenchError(f"{where}: unknown output source {method.source!r}: {did_you_mean(method.source, SOURCES)}")
    return method
