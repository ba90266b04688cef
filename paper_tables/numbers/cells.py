"""A table's statistics: means over training seeds, the best of each column, and what differs from it significantly."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from bench.analysis.significance import detectable_difference, hierarchical_comparison, holm
from bench.analysis.timing import hardware, has_exclusive_timing, usual_hardware
from bench.metrics.registry import find_metric
from bench.record.example_scores import ExampleArray
from bench.record.record import RunRecord
from bench.system.errors import BenchError
from paper_tables.numbers.runs import Run, Selection
from paper_tables.paper.tables import Column, Table

SIGNIFICANCE = 0.05
TIME = "time"
TIME_REFERENCE = "kld"
TEACHER, INIT_STUDENT = "teacher", "init-student"
_NO_EXAMPLES = ExampleArray((), np.zeros(0))


@dataclass(frozen=True)
class CellStatistics:
    """One cell.

    Attributes:
        mean: over training seeds, of the mean over decoding seeds.
        sd: sample standard deviation over training seeds; None with one.
        runs: the runs behind it, by training seed.
        best: it has the highest mean of a column with several.
        difference: the best cell's score less this one's, over pooled predictions; None for the best itself.
        p: of that difference, corrected by Holm over the column's comparisons; None where it was not tested.
    """

    mean: float
    sd: float | None
    runs: tuple[Run, ...]
    best: bool = False
    difference: float | None = None
    p: float | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """The training seeds behind it."""
        return tuple(run.seed for run in self.runs)

    @property
    def as_good_as_best(self) -> bool:
        """The difference to the best was tested and is not significant."""
        return self.p is not None and self.p >= SIGNIFICANCE


@dataclass(frozen=True)
class TableStatistics:
    """A table's cells by row and column name.

    Attributes:
        cells: scores.
        references: scores of the teacher (one for all seeds) and of the init students, by name and column.
        times: training time relative to KLD, by row, where the table has such a column.
        minimum_detectable: by column, the smallest difference to the best that would be found with 80 % probability.
        untimed: rows with runs but no time, and why.
        evaluated: scores of models that were not trained here, by run id and column; they take part in no test.
    """

    cells: Mapping[tuple[str, str], CellStatistics]
    references: Mapping[tuple[str, str], CellStatistics] = field(default_factory=dict)
    times: Mapping[str, CellStatistics] = field(default_factory=dict)
    minimum_detectable: Mapping[str, float] = field(default_factory=dict)
    untimed: Mapping[str, str] = field(default_factory=dict)
    evaluated: Mapping[tuple[str, str], CellStatistics] = field(default_factory=dict)


def table_statistics(table: Table, selection: Selection, resamples: int) -> TableStatistics:
    """All numbers of a table.

    Raises:
        BenchError: runs of one column were scored on different examples.
    """
    cells: dict[tuple[str, str], CellStatistics] = {}
    minimum_detectable: dict[str, float] = {}
    for column in table.columns:
        found, detectable = _column(table, column, selection, resamples)
        cells |= {(row, column.name): cell for row, cell in found.items()}
        if detectable is not None:
            minimum_detectable[column.name] = detectable
    runs_of = {row.name: selection.of_row(row) for row in table.rows}
    times, untimed = relative_times(runs_of, TIME_REFERENCE) if table.timed else ({}, {})
    evaluated = {
        (run.record.run_id, column.name): cell_of([run.score(column.sets)], [run])
        for run in selection.evaluated
        for column in table.columns
        if column.task == run.record.task and run.scored_set(column.sets)
    }
    return TableStatistics(cells, _references(table, selection), times, minimum_detectable, untimed, evaluated)


def _column(
    table: Table, column: Column, selection: Selection, resamples: int
) -> tuple[dict[str, CellStatistics], float | None]:
    """A column's cells by row, and its minimum detectable difference; None where nothing was tested."""
    cells: dict[str, CellStatistics] = {}
    runs_of: dict[str, list[Run]] = {}
    for row in table.rows:
        runs = scored_runs(selection.runs[row.specs[column.group]], column)
        if runs:
            runs_of[row.name] = runs
            cells[row.name] = cell_of([run.score(column.sets) for run in runs], runs)
    if not cells:
        return {}, None
    arrays = by_example(runs_of, column)
    best = max(cells, key=lambda name: cells[name].mean)
    others = [name for name in cells if name != best]
    if not others:
        return cells, None
    cells[best] = replace(cells[best], best=True)
    if arrays[best].shape[1] < 2:  # nothing to draw examples from
        return cells, None
    score = find_metric(runs_of[best][0].record.metric.name).score_of_sum
    results = [hierarchical_comparison(arrays[best], arrays[name], score=score, resamples=resamples) for name in others]
    adjusted = holm([result.p_value for result in results])
    for name, result, p in zip(others, results, adjusted, strict=True):
        cells[name] = replace(cells[name], difference=result.difference, p=p)
    error = statistics.median(result.standard_error for result in results)
    df = statistics.median(result.df for result in results)
    # Holm holds the smallest of m p-values against SIGNIFICANCE / m
    return cells, detectable_difference(error, level=1 - SIGNIFICANCE / len(others), df=df)


