"""A table as it is printed, whatever the format."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from paper_tables.numbers.cells import CellStatistics

AS_GOOD_AS_BEST = "†"
TOO_NOISY = "?"
NOT_TRAINED_HERE = "‡"
TIME_LABEL = "time / KLD"
COST_LABELS = {
    "before": "before / KLD",
    "tokens-trained": "k tokens trained",
    "tokens-generated": "k tokens generated",
}


@dataclass(frozen=True)
class Cell:
    """A cell's text."""

    text: str = ""
    bold: bool = False


@dataclass(frozen=True)
class RenderedTable:
    """One view of a table.

    Attributes:
        name: of its files, without the ending.
        view: what it shows: "as measured", "as published" or "side by side".
        title: the caption's first sentence.
        notes: the rest of the caption.
        headings: of the columns.
        rows: the cells, from the top.
        frame: the same as tidy rows, in full precision.
        text_columns: so many columns from the left hold words.
        rule_after: a line is drawn after so many rows.
        long: it may be longer than a page.
    """

    name: str
    view: str
    title: str
    notes: list[str]
    headings: list[str]
    rows: list[list[Cell]]
    frame: pd.DataFrame
    text_columns: int = 1
    rule_after: int = 0
    long: bool = False


def mark(cell: CellStatistics | None) -> str:
    """What a cell's text ends with that is not significantly different from the best; "" otherwise."""
    if cell is None:
        return ""
    return f" {AS_GOOD_AS_BEST}" if cell.as_good_as_best else f" {TOO_NOISY}" if cell.too_noisy else ""


def statistics_text(cell: CellStatistics | None) -> str:
    """Mean and deviation, to two decimals; "" for a cell without runs."""
    if cell is None:
        return ""
    return f"{cell.mean:.2f}" + (f" ± {cell.sd:.2f}" if cell.sd is not None else "")
