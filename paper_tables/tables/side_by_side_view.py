"""A table side by side: measured, published and their difference, cell by cell, with third-party reproductions."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from paper_tables.numbers.cells import TIME, CellStatistics, TableStatistics
from paper_tables.numbers.runs import Selection
from paper_tables.paper.published_values import (
    PublishedValue,
    in_conflict,
    of_cell,
    published,
    reproductions,
    source_tags,
)
from paper_tables.paper.tables import Table
from paper_tables.tables.captions import setting_notes, title
from paper_tables.tables.published_view import published_text, sources_note
from paper_tables.tables.rendered import TIME_LABEL, Cell, RenderedTable, statistics_text


def side_by_side_view(table: Table, preset: str, selection: Selection, found: TableStatistics) -> RenderedTable:
    """A line for each cell of which something is measured, published or reproduced."""
    stated, reproduced = published(table.name), reproductions(table.name)
    cells: list[list[Cell]] = []
    tidy: list[dict[str, object]] = []
    used: dict[str, list[PublishedValue]] = {}
    columns = {c.name: (c.label, table.published_for[c.task] if c.has_published else None) for c in table.columns}
    if table.timed:
        columns[TIME] = (TIME_LABEL, table.published_for[table.columns[0].task])
    for row in table.rows:
        for name, (label, pair) in columns.items():
            measured = found.times.get(row.name) if name == TIME else found.cells.get((row.name, name))
            theirs, others = (of_cell(values, pair, row.name, name) for values in (stated, reproduced))
            if not (measured or theirs or others):
                continue
            used.setdefault(row.label, []).extend([*theirs, *others])
            differences = [measured.mean - value.number for value in theirs] if measured else []
            about = {"table": table.name, "preset": preset, "row": row.name, "column": name, "published_for": pair}
            tidy += _tidy(about, measured, theirs, others)
            cells.append(
                [
                    Cell(row.label),
                    Cell(label),
                    Cell(statistics_text(measured)),
                    Cell(str(len(measured.runs)) if measured else ""),
                    Cell(published_text(theirs)),
                    Cell(" or ".join(f"{difference:+.2f}".replace("-", "−") for difference in differences)),
                    Cell(_range(others)),
                ]
            )
    return RenderedTable(
        name=f"{table.file}-{preset}-side-by-side",
        view="side by side",
        title=title(table, "side by side"),
        notes=_notes(table, selection, used),
        headings=["", "", "measured", "n", "published", "difference", "reproductions"],
        rows=cells,
        frame=pd.DataFrame(tidy, columns=_COLUMNS),
        text_columns=2,
        long=True,
    )


_COLUMNS = [
    *("table", "preset", "row", "column", "measured", "measured_sd", "n", "published_for", "published"),
    *("published_sd", "source", "confidence", "conflict", "difference"),
    *("reproductions", "reproductions_low", "reproductions_high"),
]


def _tidy(
    about: dict[str, str | None],
    measured: CellStatistics | None,
    theirs: list[PublishedValue],
    others: list[PublishedValue],
) -> Iterable[dict[str, object]]:
    """One line for each published value; one where there is none."""
    cell: dict[str, object] = {
        **about,
        "measured": measured.mean if measured else None,
        "measured_sd": measured.sd if measured else None,
        "n": len(measured.runs) if measured else 0,
        "reproductions": "; ".join(f"{value.source} {value}" for value in others),
        "reproductions_low": min((value.number for value in others), default=None),
        "reproductions_high": max((value.number for value in others), default=None),
    }
    if not theirs:
        yield cell
    for value in theirs:
        yield {
            **cell,
            "published": value.text,
            "published_sd": value.sd,
            "source": value.source,
            "confidence": value.confidence,
            "conflict": in_conflict(theirs),
            "difference": measured.mean - value.number if measured else None,
        }


def _range(values: list[PublishedValue]) -> str:
    """Lowest to highest as stated, and how many."""
    if len(values) < 2:
        return values[0].text if values else ""
    ordered = sorted(values, key=lambda value: value.number)
    return f"{ordered[0].text}–{ordered[-1].text} ({len(ordered)})"


def _notes(table: Table, selection: Selection, used: dict[str, list[PublishedValue]]) -> list[str]:
    pairs = ", ".join(dict.fromkeys(table.published_for.values()))
    notes = [
        f"Published: the paper's values for {pairs}, with high (H) or medium (M) confidence; empty where not known. "
        "Difference: measured less published. Reproductions: what third parties measured with the same methods, "
        "lowest to highest (how many); not values of the paper."
    ]
    records = selection.records
    if any(record.config.models.name not in table.published_for.values() for record in records):
        notes.append(
            "The measured models or data are not those of the paper: the differences say how far apart the settings "
            "are and nothing about whether the paper's values can be reproduced."
        )
    by_row = [f"{label} from {', '.join(source_tags(values))}" for label, values in used.items() if values]
    if by_row:
        notes.append(f"Published values and reproductions of {'; '.join(by_row)}.")
        notes.append(sources_note([value for values in used.values() for value in values]))
    notes += [table.note] if table.note else []
    return [*notes, *(setting_notes(records) if records else [])]
