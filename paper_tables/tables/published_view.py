"""A table as published: the paper's values as far as they are known, with how sure it is that the paper says so."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from paper_tables.numbers.cells import TIME
from paper_tables.paper.published_values import (
    PublishedValue,
    in_conflict,
    of_cell,
    published,
    source_tags,
    sources,
)
from paper_tables.paper.tables import INSTRUCTION_SETS, Table
from paper_tables.tables.captions import title
from paper_tables.tables.rendered import TIME_LABEL, Cell, RenderedTable

EXTRA_COLUMNS = {TIME: TIME_LABEL} | {
    f"gpt4-{name}": f"GPT-4, {label}" for name, (label, _) in INSTRUCTION_SETS.items()
}
"""What the paper has beyond a table's own columns: training time, and what GPT-4 thought of the responses."""


def published_view(table: Table) -> RenderedTable:
    """The values by model pair and row; what is not known is empty."""
    values = published(table.name)
    columns = table.column_labels
    columns |= {value.column: EXTRA_COLUMNS[value.column] for value in values if value.column not in columns}
    own = list(dict.fromkeys(table.published_for.values()))
    rows = []
    for pair in dict.fromkeys([*own, *(value.models for value in values)]):
        for row in table.rows:
            # a table of several pairs has its columns by pair: those of others stay empty in a pair's rows
            found = [of_cell(values, pair, row.name, name) for name in columns]
            if any(found) or pair in own:
                rows.append([Cell(pair), Cell(row.label), *(Cell(published_text(cell)) for cell in found)])
    notes = [
        "H: high confidence (two independent sources, or first-hand); M: medium (one careful source). What is not "
        "known is left empty."
    ]
    if any(in_conflict(of_cell(values, v.models, v.row, v.column)) for v in values):
        notes.append("Where sources disagree, each value stands with its source.")
    notes.append(sources_note(values) or "No value of this table is known.")
    return RenderedTable(
        name=f"{table.file}-published",
        view="as published",
        title=title(table, "as published"),
        notes=notes,
        headings=["models", "", *columns.values()],
        rows=rows,
        frame=pd.DataFrame([_tidy(table, value) for value in values], columns=_COLUMNS),
        text_columns=2,
    )


def published_text(values: list[PublishedValue]) -> str:
    """What is published of one cell, with its confidence; in a conflict each value with its source."""
    if in_conflict(values):
        return " or ".join(f"{value} ({value.confidence}, {value.source})" for value in values)
    return f"{values[0]} ({values[0].confidence})" if values else ""


def sources_note(values: Iterable[PublishedValue]) -> str:
    """The sentence on what the sources' tags stand for; "" without values."""
    known = [f"{tag}: {sources()[tag]}" for tag in source_tags(values)]
    return f"Sources (the CSV file has that of each value): {'; '.join(known)}." if known else ""


_COLUMNS = ["table", "models", "row", "column", "metric", "value", "sd", "source", "confidence", "conflict", "note"]


def _tidy(table: Table, value: PublishedValue) -> dict[str, object]:
    same = of_cell(published(table.name), value.models, value.row, value.column)
    return {
        "table": table.name,
        "models": value.models,
        "row": value.row,
        "column": value.column,
        "metric": value.metric,
        "value": value.text,
        "sd": value.sd,
        "source": value.source,
        "confidence": value.confidence,
        "conflict": in_conflict(same),
        "note": value.note,
    }
