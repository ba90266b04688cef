"""A table's statistics: means over training seeds, the best of each column, and what differs from it significantly."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.analysis.blocks import Arm, SeedNoise, compare_among, levels, seed_noise
from bench.analysis.significance import MOST_SEEDS, Estimate, detectable_difference, level_of_best, p_values_of_best
from bench.analysis.timing import (
    REPEATS_WITHIN,
    hardware,
    has_exclusive_timing,
    slow_few,
    slow_runs,
    step_spread,
    usual_hardware,
)
from bench.metrics.registry import find_metric
from bench.record.example_scores import NO_EXAMPLES
from bench.record.record import RunRecord
from bench.system.errors import BenchError
from paper_tables.numbers.runs import Run, Selection
from paper_tables.paper.run_spec import RunSpec
from paper_tables.paper.tables import Column, Table

SIGNIFICANCE = 0.05
TIME = "time"
TIME_REFERENCE = "kld"
COSTS = ("before", "tokens-trained", "tokens-generated")
"""What a method needs before its training, relative to KLD's training time; response tokens."""
TEACHER, INIT_STUDENT = "teacher", "init-student"
_Pool = tuple[str, str, tuple[str, ...]]
"""Task, models and evaluation set, by the names that records may have for it."""


@dataclass(frozen=True)
class CellStatistics:
    """One cell.

    Attributes:
        mean: over training seeds, of the mean over decoding seeds.
        sd: sample standard deviation over training seeds; None with one.
        runs: the runs behind it, by training seed.
        best: it has the highest mean of a column with several.
        difference: the best cell's score less this one's, over pooled predictions and the seeds that both have; None
            for the best itself.
        p: of that difference, by Tukey's test of the column's methods; None where it was not tested.
        detectable: the smallest true difference to the best that this test finds with 80 % probability.
        of_louder: the test rests on the own variance of a method whose seeds scatter more than the others': this one or
            the best.
    """

    mean: float
    sd: float | None
    runs: tuple[Run, ...]
    best: bool = False
    difference: float | None = None
    p: float | None = None
    detectable: float | None = None
    of_louder: bool = False

    @property
    def seeds(self) -> tuple[int, ...]:
        """The training seeds behind it."""
        return tuple(run.seed for run in self.runs)

    @property
    def as_good_as_best(self) -> bool:
        """The difference to the best was tested, is not significant, and would show if it were large."""
        return self.p is not None and self.p >= SIGNIFICANCE and not self.of_louder

    @property
    def too_noisy(self) -> bool:
        """The difference to the best is not significant, and by so loud a test that even a large one would not show."""
        return self.p is not None and self.p >= SIGNIFICANCE and self.of_louder


@dataclass(frozen=True)
class TableStatistics:
    """A table's cells by row and column name.

    Attributes:
        cells: scores.
        references: scores of the teacher (one for all seeds) and of the init students, by name and column.
        times: training time relative to KLD, by row, where the table has such a column.
        costs: what else a row costs, by row and name (`COSTS`), in the same tables.
        slow: runs behind `times` that were slower than the others of their row, by how much as a share.
        slow_few: the same of rows with too few runs to tell, by what steps take in other rows of their kind.
        spreads: of the rows in `times` with two runs or more, the range of their median steps over their median.
        minimum_detectable: by column, the smallest difference to the best that would be found with 80 % probability:
            the median over its rows but those that are tested by a louder method's variance; these have their own.
        untimed: rows with runs but no time, and why.
        evaluated: scores of models that were not trained here, by run id and column; they take part in no test.
        noise: by column, that of training seeds; None where nothing is known of it.
        below_init: row and column names of cells below the init students that their own runs started from.
    """

    cells: Mapping[tuple[str, str], CellStatistics]
    references: Mapping[tuple[str, str], CellStatistics] = field(default_factory=dict)
    times: Mapping[str, CellStatistics] = field(default_factory=dict)
    minimum_detectable: Mapping[str, float] = field(default_factory=dict)
    untimed: Mapping[str, str] = field(default_factory=dict)
    evaluated: Mapping[tuple[str, str], CellStatistics] = field(default_factory=dict)
    noise: Mapping[str, SeedNoise | None] = field(default_factory=dict)
    below_init: tuple[tuple[str, str], ...] = ()
    costs: Mapping[tuple[str, str], CellStatistics] = field(default_factory=dict)
    slow: Mapping[str, float] = field(default_factory=dict)
    slow_few: Mapping[str, float] = field(default_factory=dict)
    spreads: Mapping[str, float] = field(default_factory=dict)

    def detectable_of_louder(self, column: str) -> dict[str, float]:
        """By row, the detectable differences that a column's own leaves out."""
        tested = {row: cell for (row, name), cell in self.cells.items() if name == column and cell.p is not None}
        alone = {row: cell.detectable for row, cell in tested.items() if cell.of_louder and cell.detectable is not None}
        return alone if len(alone) < len(tested) else {}


