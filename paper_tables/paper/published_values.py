"""What the paper published, as far as it is known, and third-party reproductions of it.

`published/` holds one file a table. Each value has a confidence: H (high: two independent sources, or first-hand) or M
(medium: one careful source). A cell that nobody could establish has no line. `reproductions.csv` holds what third
parties measured with the same methods; no value in it is the paper's. `sources.csv` says what the sources' tags mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

import pandas as pd

FOLDER = resources.files("paper_tables") / "paper" / "published"


@dataclass(frozen=True)
class PublishedValue:
    """One stated value.

    Attributes:
        models: the model pair.
        row, column: of the table.
        metric: its label.
        text, sd: the value and its standard deviation as stated, so that no digits are made up; "" without one.
        source: tags of those who state it, separated by commas.
        confidence: H or M that the paper says so; "" for a third-party reproduction.
        note: what else is known of it.
    """

    models: str
    row: str
    column: str
    metric: str
    text: str
    sd: str
    source: str
    confidence: str
    note: str

    @property
    def number(self) -> float:
        """The value as a number."""
        return float(self.text)

    def __str__(self) -> str:
        return f"{self.text} ± {self.sd}" if self.sd else self.text


@cache
def published(table: str) -> tuple[PublishedValue, ...]:
    """The paper's values of a table, in the order of its file; two of one cell are a conflict between sources."""
    name = table if table == "main" else f"table{table}"
    return tuple(_values(_read(name)))


@cache
def reproductions(table: str) -> tuple[PublishedValue, ...]:
    """What third parties measured of a table."""
    frame = _read("reproductions")
    return tuple(_values(frame[frame["table"] == table]))


@cache
def sources() -> dict[str, str]:
    """What each source's tag stands for."""
    frame = _read("sources")
    return dict(zip(frame["tag"], frame["what"], strict=True))


def of_cell(values: Iterable[PublishedValue], models: str | None, row: str, column: str) -> list[PublishedValue]:
    """The values of one cell for a model pair, the first-named first."""
    return [v for v in values if (v.models, v.row, v.column) == (models, row, column)]


def in_conflict(values: list[PublishedValue]) -> bool:
    """Whether sources disagree about one cell."""
    return len({value.number for value in values}) > 1


def source_tags(values: Iterable[PublishedValue]) -> list[str]:
    """The tags of all sources of some values, sorted."""
    return sorted({tag.strip() for value in values for tag in value.source.split(",")})


def _read(name: str) -> pd.DataFrame:
    with (FOLDER / f"{name}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)


def _values(frame: pd.DataFrame) -> list[PublishedValue]:
    return [
        PublishedValue(
            models=str(row["models"]),
            row=str(row["row"]),
            column=str(row["column"]),
            metric=str(row["metric"]),
            text=str(row["value"]),
            sd=str(row["sd"]),
            source=str(row["source"]),
            confidence=str(row.get("confidence", "")),
            note=str(row["note"]),
        )
        for row in frame.to_dict("records")
    ]
