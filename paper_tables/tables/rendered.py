"""A table for readers and as tidy rows, and its first face: as measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from paper_tables.numbers.cells import INIT_STUDENT, TEACHER, TIME, Measured, Measurement
from paper_tables.numbers.judge_scores import Judgements
from paper_tables.numbers.runs import Selection
from paper_tables.paper.tables import Column, Row, Table
from paper_tables.tables.caption import SIGNS, measured_notes

NOBODY = Judgements()
REFERENCES = {TEACHER: "teacher", INIT_STUDENT: "init student"}
TIME_LABEL = "time / KLD"


@dataclass(frozen=True)
class Cell:
    """What is printed."""

    text: str = ""
    bold: bool = False


@dataclass(frozen=True)
class Sheet:
    """One face of a table.

    Attributes:
        name: of its files, without the ending.
        title: the caption's first sentence.
        notes: the rest of the caption.
        headings: of the columns.
        rows: the cells, from the top.
        frame: the same, tidy, in full precision.
        words: so many columns from the left hold words.
        rule_after: a line is drawn after so many rows.
        long: it may be longer than a page.
    """

    name: str
    title: str
    notes: list[str]
    headings: list[str]
    rows: list[list[Cell]]
    frame: pd.DataFrame
    words: int = 1
    rule_after: int = 0
    long: bool = False


def title_of(table: Table, face: str) -> str:
    """The first sentence of a caption."""
    return f"{table.title}, {face}: {table.caption}."


def as_measured(
    table: Table,
    preset: str,
    selection: Selection,
    measurement: Measurement,
    resamples: int,
    judged: Judgements = NOBODY,
) -> Sheet:
    """Means over training seeds with what is best and what cannot be told from it; and what a judge made of it."""
    references = [name for name in REFERENCES if any(row == name for row, _ in measurement.references)]
    rows = []
    for name, label in [*((n, REFERENCES[n]) for n in references), *((row.name, row.label) for row in table.rows)]:
        found = [
            measurement.references.get((name, c.name)) or measurement.cells.get((name, c.name)) for c in table.columns
        ]
        timed = [Cell(number(judged.cells.get((name, one)))) for one in judged.labels]
        timed += [Cell(number(measurement.times.get(name)))] if table.timed else []
        counts = sorted({len(cell.runs) for cell in found if cell}) if name != TEACHER else []
        n = "–".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))) if counts else ""
        rows.append([Cell(label), *(Cell(number(cell), bool(cell and cell.best)) for cell in found), *timed, Cell(n)])
    return Sheet(
        name=f"{table.file}-{preset}-measured",
        title=title_of(table, "as measured"),
        notes=[*measured_notes(table, selection, measurement, resamples), *judged.notes],
        headings=[
            "",
            *(column.label for column in table.columns),
            *judged.labels.values(),
            *([TIME_LABEL] if table.timed else []),
            "n",
        ],
        rows=rows,
        frame=pd.DataFrame(_measured_rows(table, preset, measurement, judged), columns=_MEASURED),
        rule_after=len(references),
    )


def number(cell: Measured | None) -> str:
    """A cell as it is printed: mean, deviation, and the sign of what is as good as the best."""
    if cell is None:
        return ""
    text = f"{cell.mean:.2f}" + (f" ± {cell.sd:.2f}" if cell.sd is not None else "")
    return f"{text} {SIGNS}" if cell.as_good_as_best else text


_MEASURED = [
    *("table", "preset", "row", "column", "task", "models", "method", "source", "init", "options", "metric", "set"),
    *("mean", "sd", "n", "seeds", "best", "difference_to_best", "p_holm", "as_good_as_best", "runs"),
]


def _measured_rows(table: Table, preset: str, measurement: Measurement, judged: Judgements) -> Iterable[dict[str, Any]]:
    for (name, column_name), cell in measurement.references.items():
        column = next(c for c in table.columns if c.name == column_name)
        about = {"table": table.name, "preset": preset, "row": name, "column": column_name, "task": column.task}
        yield about | _figures(cell, column)
    for row in table.rows:
        for column in table.columns:
            yield _about(table, preset, row, column) | _figures(measurement.cells.get((row.name, column.name)), column)
            if column.name in judged.labels:
                rated = judged.cells.get((row.name, column.name))
                about = _about(table, preset, row, column) | {"column": f"judge-{column.name}"}
                yield about | _figures(rated, column) | ({"metric": "judge"} if rated else {})
        if table.timed:
            about = _about(table, preset, row, table.columns[0]) | {"column": TIME}
            yield about | _figures(measurement.times.get(row.name), None)


def _about(table: Table, preset: str, row: Row, column: Column) -> dict[str, Any]:
    arm = row.arms[column.group]
    return {
        "table": table.name,
        "preset": preset,
        "row": row.name,
        "column": column.name,
        "task": arm.task,
        "models": arm.models,
        "method": arm.method,
        "source": arm.sgo,
        "init": arm.init,
        "options": " ".join(arm.options),
    }


def _figures(cell: Measured | None, column: Column | None) -> dict[str, Any]:
    if cell is None:
        return {"n": 0}
    first = cell.runs[0]
    return {
        "metric": first.record["metric"]["name"] if column else "training time relative to KLD",
        "set": first.scored_set(column.sets) if column else None,
        "mean": cell.mean,
        "sd": cell.sd,
        "n": len(cell.runs),
        "seeds": " ".join(str(seed) for seed in cell.seeds),
        "best": cell.best,
        "difference_to_best": cell.difference,
        "p_holm": cell.p,
        "as_good_as_best": None if cell.p is None else cell.as_good_as_best,
        "runs": " ".join(run.record["run_id"] for run in cell.runs),
    }