class TableArms:
    """What a table's runs scored on each example, as arms that are compared with each other.

    Residuals of seeds are pooled over all arms of the table that answer the same examples with the same models, in
    whatever column they stand.
    """

    def __init__(self, table: Table, selection: Selection) -> None:
        self.table = table
        self._specs = {row.name: row.specs for row in table.rows}
        self._labels: dict[RunSpec, str] = {}
        self._runs: dict[_Pool, dict[str, list[Run]]] = {}  # by label, as arms
        self._arms: dict[_Pool, dict[str, Arm]] = {}
        self._noise: dict[_Pool, SeedNoise | None] = {}
        for column in table.columns:
            for row in table.rows:
                if runs := scored_runs(selection.runs[row.specs[column.group]], column):
                    several = len(set(row.specs.values())) > 1
                    label = f"{row.label}, {column.label}" if several else row.label
                    self._labels.setdefault(row.specs[column.group], label)
                    pool, label = self._place(row.name, column)
                    self._runs.setdefault(pool, {})[label] = runs

    def _place(self, row: str, column: Column) -> tuple[_Pool, str]:
        """Where a cell's arm stands, and the arm's label; "" where it has no runs."""
        spec = self._specs[row][column.group]
        return (spec.task, spec.models, column.sets), self._labels.get(spec, "")

    def runs(self, row: str, column: Column) -> list[Run]:
        """Those of a cell, by training seed."""
        pool, label = self._place(row, column)
        return self._runs.get(pool, {}).get(label, [])

    def noise(self, row: str, column: Column) -> SeedNoise | None:
        """That of training seeds, of the arms that a cell stands among; None where nothing is known of it.

        Raises:
            BenchError: these were scored on different examples.
        """
        pool, _ = self._place(row, column)
        if pool not in self._noise:
            self._noise[pool] = seed_noise({label: arm.scores for label, arm in self._among(row, column).items()})
        return self._noise[pool]

    def compare(self, first: tuple[str, Column], second: tuple[str, Column]) -> Estimate | None:
        """A cell's score less another's on the same set; None where either has no runs, or there is one example only.

        Raises:
            BenchError: runs that answer one set were scored on different examples.
        """
        arms, (_, a), (_, b) = self._among(*first), self._place(*first), self._place(*second)
        return compare_among(arms, a, b, self.noise(*first)) if {a, b} <= arms.keys() else None

    def is_of_louder(self, first: tuple[str, Column], second: tuple[str, Column]) -> bool:
        """Whether the difference of two cells rests on the own variance of one whose seeds scatter more."""
        noise = self.noise(*first)
        return noise is not None and noise.is_of_louder(*(self._place(*cell)[1] for cell in (first, second)))

    def _among(self, row: str, column: Column) -> dict[str, Arm]:
        """By label, the arms that a cell stands among."""
        pool, _ = self._place(row, column)
        if pool not in self._arms:
            runs_of = self._runs.get(pool, {})
            values = by_example(runs_of, column) if runs_of else {}
            self._arms[pool] = {
                label: Arm.of(
                    [run.seed for run in runs],
                    values[label],
                    find_metric(runs[0].record.metric.name).score_of_sum,
                )
                for label, runs in runs_of.items()
                if values[label].shape[1] > 1  # of one example there is no interval
            }
        return self._arms[pool]


