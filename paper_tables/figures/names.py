"""The figures' names and those of their files: all that a report of figures that were made needs to know of them."""

from __future__ import annotations

from paper_tables.paper.ablations import ABLATIONS

FIGURES = ("1", "2", "3", "6", "7", "8", "pareto", "budget", "theory", *(n for n in ABLATIONS if n != "alpha"))


def file_of(name: str, preset: str) -> str:
    """The beginning of a figure's file names."""
    return f"figure{name}-{preset}" if name.isdigit() else f"{name}-{preset}"
