"""A table as measured: means over training seeds, the best of each column, and what a judge made of the responses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from paper_tables.numbers.cells import COSTS, INIT_STUDENT, TEACHER, TIME, CellStatistics, TableStatistics
from paper_tables.numbers.judge_scores import JudgeScores
from paper_tables.numbers.runs import Selection
from paper_tables.paper.tables import Column, Row, Table
from paper_tables.tables.captions import measured_notes, title
from paper_tables.tables.rendered import (
    COST_LABELS,
    NOT_TRAINED_HERE,
    TIME_LABEL,
    Cell,
    RenderedTable,
    mark,
    statistics_text,
)

REFERENCE_LABELS = {TEACHER: "teacher", INIT_STUDENT: "init student"}


def measured_view(
    table: Table,
    preset: str,
    selection: Selection,
    found: TableStatistics,
    judged: JudgeScores,
    spent: Sequence[str],
) -> RenderedTable:
    """Scores, then a judge's and training times where there are any, then the number of runs."""
    references = [name for name in REFERENCE_LABELS if any(row == name for row, _ in found.references)]
    evaluated = {run.record.run_id: f"{run.record.evaluated} {NOT_TRAINED_HERE}" for run in selection.evaluated}
    names = {name: REFERENCE_LABELS[name] for name in references} | evaluated
    names |= table.row_labels
    scores = {**found.cells, **found.references, **found.evaluated}
    rows = []
    for name, label in names.items():
        cells = [scores.get((name, column.name)) for column in table.columns]
        others = [judged.cells.get((name, column)) for column in judged.labels]
        others += [found.times.get(name)] if table.timed else []
        counts = sorted({len(cell.runs) for cell in cells if cell}) if name != TEACHER and name not in evaluated else []
        n = "–".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))) if counts else ""
        texts = [statistics_text(cell) for cell in others]
        texts += [_cost_text(found.costs.get((name, cost)), cost) for cost in COSTS if table.timed]
        rows.append([Cell(label), *map(_score_cell, cells), *map(Cell, texts), Cell(n)])
    return RenderedTable(
        name=f"{table.file}-{preset}-measured",
        view="as measured",
        title=title(table, "as measured"),
        notes=[*measured_notes(table, selection, found, spent), *judged.notes],
        headings=[
            "",
            *(column.label for column in table.columns),
            *judged.labels.values(),
            *([TIME_LABEL, *COST_LABELS.values()] if table.timed else []),
            "n",
        ],
        rows=rows,
        frame=pd.DataFrame(_tidy(table, preset, found, judged), columns=_COLUMNS),
        rule_after=len(references) + len(evaluated),
    )


def _score_cell(cell: CellStatistics | None) -> Cell:
    return Cell(statistics_text(cell) + mark(cell), bold=bool(cell and cell.best))


def _cost_text(cell: CellStatistics | None, cost: str) -> str:
    if cell is None:
        return ""
    return f"{cell.mean:.2f}" if cost == "before" else f"{cell.mean / 1000:.0f}"


_COST_METRICS = {
    "before": "time before training relative to KLD's training",
    "tokens-trained": "response tokens",
    "tokens-generated": "response tokens",
}
_COLUMNS = [
    *("table", "preset", "row", "column", "task", "models", "method", "output_source", "init_student", "options"),
    *("metric", "set", "mean", "sd", "n", "seeds", "best", "difference_to_best", "p", "as_good_as_best"),
    *("too_noisy", "detectable", "runs"),
]


def _tidy(table: Table, preset: str, found: TableStatistics, judged: JudgeScores) -> Iterable[dict[str, object]]:
    for (name, column_name), cell in {**found.references, **found.evaluated}.items():
        column = next(c for c in table.columns if c.name == column_name)
        about: dict[str, object] = {"table": table.name, "preset": preset, "row": name, "column": column_name}
        about["task"] = column.task
        yield about | _statistics(cell, column)
    for row in table.rows:
        for column in table.columns:
            about = _about(table, preset, row, column)
            yield about | _statistics(found.cells.get((row.name, column.name)), column)
            if column.name in judged.labels:
                rated = judged.cells.get((row.name, column.name))
                about["column"] = f"judge-{column.name}"
                yield about | _statistics(rated, column) | ({"metric": "judge"} if rated else {})
        if table.timed:
            about = _about(table, preset, row, table.columns[0]) | {"column": TIME}
            yield about | _statistics(found.times.get(row.name), None)
            for cost in COSTS:
                spent = found.costs.get((row.name, cost))
                metric = {"metric": _COST_METRICS[cost]} if spent else {}
                yield about | {"column": cost} | _statistics(spent, None) | metric


def _about(table: Table, preset: str, row: Row, column: Column) -> dict[str, object]:
    spec = row.specs[column.group]
    return {
        "table": table.name,
        "preset": preset,
        "row": row.name,
        "column": column.name,
        "task": spec.task,
        "models": spec.models,
        "method": spec.method,
        "output_source": spec.output_source,
        "init_student": spec.init_student,
        "options": " ".join(spec.options),
    }


def _statistics(cell: CellStatistics | None, column: Column | None) -> dict[str, object]:
    """A cell's numbers; without a column, its numbers are times."""
    if cell is None:
        return {"n": 0}
    first = cell.runs[0]
    return {
        "metric": first.record.metric.label if column else "training time relative to KLD",
        "set": first.scored_set(column.sets) if column else None,
        "mean": cell.mean,
        "sd": cell.sd,
        "n": len(cell.runs),
        "seeds": " ".join(str(seed) for seed in cell.seeds),
        "best": cell.best,
        "difference_to_best": cell.difference,
        "p": cell.p,
        "as_good_as_best": None if cell.p is None else cell.as_good_as_best,
        "too_noisy": None if cell.p is None else cell.too_noisy,
        "detectable": cell.detectable,
        "runs": " ".join(run.record.run_id for run in cell.runs),
    }