def table_statistics(table: Table, selection: Selection) -> TableStatistics:
    """All numbers of a table.

    Raises:
        BenchError: runs of one column were scored on different examples.
    """
    cells: dict[tuple[str, str], CellStatistics] = {}
    minimum_detectable: dict[str, float] = {}
    noise: dict[str, SeedNoise | None] = {}
    arms = TableArms(table, selection)
    for column in table.columns:
        found, detectable = _column(arms, column)
        cells |= {(row, column.name): cell for row, cell in found.items()}
        if detectable is not None:
            minimum_detectable[column.name] = detectable
            noise[column.name] = arms.noise(next(iter(found)), column)
    runs_of = {row.name: selection.of_row(row) for row in table.rows}
    timed = exclusively_timed(runs_of) if table.timed else {}
    times, untimed = relative_times(runs_of, timed, TIME_REFERENCE) if table.timed else ({}, {})
    records_of = {row: [run.record for run in cell.runs] for row, cell in times.items()}
    evaluated = {
        (run.record.run_id, column.name): cell_of([run.score(column.sets)], [run])
        for run in selection.evaluated
        for column in table.columns
        if column.task == run.record.task and run.scored_set(column.sets)
    }
    return TableStatistics(
        cells,
        references=_references(table, selection),
        times=times,
        costs=_costs(runs_of, timed.get(TIME_REFERENCE, [])) if table.timed else {},
        slow={name: share for records in records_of.values() for name, share in slow_runs(records).items()},
        slow_few=slow_few(records_of.values()),
        spreads={row: spread for row, records in records_of.items() if (spread := step_spread(records)) is not None},
        minimum_detectable=minimum_detectable,
        untimed=untimed,
        evaluated=evaluated,
        noise=noise,
        below_init=tuple(_below_init(table, cells)),
    )


def _column(arms: TableArms, column: Column) -> tuple[dict[str, CellStatistics], float | None]:
    """A column's cells by row, and its minimum detectable difference; None where nothing was tested."""
    runs_of = {row.name: arms.runs(row.name, column) for row in arms.table.rows}
    cells = {name: cell_of([run.score(column.sets) for run in runs], runs) for name, runs in runs_of.items() if runs}
    if not cells:
        return {}, None
    best_at_equal_seeds = levels({n: {run.seed: run.score(column.sets) for run in runs_of[n]} for n in cells})
    best = max(cells, key=best_at_equal_seeds.__getitem__)
    results = {name: arms.compare((best, column), (name, column)) for name in cells if name != best}
    if not results:
        return cells, None
    cells[best] = replace(cells[best], best=True)
    known = {name: result for name, result in results.items() if result is not None}
    if not known:
        return cells, None
    for (name, result), p in zip(known.items(), p_values_of_best(list(known.values())), strict=True):
        cells[name] = replace(
            cells[name],
            difference=result.value,
            p=p,
            detectable=_detectable(result, len(known) + 1),
            of_louder=arms.is_of_louder((best, column), (name, column)),
        )
    tested = [cells[name] for name in known]
    return cells, statistics.median(cell.detectable or 0.0 for cell in _but_louder(tested))


def _detectable(result: Estimate, arms: int) -> float:
    """The smallest true difference to the best of so many arms that is found, held to the range of all of them."""
    level = level_of_best(1 - SIGNIFICANCE, arms, result.df)
    return detectable_difference(result.standard_error, level=level, df=result.df)


def _but_louder(cells: list[CellStatistics]) -> list[CellStatistics]:
    """Those that are not tested by a louder method's variance; all where the best itself is such a method."""
    return [cell for cell in cells if not cell.of_louder] or cells


class Visible(NamedTuple):
    """What seeds of a column would show with 80 % probability; medians over its rows, as below tables.

    Attributes:
        difference: the least true difference to the best that so many seeds find.
        seeds: how many find a difference of one point; None where `MOST_SEEDS` do not.
    """

    difference: float
    seeds: int | None


