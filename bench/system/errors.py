"""The error that is meant for the user rather than for a developer."""

from collections.abc import Iterable
from difflib import get_close_matches

_NAMED = 24


class BenchError(Exception):
    """Something the user can put right: says what was wrong, where, and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The second half of an "unknown name" message: the nearest known name, or all of them."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"known: {', '.join(names[:_NAMED])}{more}"
