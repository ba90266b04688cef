"""Names that become parts of paths: of tasks, methods, presets, pairs, metrics, evaluation sets, and ids of runs."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from pydantic import AfterValidator

from bench.system.errors import BenchError

LONGEST = 80
"""Bytes of a name: a run's id holds three, and a file system takes 255."""


def path_part(name: str, longest: int = LONGEST) -> str:
    """The name, if it is safe as a file's or folder's name and stays where it is put.

    Raises:
        ValueError: it is empty or too long, begins with a dot or a dash, or holds a slash or a control character.
    """
    if not name.strip():
        raise ValueError("expected a name, got an empty one")
    if name[0] in ".-":
        raise ValueError(f"a name cannot begin with {name[0]!r}: files are named after it")
    if unfit := next((sign for sign in name if sign in "/\\" or not (sign.isprintable() or sign == " ")), None):
        raise ValueError(f"a name cannot hold {unfit!r}: files are named after it")
    if (size := len(name.encode())) > longest:
        raise ValueError(f"the name has {size} bytes, and files are named after it: use at most {longest}")
    return name


def inner_path(path: str) -> str:
    """A path of folders, if each is safe and all lie within the folder that it is looked for in.

    Raises:
        ValueError: as `path_part`, of any part of it.
    """
    for part in path.split("/"):
        path_part(part, 255)
    return path


def checked_name(name: object, where: str) -> str:
    """The same for a name that code or a file of the user's gives.

    Raises:
        BenchError: it is no text, or unfit; `where` says whose it is.
    """
    try:
        if not isinstance(name, str):
            raise ValueError(f"expected a text, got {type(name).__name__}")
        return path_part(name)
    except ValueError as error:
        raise BenchError(f"{where}: its name is {name!r}: {error}") from error


Name = Annotated[str, AfterValidator(path_part)]
LongName = Annotated[str, AfterValidator(partial(path_part, longest=240))]
"""Of what is put together from names: a run's id, a pair of two models."""
