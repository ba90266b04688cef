"""The one place that writes to standard output and standard error.

What is written is data: paths, ids, texts, names of other people's files. None of it is markup, and no control
character or escape sequence in it reaches the terminal: they are shown (`\\x1b`). What the encoding of the stream lacks
is shown as well. Importing this imports neither rich nor PyTorch.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

from bench.system.errors import BenchError

if TYPE_CHECKING:
    from rich.console import Console

# C0 but tab and line feed, DEL, C1, what turns the direction of writing round, halves of surrogate pairs
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """A text with its control characters shown, not sent; its tabs and line breaks stay."""
    return _UNSAFE.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


class OutputLost(BenchError):
    """Standard output takes no more; `closed` where its reader has gone, which is no failure of ours."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written: {error.strerror or error}; what was made is kept")
        self.closed = error.errno == errno.EPIPE


class Stream(io.TextIOBase):
    """Standard output, or standard error, as it is when this is made.

    Where standard error takes no more, work goes on without a word: a closed terminal must not cost a training.

    Raises:
        OutputLost: when standard output is written and takes no more.
    """

    def __init__(self, *, err: bool = False) -> None:
        self._err, self._to = err, sys.stderr if err else sys.stdout
        if isinstance(self._to, io.TextIOWrapper) and self._to.errors != "backslashreplace":
            self._to.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write, as far as there is something that takes it."""
        try:
            return self._to.write(text) if self._to else len(text)
        except (OSError, ValueError) as error:  # ValueError: it was closed
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Hand over what was written."""
        try:
            if self._to:
                self._to.flush()
        except (OSError, ValueError) as error:
            self._lose(error)

    def _lose(self, error: OSError | ValueError) -> None:
        to_nowhere(self._to)
        if not self._err and isinstance(error, OSError):
            raise OutputLost(error) from error

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._to is not None and self._to.isatty()

    def fileno(self) -> int:
        """The file descriptor."""
        if self._to is None:
            raise io.UnsupportedOperation("fileno")
        return self._to.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of what it writes to."""
        return getattr(self._to, "encoding", None) or "utf-8"


def to_nowhere(stream: TextIO | None) -> None:
    """Let what a stream still holds go to the null device, so that the interpreter's last flush does not fail."""
    try:
        if stream is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):  # it has no descriptor
        pass


def say(text: str, *, err: bool = False) -> None:
    """Write a line or several, as data, to standard output or standard error.

    Raises:
        OutputLost: standard output takes no more.
    """
    stream = Stream(err=err)
    stream.write(printable(text) + "\n")
    stream.flush()


def warn(message: str) -> None:
    """Tell on standard error what was left out."""
    say(f"warning: {message}", err=True)


def say_json(value: Any) -> None:
    """Write plain values as JSON on standard output, whose unsafe characters are escaped the JSON way.

    Raises:
        OutputLost: standard output takes no more.
    """
    stream = Stream()
    text = json.dumps(value, indent=1, ensure_ascii=not stream.encoding.lower().startswith("utf"))
    stream.write(_UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", text) + "\n")
    stream.flush()


def console(*, err: bool = False) -> Console:
    """A rich console, for tables and live displays: what it prints is data, as with `say`."""
    from bench.system.console import DataConsole

    return DataConsole(err=err)
