"""The other two faces of a table: as published, and measured beside published."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from paper_tables.numbers.cells import TIME, Measured, Measurement
from paper_tables.numbers.runs import Selection
from paper_tables.paper.published_values import Value, in_conflict, of_cell, published, reruns, sources, tags
from paper_tables.paper.tables import INSTRUCTION_SETS, Table
from paper_tables.tables.caption import SIGNS, setting_notes
from paper_tables.tables.rendered import TIME_LABEL, Cell, Sheet, number, title_of


def as_published(table: Table) -> Sheet:
    """The paper's values as far as they are known, with how sure they are."""
    values = published(table.name)
    columns = {column.name: column.label for column in table.columns}
    columns |= {value.column: _extra_label(value) for value in values if value.column not in columns}
    own = list(dict.fromkeys(table.published_for.values()))
    rows = []
    for pair in dict.fromkeys([*own, *(value.models for value in values)]):
        for row in table.rows:
            # a table of several pairs has its columns by pair: those of others stay empty in a pair's rows
            found = [of_cell(values, pair, row.name, name) for name in columns]
            if any(found) or pair in own:
                cells = [Cell(_stated(cell)) for cell in found]
                rows.append([Cell(pair), Cell(row.label), *cells])
    notes = ["H: two independent sources, or first-hand; M: one careful source. What is not known is left empty."]
    if any(in_conflict(of_cell(values, v.models, v.row, v.column)) for v in values):
        notes.append("Where sources disagree, each value stands with its source.")
    notes.append(_sources(values) or "No value of this table is known.")
    return Sheet(
        name=f"{table.file}-published",
        title=title_of(table, "as published"),
        notes=notes,
        headings=["models", "", *columns.values()],
        rows=rows,
        frame=pd.DataFrame([_stated_row(table, value) for value in values], columns=_STATED),
        words=2,
    )


_STATED = ["table", "models", "row", "column", "metric", "value", "sd", "source", "sureness", "conflict", "note"]


def _extra_label(value: Value) -> str:
    """Of what the table itself does not have: training time, and what GPT-4 thought of the responses."""
    if value.column == TIME:
        return TIME_LABEL
    judge, _, name = value.column.partition("-")
    return f"{judge.replace('gpt', 'GPT-')}, {INSTRUCTION_SETS[name][0]}" if name in INSTRUCTION_SETS else value.column


def _sources(values: Iterable[Value]) -> str:
    known = [f"{tag}: {sources()[tag]}" for tag in tags(values)]
    return f"Sources (the CSV file has that of each value): {'; '.join(known)}." if known else ""


def _stated(values: list[Value]) -> str:
    if in_conflict(values):
        return " or ".join(f"{value} ({value.sureness}, {value.source})" for value in values)
    return f"{values[0]} ({values[0].sureness})" if values else ""


def _stated_row(table: Table, value: Value) -> dict[str, Any]:
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
        "sureness": value.sureness,
        "conflict": in_conflict(same),
        "note": value.note,
    }


def side_by_side(table: Table, preset: str, selection: Selection, measurement: Measurement) -> Sheet:
    """Measured, published and their difference, cell by cell, with what others measured."""
    stated, again = published(table.name), reruns(table.name)
    cells: list[list[Cell]] = []
    tidy: list[dict[str, Any]] = []
    used: dict[str, list[Value]] = {}
    columns = {c.name: (c.label, c.task) for c in table.columns}
    if table.timed:
        columns[TIME] = (TIME_LABEL, table.columns[0].task)
    for row in table.rows:
        for name, (label, task) in columns.items():
            measured = measurement.times.get(row.name) if name == TIME else measurement.cells.get((row.name, name))
            pair = table.published_for[task] if _is_first(table, name, task) else None
            theirs, others = (of_cell(values, pair, row.name, name) for values in (stated, again))
            if not (measured or theirs or others):
                continue
            used.setdefault(row.label, []).extend([*theirs, *others])
            differences = [measured.mean - value.number for value in theirs] if measured else []
            about = {"table": table.name, "preset": preset, "row": row.name, "column": name, "published_for": pair}
            tidy += _pairs(about, measured, theirs, others)
            cells.append(
                [
                    Cell(row.label),
                    Cell(label),
                    Cell(number(measured).removesuffix(f" {SIGNS}")),
                    Cell(str(len(measured.runs)) if measured else ""),
                    Cell(_stated(theirs)),
                    Cell(" or ".join(f"{difference:+.2f}".replace("-", "−") for difference in differences)),
                    Cell(_range(others)),
                ]
            )
    return Sheet(
        name=f"{table.file}-{preset}-side-by-side",
        title=title_of(table, "side by side"),
        notes=_comparison_notes(table, selection, used),
        headings=["", "", "measured", "n", "published", "difference", "reruns by others"],
        rows=cells,
        frame=pd.DataFrame(tidy, columns=_PAIRED),
        words=2,
        long=True,
    )


_PAIRED = [
    *("table", "preset", "row", "column", "measured", "measured_sd", "n", "published_for", "published"),
    *("published_sd", "source", "sureness", "conflict", "difference", "reruns", "reruns_low", "reruns_high"),
]


def _is_first(table: Table, column: str, task: str) -> bool:
    """Whether published values belong into a column: of several student sizes, into the first."""
    names = [c.name for c in table.columns if c.task == task]
    return column == TIME or len(names) == 1 or not column.startswith(f"{task}-")


def _pairs(
    about: dict[str, Any], measured: Measured | None, theirs: list[Value], others: list[Value]
) -> Iterable[dict[str, Any]]:
    """One line for each published value; one where there is none."""
    ours = {
        "measured": measured.mean if measured else None,
        "measured_sd": measured.sd if measured else None,
        "n": len(measured.runs) if measured else 0,
        "reruns": "; ".join(f"{value.source} {value}" for value in others),
        "reruns_low": min((value.number for value in others), default=None),
        "reruns_high": max((value.number for value in others), default=None),
    }
    if not theirs:
        yield about | ours
    for value in theirs:
        yield (
            about
            | ours
            | {
                "published": value.text,
                "published_sd": value.sd,
                "source": value.source,
                "sureness": value.sureness,
                "conflict": in_conflict(theirs),
                "difference": measured.mean - value.number if measured else None,
            }
        )


def _range(values: list[Value]) -> str:
    if not values:
        return ""
    ordered = sorted(values, key=lambda value: value.number)
    if len(ordered) == 1:
        return ordered[0].text
    return f"{ordered[0].text}–{ordered[-1].text} ({len(ordered)})"


def _comparison_notes(table: Table, selection: Selection, used: dict[str, list[Value]]) -> list[str]:
    pairs = ", ".join(dict.fromkeys(table.published_for.values()))
    notes = [
        f"Published: the paper's values for {pairs}, with how sure they are (H or M); not known: empty. "
        "Difference: measured less published. Reruns: what others measured, lowest to highest (how many); no value of "
        "the paper."
    ]
    records = selection.records
    if any(record["config"]["models"]["name"] not in table.published_for.values() for record in records):
        notes.append(
            "The measured models or data are not those of the paper: the differences say how far apart the settings "
            "are and nothing on whether the paper's values can be reproduced."
        )
    by_row = [f"{label} from {', '.join(tags(values))}" for label, values in used.items() if values]
    if by_row:
        notes.append(f"Published values and reruns of {'; '.join(by_row)}.")
        notes.append(_sources([value for values in used.values() for value in values]))
    return [*notes, *(setting_notes(records) if records else [])]
