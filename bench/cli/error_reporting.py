"""Commands that tell what went wrong: a message and an exit code where Python would print a traceback."""

from __future__ import annotations

import mmap
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from bench.system.errors import BenchError, first_line, out_of_memory
from bench.system.extensions import blamed
from bench.system.terminal import OutputLost, Stream, console, printable, say, to_nowhere

_LEAST_MEMORY = 32 << 20
"""Bytes. With less no command does anything useful; libraries abort, and CPython 3.11 loops for ever over an exception
whose handler it has no memory for."""


_GOES_ON = f"{__name__}.goes_on"


def goes_on_if_interrupted() -> None:
    """From here on the running command, if it is interrupted and given again, goes on from what it has kept."""
    click.get_current_context().meta[_GOES_ON] = True


class ErrorReporting(click.Command):
    """Turns errors a user can mend into a message and exit code 2, and Ctrl-C into a word, about resuming where it can.

    So it does with whatever a user's own code raises.
    """

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line."""
        _check_some_memory()
        try:
            Stream()  # what click itself prints is shown in any encoding, too
            return super().main(*args, **extra)
        except OutputLost as error:
            if error.closed:  # as after `| head -1`
                sys.exit(1)
            _tell(str(error))
        except BenchError as error:
            _tell(str(error))
        except (MemoryError, OSError, RuntimeError) as error:
            if out_of_memory(error):
                _tell(f"out of memory: {first_line(error)}; what is on disk is kept; free some and try again")
            elif isinstance(error, OSError):
                if error.filename is None and error.errno is not None:  # of click's own output, such as --help
                    to_nowhere(sys.stdout)
                said = str(error).partition("] ")[2] or first_line(error)
                _tell(said if error.filename is None else f"cannot read or write {error.filename}: {error.strerror}")
            else:
                raise
        sys.exit(2)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the arguments."""
        try:
            return super().make_context(*args, **extra)
        except click.ClickException as error:
            vars(error).update(message=printable(error.message))
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, or the sub-command."""
        signals: list[int] = []
        try:
            with ended_like_ctrl_c(signals):
                result = super().invoke(ctx)
            Stream().flush()
            return result
        except KeyboardInterrupt:
            goes_on = "; the same command goes on from the last checkpoint" if ctx.meta.get(_GOES_ON) else ""
            say(f"interrupted{goes_on}", err=True)
            sys.exit(128 + (signals[0] if signals else signal.SIGINT))
        except EOFError as error:  # click would say "Aborted!"
            raise BenchError(f"a file ends too early: {error}") from error
        except click.ClickException as error:
            vars(error).update(message=printable(error.message))
            raise
        except BenchError:
            raise
        except BaseException as error:  # SystemExit, too
            if told := blamed(error):
                raise told from error
            raise


@contextmanager
def ended_like_ctrl_c(came: list[int]) -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does, whatever that does at the time; `came` lists them.

    A second one ends it at once where a second Ctrl-C does. What is told to ignore SIGHUP (nohup) goes on ignoring it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: FrameType | None) -> None:
        came.append(number)
        if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, signal.SIG_DFL):  # a shell's background job
            signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)

    caught = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in caught:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)


def check_arguments(words: Sequence[str]) -> None:
    """Refuse what no option or argument is: nothing at all, as an unset variable of a shell gives, and a NUL.

    Args:
        words: what follows the command.

    Raises:
        BenchError: naming the option.
    """
    for index, word in enumerate(words):
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        before = words[index - 1] if index and words[index - 1].startswith("-") and "=" not in words[index - 1] else ""
        where = option or before or f"argument {index + 1}"
        if not value.strip() and (equals or not option):
            raise BenchError(f"{where}: none given: the value is empty (an unset variable of the shell?)")
        if "\0" in word or (not word.isprintable() and _has_half_pairs(word)):
            raise BenchError(f"{where}: {printable(word)[:200]!r} holds a NUL or is not UTF-8; nothing can be named so")


def _has_half_pairs(word: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in word)


def _check_some_memory() -> None:
    try:
        mmap.mmap(-1, _LEAST_MEMORY).close()
    except OSError:
        os.write(2, b"error: out of memory before it began: 32 MiB are not free; see `ulimit -v` and `free`\n")
        sys.exit(2)


def _tell(message: str) -> None:
    try:
        console(err=True).print(f"error: {message}", style="red", soft_wrap=True)
    except MemoryError:  # which rich's way to print takes more of
        os.write(2, f"error: {message}\n".encode(errors="replace"))
