"""The tables of the world: one text file each, in this folder."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def table(name: str) -> tuple[tuple[str, ...], ...]:
    """Rows of ``NAME.txt``: cells divided by ``|``; a line with ``#`` is the heading."""
    text = (files("bench.synthetic.world") / f"{name}.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return tuple(tuple(cell.strip() for cell in line.split("|")) for line in lines)


def column(name: str) -> tuple[str, ...]:
    """The first column of a table: the names of its rows."""
    return tuple(row[0] for row in table(name))
