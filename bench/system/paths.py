"""What lies at a path, so that a pipe, device or folder where a file is wanted is refused before any work."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from bench.system.errors import BenchError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_folder(path: Path, what: str = "", *, write: bool = False) -> None:
    """Refuse a path that neither is a folder nor can become one.

    Args:
        path: it need not be there.
        what: the option or key that gave it.
        write: something is to be written there.

    Raises:
        BenchError: there is something else, on the way to it or in its place; or nobody may write there.
    """
    there = _nearest(path, what)
    _check(there, "a folder", path, what)
    if write and not os.access(there, os.W_OK | os.X_OK):
        raise BenchError(f"{_named(path, what)}: cannot write below {there}: permission denied; choose another folder")


def check_file(path: Path, what: str = "", *, write: bool = False, there: bool = False) -> None:
    """Refuse a path that neither is a plain file nor can become one.

    Opening a named pipe waits for ever, and reading a device may never end.

    Args:
        path: the file.
        what: the option or key that gave it.
        write: it is to be written.
        there: it has to be there.

    Raises:
        BenchError: as `check_folder`; or nothing is there.
    """
    if _nearest(path, what) == path:
        _check(path, "a file", path, what)
    elif there:
        raise BenchError(f"{_named(path, what)}: cannot be read: {os.strerror(errno.ENOENT)}")
    else:
        check_folder(path.parent, what, write=write)


def _nearest(path: Path, what: str) -> Path:
    """The path, or the first of the folders above it that is there."""
    for one in (path, *path.parents):
        try:
            one.stat()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise BenchError(f"{_named(path, what)}: {error.strerror}") from error
        except ValueError as error:  # a NUL in the name
            raise BenchError(f"{_named(path, what)}: {error}") from error
        else:
            return one
    return Path()


def _check(there: Path, wanted: str, path: Path, what: str) -> None:
    kind = _KINDS.get(stat.S_IFMT(there.stat().st_mode), "something else")
    if kind != wanted:
        where = f"{there} is" if there != path else "it is"
        raise BenchError(f"{_named(path, what)}: cannot write or read there: {where} {kind}, not {wanted}")


def _named(path: Path, what: str) -> str:
    shown = str(path) if len(str(path)) < 300 else f"{str(path)[:300]}..."
    return f"{what} {shown}".strip()
