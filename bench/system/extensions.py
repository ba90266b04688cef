"""What users and other packages add: objects from a Python file (`path/to/file.py:NAME`) and from entry points."""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from bench.system.errors import BenchError

_LOADED: set[str] = set()  # files of users and of other packages, as tracebacks name them


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
    try:
        with redirect_stdout(sys.stderr):  # results only go to standard output
            exec(compile(code, path, "exec"), vars(module))  # the very bytes that are hashed
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the user's file raises, SystemExit too, is theirs to read
        raise BenchError(f"{where}: the file fails to import: {type(error).__name__}: {error}") from error
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


def from_entry_points(group: str) -> Iterator[tuple[str, object]]:
    """What installed packages declare under a group: words for messages ("entry point pkg:NAME") and the object.

    Raises:
        BenchError: one fails to load.
    """
    for point in entry_points(group=group):
        where = f"entry point {point.value}"
        try:
            loaded = point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever the package raises; its name is what the user needs
            raise BenchError(f"{where}: cannot be loaded: {type(error).__name__}: {error}") from error
        _LOADED.add(getattr(sys.modules.get(point.module), "__file__", None) or "")
        yield where, loaded
