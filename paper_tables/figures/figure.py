"""What every figure function gives back, and what it says when there is nothing to draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from bench.system.errors import BenchError


@dataclass(frozen=True)
class Drawn:
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


def hardware(records: Iterable[Mapping[str, Any]]) -> str:
    """The sentence on what some records' times were measured on."""
    environments = [record["environment"] for record in records]
    found = {f"{e['device_name']} ({e['cpu']}, threads: {e['threads']})" for e in environments}
    return f"Times measured on {'; '.join(sorted(found))}."