def visible_differences(table: Table, selection: Selection, seeds: int) -> dict[str, Visible]:
    """By column's label, what so many seeds would show.

    Held to the range of all methods of the column, as the marks in tables are, from the noise of recorded runs. Columns
    of which no seeds' noise is known are left out.

    Raises:
        BenchError: runs of one column were scored on different examples.
    """
    arms = TableArms(table, selection)
    found = {}
    for column in table.columns:
        cells, _ = _column(arms, column)
        best = next((name for name, cell in cells.items() if cell.best), None)
        if best is None:
            continue
        tested = {name: arms.compare((best, column), (name, column)) for name, cell in cells.items() if not cell.best}
        known = {name: one for name, one in tested.items() if one and one.spread_df < math.inf}
        quiet = {name for name in known if not cells[name].of_louder} or set(known)
        if pairs := [one for name, one in known.items() if name in quiet]:
            median = statistics.median_high(_seeds_for_a_point(one, len(known) + 1) for one in pairs)
            found[column.label] = Visible(
                statistics.median(_detectable(one.with_seeds(seeds), len(known) + 1) for one in pairs),
                None if median > MOST_SEEDS else median,
            )
    return found


def _seeds_for_a_point(result: Estimate, arms: int) -> int:
    """The fewest seeds that find a difference of one point to the best of so many arms; one too many where none do."""
    return (
        bisect_left(range(2, MOST_SEEDS + 1), -1.0, key=lambda seeds: -_detectable(result.with_seeds(seeds), arms)) + 2
    )


def _below_init(table: Table, cells: Mapping[tuple[str, str], CellStatistics]) -> Iterable[tuple[str, str]]:
    columns = {column.name: column for column in table.columns}
    for (row, name), cell in cells.items():
        # an init student's scores are those after its SFT, which a run from the pretrained one never had
        from_sft = [run for run in cell.runs if run.record.config.init == "sft"]
        starts = [run.score_in(run.record.init_scores, columns[name].sets) for run in from_sft]
        if starts and len(from_sft) == len(cell.runs) and cell.mean < statistics.fmean(starts):
            yield row, name


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
        name: [run.examples.get(str(run.scored_set(column.sets)), NO_EXAMPLES) for run in runs]
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
    runs_of: Mapping[str, list[Run]], timed: Mapping[str, list[Run]], reference: str
) -> tuple[dict[str, CellStatistics], dict[str, str]]:
    """Training time over the median of a reference's, both of exclusively timed runs on the same hardware.

    Args:
        runs_of: all runs by name.
        timed: those of them that are `exclusively_timed`.
        reference: a name.

    Returns:
        the times by name, and why some with runs have none.
    """
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
            base = statistics.median(map(training_seconds, base_runs))
            times[name] = cell_of([training_seconds(run) / base for run in timed[name]], timed[name])
    return times, untimed


def spread_note(spreads: Mapping[str, float]) -> str:
    """How well times repeat, by the labels of what was timed."""
    each = ", ".join(f"{label} {spread:.1%}" for label, spread in spreads.items())
    missed = [label for label, spread in spreads.items() if spread > REPEATS_WITHIN]
    told = f"; missed by {', '.join(missed)}" if missed else ""
    return f"Range of the median step over a method's timed runs (aim: within {REPEATS_WITHIN:.0%}): {each}{told}."


def _costs(runs_of: Mapping[str, list[Run]], base_runs: list[Run]) -> dict[tuple[str, str], CellStatistics]:
    """By row and name (`COSTS`); what comes before the training is relative to base runs, where every run says it."""
    costs: dict[tuple[str, str], CellStatistics] = {}
    for row, runs in runs_of.items():
        before = [run.record.seconds_before for run in runs]
        known = [seconds for seconds in before if seconds is not None]
        if base_runs and runs and len(known) == len(runs):
            base = statistics.median(map(training_seconds, base_runs))
            costs[row, "before"] = cell_of([seconds / base for seconds in known], runs)
        if runs:
            training = [run.record.training for run in runs]
            costs[row, "tokens-trained"] = cell_of([float(one.tokens_trained) for one in training], runs)
            costs[row, "tokens-generated"] = cell_of([float(one.tokens_generated) for one in training], runs)
    return costs


def training_seconds(run: Run) -> float:
    """Wall-clock of its training, validation and checkpoints left out."""
    return run.record.time.training_seconds


def validation_scores(record: RunRecord) -> dict[int, float]:
    """The validation score by training step, where one was measured."""
    return {row.step: row.metric for row in record.validations if row.metric is not None}
