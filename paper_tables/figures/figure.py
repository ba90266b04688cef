"""What every figure function gives back, and what it says when there is nothing to draw."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure

from bench.system.errors import BenchError
from bench.system.manifest import Environment


@dataclass(frozen=True)
class Drawing:
    """A figure with the data it shows.

    Attributes:
        figure: to be saved.
        frame: every number in it, tidy.
        caption: what it shows and how it came about.
    """

    figure: Figure
    frame: pd.DataFrame
    caption: list[str] = field(default_factory=list)


class NothingToDraw(BenchError):
    """The runs that a figure needs are not recorded; says what makes them."""


def timing_note(environments: Iterable[Environment]) -> str:
    """The sentence on what times were measured on."""
    return f"Times measured on {'; '.join(sorted({environment.hardware for environment in environments}))}."
