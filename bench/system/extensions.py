"""What users and other packages add: objects from a Python file (`path/to/file.py:NAME`) and from entry points."""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Protocol, TypeVar

from bench.system.errors import BenchError

_LOADED: set[str] = set()  # files of users and of other packages, as tracebacks name them


class _Named(Protocol):
    @property
    def name(self) -> str: ...


NamedT = TypeVar("NamedT", bound=_Named)


@contextmanager
def users_code(where: str) -> Iterator[None]:
    """Run a user's code, or another package's: whatever it raises, SystemExit too, is the user's to read.

    Args:
        where: begins the message.

    Raises:
        BenchError: for any error but Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise BenchError(f"{where}: {type(error).__name__}: {error}") from error


def in_file(text: str) -> tuple[Path, str] | None:
    """The file and the name in it of `path/to/file.py:NAME`; None where the text has another form."""
    path, colon, name = text.rpartition(":")
    return (Path(path), name) if colon and path.endswith(".py") else None


def from_file(path: Path, name: str, fits: Callable[[object], bool], where: str) -> tuple[object, str]:
    """What a Python file calls `name`, and the file's SHA-256; the file is run.

    Args:
        path: the file.
        name: a name defined in it.
        fits: whether a value is of the wanted kind, to say which names would do.
        where: begins messages, for example "--method my.py:METHOD".

    Raises:
        BenchError: there is no such file, it raises an error or ends the program, or it does not define the name.
    """
    if not path.is_file():
        raise BenchError(f"{where}: there is no file {path}")
    code = path.read_bytes()
    module = ModuleType(f"user_file_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and type hints look their module up there
    _LOADED.add(str(path))
    # results only go to standard output
    with users_code(f"{where}: the file fails to import"), redirect_stdout(sys.stderr):
        exec(compile(code, path, "exec"), vars(module))  # the very bytes that are hashed
    if not hasattr(module, name):
        # what the file imports is not its own
        own = [key for key, value in vars(module).items() if fits(value) and _module(value) in (None, module.__name__)]
        raise BenchError(f"{where}: it defines no {name!r}; of this kind it defines: {', '.join(own) or 'none'}")
    return getattr(module, name), hashlib.sha256(code).hexdigest()


def blamed(error: BaseException) -> BenchError | None:
    """The error that a user's file, or another package's, raised in use, with its line; None of one from elsewhere."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename in _LOADED]
    if not frames:
        return None
    return BenchError(f"{frames[-1].filename}, line {frames[-1].lineno}: {type(error).__name__}: {error}")


def _module(value: object) -> str | None:
    """Where a class was defined; None for other values, which do not say."""
    return value.__module__ if isinstance(value, type) else None


def loaded(point: EntryPoint) -> tuple[str, object]:
    """What an installed package declares: words for messages ("entry point pkg:NAME") and the object.

    Raises:
        BenchError: it fails to load.
    """
    where = f"entry point {point.value}"
    with users_code(f"{where}: cannot be loaded"):
        return where, point.load()


def with_packages(
    known: Mapping[str, NamedT], group: str, checked: Callable[[object, str], NamedT], kind: str
) -> dict[str, NamedT]:
    """What ships, by name, and what installed packages declare beside it.

    Args:
        known: what ships.
        group: of entry points.
        checked: gives what an entry point stands for, of the kind that is wanted, or raises a BenchError that begins
            with the words it is given.
        kind: of all this, in a word for messages.

    Raises:
        BenchError: an entry point fails to load, is refused by `checked`, or takes the name of another.
    """
    found = dict(known)
    for point in entry_points(group=group):
        where, declared = loaded(point)
        _LOADED.add(getattr(sys.modules.get(point.module), "__file__", None) or "")
        one = checked(declared, where)
        if one.name in found:
            raise BenchError(f"{where}: a {kind} named {one.name!r} exists already")
        found[one.name] = one
    return found
