"""Where methods come from: the paper's, the baselines, installed packages, or a file of the user's."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import baselines
import distillm
from bench.system.errors import BenchError, did_you_mean
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
    for point in entry_points(group=ENTRY_POINTS):
        try:
            loaded = point.load()
        except Exception as error:  # whatever the package raises; its name is what the user needs
            raise BenchError(f"entry point {point.value}: cannot be loaded: {type(error).__name__}: {error}") from error
        method = _checked(loaded, f"entry point {point.value}")
        if method.name in known:
            raise BenchError(f"entry point {point.value}: a method named {method.name!r} exists already")
        known[method.name] = method
    return known


def find_method(name: str) -> tuple[Method, str | None]:
    """A method by its name, or by `path/to/file.py:NAME`; with the file's SHA-256 in the second case.

    Raises:
        BenchError: unknown name, no such file, or the file does not define such a method.
    """
    path, colon, attribute = name.rpartition(":")
    if colon and path.endswith(".py"):
        return _from_file(Path(path), attribute)
    if name not in methods():
        raise BenchError(
            f"unknown method {name!r}: {did_you_mean(name, methods())}\n"
            "A method of your own: --method path/to/file.py:NAME"
        )
    return methods()[name], None


def _from_file(path: Path, attribute: str) -> tuple[Method, str]:
    if not path.is_file():
        raise BenchError(f"--method {path}:{attribute}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"user_method_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and type hints look their module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's file raises is theirs to read
        raise BenchError(f"--method {path}: the file fails to import: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        found = [key for key, value in vars(module).items() if isinstance(value, Method)]
        raise BenchError(f"--method {path}: it defines no {attribute!r}; methods in it: {', '.join(found) or 'none'}")
    method = _checked(getattr(module, attribute), f"--method {path}:{attribute}")
    if method.name in methods():
        raise BenchError(f"--method {path}:{attribute}: a method named {method.name!r} exists already; rename yours")
    return method, hashlib.sha256(path.read_bytes()).hexdigest()


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
