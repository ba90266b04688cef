"""What goes wrong outside of our own checks is told in a line, whatever kind of error it is."""

from __future__ import annotations

import errno
import gzip

import click
import pytest
from click.testing import CliRunner
from safetensors import SafetensorError

from bench.cli.error_reporting import ErrorReporting
from bench.system.errors import out_of_memory


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConnectionError("connection reset by peer"), "error: connection reset by peer"),
        (gzip.BadGzipFile("Not a gzipped file"), "error: Not a gzipped file"),
        (TimeoutError(), "error: TimeoutError"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            "error: cannot read or write /x: Permission denied",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "error: out of memory: [Errno 12] Cannot allocate memory"),
        (MemoryError(), "error: out of memory: MemoryError"),
    ],
)
def test_an_error_is_never_told_without_words(error, told):
    @click.command(cls=ErrorReporting)
    def command() -> None:
        raise error

    result = CliRunner().invoke(command, [])
    assert result.exit_code == 2
    assert result.stderr.startswith(told)


def test_libraries_have_words_of_their_own_for_too_little_memory():
    for error in (
        SafetensorError("I/O error: Cannot allocate memory (os error 12)"),
        RuntimeError("unable to mmap 2250992 bytes from file <x>: Cannot allocate memory (12)"),
        RuntimeError("can't start new thread"),
    ):
        assert out_of_memory(error)
    assert not out_of_memory(SafetensorError("I/O error: No space left on device (os error 28)"))
    assert not out_of_memory(ValueError("out of memory is the name of a film"))
