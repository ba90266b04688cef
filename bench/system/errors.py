"""The error that is meant for the user rather than for a developer."""

import errno
from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches

_NAMED = 24
_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "alloc_failed",
    "can't start new thread",
    "threadpoolbuilderror",
)
_PRIMITIVE = "could not create a primitive"
"""oneDNN's words where it gets no memory; of an operation that it does not have it says more."""


class BenchError(Exception):
    """Something the user can put right: says what was wrong, where, and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """


class CannotWrite(BenchError):
    """A folder that cannot be written, whatever for: the disk is full, or it belongs to somebody else."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says; of one that says nothing, its type."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the machine or of a device does not suffice."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    said = str(error).lower()  # PyTorch has a class of its own for devices only
    if isinstance(error, RuntimeError) and said.strip() == _PRIMITIVE:
        return True
    of_rust = type(error).__name__ in ("PanicException", "SafetensorError")  # which are no RuntimeErrors
    raised = isinstance(error, RuntimeError) or of_rust
    return raised and any(words in said for words in _NO_MEMORY)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The second half of an "unknown name" message: the nearest known name, or all of them."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"known: {', '.join(names[:_NAMED])}{more}"


def nearest(name: str, ids: Iterable[str], count: int = 5) -> list[str]:
    """The ids that are most like a name, or that begin most like it, the best first."""

    def unlike(one: str) -> tuple[float, str]:
        matcher = SequenceMatcher(None, b=name, autojunk=False)
        ratios = []
        for part in (one, one[: len(name)]):
            matcher.set_seq1(part)
            ratios.append(matcher.ratio())
        return -max(ratios), one

    return sorted(ids, key=unlike)[:count]