def cell_of(values: list[float], runs: Iterable[Run]) -> CellStatistics:
    """Mean and deviation of one value a run."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return CellStatistics(statistics.fmean(values), sd, tuple(runs))


def scored_runs(runs: Iterable[Run], column: Column) -> list[Run]:
    """Those of some runs that were scored on a column's evaluation set."""
    return [run for run in runs if run.scored_set(column.sets)]


def by_example(runs_of: Mapping[str, list[Run]], column: Column) -> dict[str, NDArray[np.float64]]:
    """By name: (training seeds, examples) or (training seeds, examples, counts), the examples in one order.

    Raises:
        BenchError: some runs were scored on other examples.
    """
    scores = {
        name: [run.examples.get(str(run.scored_set(column.sets)), _NO_EXAMPLES) for run in runs]
        for name, runs in runs_of.items()
    }
    most = max((examples for found in scores.values() for examples in found), key=lambda one: len(one.ids))
    for name, found in scores.items():
        for run, examples in zip(runs_of[name], found, strict=True):
            if examples.ids != most.ids or examples.values.shape != most.values.shape:
                raise BenchError(
                    f"{run.record.run_id}: its predictions for {column.label} are not over the same examples as "
                    "those of the other runs; make it again with --fresh"
                )
    return {name: np.stack([examples.values for examples in found]) for name, found in scores.items()}


def _references(table: Table, selection: Selection) -> dict[tuple[str, str], CellStatistics]:
    references = {}
    for column in table.columns:
        specs = [row.specs[column.group] for row in table.rows]
        runs = [run for spec in specs for run in scored_runs(selection.runs[spec], column)]
        if runs:
            first = runs[0]
            teacher = first.score_in(first.record.teacher_scores, column.sets)
            references[TEACHER, column.name] = cell_of([teacher], [first])
        from_sft = [run for run in runs if run.record.config.init == "sft"]
        by_seed = list({run.seed: run for run in sorted(from_sft, key=lambda run: run.seed)}.values())
        if by_seed:
            values = [run.score_in(run.record.init_scores, column.sets) for run in by_seed]
            references[INIT_STUDENT, column.name] = cell_of(values, by_seed)
    return references


def exclusively_timed(runs_of: Mapping[str, Iterable[Run]]) -> dict[str, list[Run]]:
    """Of some runs by name, those whose training times can be compared.

    They were timed with nothing else running, and on the hardware that most of these share.
    """
    timed = {name: [run for run in runs if has_exclusive_timing(run.record)] for name, runs in runs_of.items()}
    usual = usual_hardware(run.record for runs in timed.values() for run in runs)
    return {name: [run for run in runs if hardware(run.record) == usual] for name, runs in timed.items()}


def relative_times(
    runs_of: Mapping[str, list[Run]], reference: str
) -> tuple[dict[str, CellStatistics], dict[str, str]]:
    """Training time over that of a reference, both of exclusively timed runs on the same hardware.

    Returns:
        the times by name, and why some with runs have none.
    """
    timed = exclusively_timed(runs_of)
    base_runs = timed.get(reference, [])
    times: dict[str, CellStatistics] = {}
    untimed: dict[str, str] = {}
    for name, runs in runs_of.items():
        if not runs:
            continue
        if not any(has_exclusive_timing(run.record) for run in runs):
            untimed[name] = "no run that is known to have had the machine to itself"
        elif not timed[name]:
            untimed[name] = "measured on other hardware than most"
        elif not base_runs:
            untimed[name] = f"no run of {reference} to relate it to, on the same hardware and with nothing else running"
        else:
            base = statistics.fmean(training_seconds(run) for run in base_runs)
            times[name] = cell_of([training_seconds(run) / base for run in timed[name]], timed[name])
    return times, untimed


def training_seconds(run: Run) -> float:
    """Wall-clock of its training, validation and checkpoints left out."""
    return run.record.time.training_seconds


def validation_scores(record: RunRecord) -> dict[int, float]:
    """The validation score by training step, where one was measured."""
    return {row.step: row.metric for row in record.validations if row.metric is not None}
