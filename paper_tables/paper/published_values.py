"""What the paper published, as far as it is known, and what others measured when they ran it again.

`published/` holds one file a table with the values graded H (two independent sources, or first-hand) or M (one careful
source); a cell nobody could establish has no line. `reruns.csv` holds other people's measurements of the same methods:
no value of the paper. `sources.csv` says what the tags stand for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

import pandas as pd

FOLDER = resources.files("paper_tables") / "paper" / "published"


@dataclass(frozen=True)
class Value:
    """One stated value. `text` and `sd` are as stated, so that no digits are made up; reruns have no `sureness`."""

    models: str
    row: str
    column: str
    metric: str
    text: str
    sd: str
    source: str
    sureness: str
    note: str

    @property
    def number(self) -> float:
        """The value."""
        return float(self.text)

    def __str__(self) -> str:
        return f"{self.text} ± {self.sd}" if self.sd else self.text


@cache
def published(table: str) -> tuple[Value, ...]:
    """The paper's values of a table, in the order of its file; two of one cell are a conflict between sources."""
    name = table if table == "main" else f"table{table}"
    return tuple(_values(_read(name)))


@cache
def reruns(table: str) -> tuple[Value, ...]:
    """Other people's measurements of what a table shows."""
    frame = _read("reruns")
    return tuple(_values(frame[frame["table"] == table]))


@cache
def sources() -> dict[str, str]:
    """What the sources' tags stand for."""
    frame = _read("sources")
    return dict(zip(frame["tag"], frame["what"], strict=True))


def of_cell(values: Iterable[Value], models: str | None, row: str, column: str) -> list[Value]:
    """The values of one cell for a model pair, the first-named first."""
    return [v for v in values if (v.models, v.row, v.column) == (models, row, column)]


def in_conflict(values: list[Value]) -> bool:
    """Whether sources disagree about one cell."""
    return len({value.number for value in values}) > 1


def tags(values: Iterable[Value]) -> list[str]:
    """The tags of all sources of some values, sorted."""
    return sorted({tag.strip() for value in values for tag in value.source.split(",")})


def _read(name: str) -> pd.DataFrame:
    with (FOLDER / f"{name}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)


def _values(frame: pd.DataFrame) -> list[Value]:
    return [
        Value(
            models=str(row["models"]),
            row=str(row["row"]),
            column=str(row["column"]),
            metric=str(row["metric"]),
            text=str(row["value"]),
            sd=str(row["sd"]),
            source=str(row["source"]),
            sureness=str(row.get("sureness", "")),
            note=str(row["note"]),
        )
        for row in frame.to_dict("records")
    ]
