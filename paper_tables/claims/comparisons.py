"""From a claim to its comparisons: effects with intervals, from recorded runs and model probes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, singledispatchmethod
from itertools import combinations
from typing import Literal

import numpy as np

from bench.analysis.blocks import Arm, compare_among, seed_noise
from bench.analysis.significance import Estimate, difference_of, mean_of
from bench.judge.results import JudgeScore
from bench.metrics.registry import find_metric
from paper_tables.numbers.cells import (
    SIGNIFICANCE,
    TableArms,
    by_example,
    exclusively_timed,
    training_seconds,
    validation_scores,
)
from paper_tables.numbers.judge_scores import judge_scores
from paper_tables.numbers.probes import COEFFICIENTS, Coefficients, ModelProbe
from paper_tables.numbers.runs import Run, RunIndex, Selection
from paper_tables.paper.claim_specs import (
    ClaimSpec,
    CoefficientBoundTest,
    ColumnScoreTest,
    ConvergenceTest,
    EstimationErrorTest,
    JudgeTest,
    ScoreTest,
    SpreadTest,
    TimeShareTest,
    TimeTest,
)
from paper_tables.paper.methods import METHOD_LABELS, SKEWED_LOSSES
from paper_tables.paper.tables import INSTRUCTION_SETS, Column, Table

MIN_SEEDS = 3
"""Training seeds on each side of a comparison of scores: with fewer, what a seed does is not known."""
MIN_TIMED_RUNS = 2
"""Runs on each side of a comparison of times: one shows no spread."""
ROUNDING = 1e-9
"""A ratio to a bound that is reached counts as equal up to this."""
NOT_JUDGED = "not judged: bench judge"
SCALED = "the preset scales the buffer, so that no run has these capacities"
NOT_SCALED = "the preset does not scale the buffer"
NOT_PROBED = f"not probed yet: bench figures {COEFFICIENTS.figure}"

Direction = Literal["above", "below"]
_OPPOSITE: Mapping[Direction, Direction] = {"above": "below", "below": "above"}
ComparisonOutcome = Literal["holds", "open", "the other way round", "falling short", "beyond the limit"]


@dataclass(frozen=True)
class ClaimComparison:
    """One comparison of a claim.

    Attributes:
        what: what is measured.
        side: the effect is claimed to be above or below the threshold.
        threshold: in the unit.
        rounding: the threshold itself is claimed, too, up to so much; 0 where it is not.
        unit: of the effect.
        even: the effect where there is no difference: 0 of differences, 1 of ratios; None where there is no such value.
        effect: the measured value; None where runs are missing.
        low, high: its 95 % interval.
        holds: True, False, or None where that is open.
        p_holds, p_fails: one-sided p-values for the effect being on the claimed side of the threshold, and on the
            other; None where nothing was measured that counts.
        visible: of an open one, the smallest true distance from the threshold that would be seen with 80 % probability;
            of ratios, the smallest factor.
        repeats: of an open one, how many seeds (runs, students) would see the measured distance with 80 % probability;
            None where `MOST_SEEDS` would not, or nothing can be told.
        runs: ids of the recorded runs behind it.
        missing: why there is no effect, or why it is left open whatever it is.
    """

    what: str
    side: Direction
    threshold: float
    unit: str
    even: float | None
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    holds: bool | None = None
    p_holds: float | None = None
    p_fails: float | None = None
    visible: float | None = None
    repeats: int | None = None
    runs: tuple[str, ...] = ()
    missing: str = ""
    rounding: float = 0.0

    @property
    def lead(self) -> float:
        """By how much the effect is on the claimed side of the threshold; negative on the other side."""
        beyond = (self.effect or 0.0) - self.threshold
        return beyond if self.side == "above" else -beyond

    @property
    def outcome(self) -> ComparisonOutcome:
        """What came out, in words."""
        if self.holds is None or self.low is None or self.high is None:
            return "open"
        if self.holds:
            return "holds"
        if self.even is not None and (self.high < self.even if self.side == "above" else self.low > self.even):
            return "the other way round"
        return "falling short" if self.side == "above" else "beyond the limit"

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self) | {"outcome": self.outcome}

    def with_effect(
        self, found: Estimate, runs: Sequence[Run] = (), open_because: str = "", *, logarithm: bool = False
    ) -> ClaimComparison:
        """This comparison with what was measured; with a reason to leave it open, it is.

        The estimate may be of the effect's logarithm: noise of ratios is alike on that scale.
        """
        limit = self.threshold + (self.rounding if self.side == "below" else -self.rounding)
        threshold = math.log(limit) if logarithm else limit
        back = math.exp if logarithm else float
        above, below = found.p_above(threshold), found.p_below(threshold)
        p_holds, p_fails = (above, below) if self.side == "above" else (below, above)
        low, high = found.interval(1 - SIGNIFICANCE)
        decided = low > threshold or high < threshold
        measured = replace(
            self,
            effect=back(found.value),
            low=back(low),
            high=back(high),
            holds=None if open_because or not decided else p_holds < p_fails,
            runs=tuple(run.record.run_id for run in runs),
            missing=open_because,
        )
        if open_because:
            return measured
        measured = replace(measured, p_holds=p_holds, p_fails=p_fails)
        if decided or not found.standard_error:
            return measured
        return replace(
            measured,
            visible=back(found.visible(1 - SIGNIFICANCE)),
            repeats=found.seeds_to_see(found.value - threshold, 1 - SIGNIFICANCE),
        )

    def without_effect(self, reason: str) -> ClaimComparison:
        """This comparison with the reason why nothing was measured."""
        return replace(self, missing=reason)


def outcomes(found: Iterable[ClaimComparison]) -> list[ComparisonOutcome]:
    """What came out of each thing that is measured; what has two limits, one after the other, holds within both."""
    measured: list[list[ClaimComparison]] = []
    for one in found:
        if measured and (measured[-1][-1].what, measured[-1][-1].side) == (one.what, _OPPOSITE[one.side]):
            measured[-1].append(one)
        else:
            measured.append([one])
    return [
        next((one.outcome for one in its if one.holds is False), "holds" if all(one.holds for one in its) else "open")
        for its in measured
    ]


class Comparisons:
    """The comparisons of claims over recorded runs, each table's runs selected once.

    Args:
        index: the runs; model probes are read from its results folder.
    """

    def __init__(self, index: RunIndex) -> None:
        self.index = index
        self._selections: dict[str, Selection] = {}
        self._arms: dict[str, TableArms] = {}

    def of(self, claim: ClaimSpec) -> Iterator[ClaimComparison]:
        """The comparisons of a claim.

        Raises:
            BenchError: runs that would be compared cannot be, or a model probe is damaged.
        """
        return self._of(claim.test)

    def elsewhere(self, claim: ClaimSpec) -> list[ClaimComparison]:
        """A claim's comparisons of scores on the sets of its table that it does not name, of the same runs.

        Raises:
            BenchError: runs that would be compared cannot be.
        """
        test = claim.test
        if not isinstance(test, ScoreTest) or not test.columns:
            return []
        table = self.index.table(test.table)
        groups = {one.group for one in table.columns if one.name in test.columns}
        others = [one.name for one in table.columns if one.group in groups and one.name not in test.columns]
        found = self._of(test.model_copy(update={"columns": tuple(others)})) if others else ()
        return [one for one in found if one.effect is not None and not one.missing]

    @singledispatchmethod
    def _of(self, test: object) -> Iterator[ClaimComparison]:
        raise TypeError(f"no comparison for {type(test).__name__}")

    def _select(self, name: str) -> tuple[Table, Selection]:
        table = self.index.table(name)
        if name not in self._selections:
            self._selections[name] = self.index.select(table)
        return table, self._selections[name]

    @_of.register
    def _score(self, test: ScoreTest) -> Iterator[ClaimComparison]:
        table, selection = self._select(test.table)
        labels = table.row_labels
        columns = self._columns(table, test.columns, test.task)
        scaled = any(row.value is not None and row.value != float(row.name) for row in table.rows)
        elsewhere = "" if test.scaled in (None, scaled) else NOT_SCALED if test.scaled else SCALED
        own = self.index.own
        sets = [(name,) for name in own.sets] if own else [names for _, names in INSTRUCTION_SETS.values()]
        arms = _over_sets(table, selection, sets) if test.mean else {}
        noise = seed_noise({name: arm.scores for name, arm in arms.items()})
        for column in columns:
            for other in test.than:
                mean = f"mean of {len(sets)} sets" if own else "mean of the five sets"
                where = mean if test.mean else column.label
                what = f"{labels[test.row]} − {labels[other]}, {where}"
                asked = ClaimComparison(what, "above", 0.0, self.index.metric_label(column.task), even=0.0)
                if elsewhere:
                    yield asked.without_effect(elsewhere)
                elif not test.mean:
                    yield self._difference(asked, test.table, (test.row, column), (other, column))
                elif test.row in arms and other in arms:
                    found = compare_among(arms, test.row, other, noise)
                    runs = [run for row in table.rows if row.name in (test.row, other) for run in selection.of_row(row)]
                    yield asked.with_effect(found, runs, _too_few_seeds(found.seeds))
                else:
                    yield asked.without_effect("no runs")

    @_of.register
    def _column_score(self, test: ColumnScoreTest) -> Iterator[ClaimComparison]:
        table, _ = self._select(test.table)
        labels = table.row_labels
        columns = {column.name: column for column in table.columns}
        first, second = columns[test.column], columns[test.than_column]
        for row in test.rows:
            what = f"{labels[row]}: {first.label} − {second.label}"
            side: Direction = "below" if test.lower else "above"
            asked = ClaimComparison(what, side, test.margin, self.index.metric_label(first.task), even=0.0)
            yield self._difference(asked, test.table, (row, first), (row, second))

    @_of.register
    def _spread(self, test: SpreadTest) -> Iterator[ClaimComparison]:
        table, _ = self._select(test.table)
        labels = table.row_labels
        for column in self._columns(table, test.columns):
            for pair in combinations(test.rows or labels, 2):
                # of two one-sided tests, which of the two is higher, the one against the higher decides: the higher by
                # the seeds that both have, as the difference is
                found = self._spread_of(test, column, *pair, labels)
                if (found.effect or 0.0) < 0:
                    found = self._spread_of(test, column, *pair[::-1], labels)
                # the order was seen, so a spread that is too wide has two ways to come about by chance
                yield found if found.p_fails is None else replace(found, p_fails=min(1.0, 2 * found.p_fails))

    def _spread_of(
        self, test: SpreadTest, column: Column, high: str, low: str, labels: Mapping[str, str]
    ) -> ClaimComparison:
        what = f"{labels[high]} − {labels[low]}, {column.label}"
        asked = ClaimComparison(what, "below", test.below, self.index.metric_label(column.task), even=None)
        return self._difference(asked, test.table, (high, column), (low, column))

    @_of.register
    def _judge(self, test: JudgeTest) -> Iterator[ClaimComparison]:
        table, selection = self._select(test.table)
        labels = table.row_labels
        columns = table.column_labels
        found = judge_scores(table, selection, self.index.store).scores
        for column in [column.name for column in self._columns(table, test.columns)]:
            judged = {row: found.get((row, column), ()) for row in (test.row, *test.than)}
            means = {row: {run.seed: one.value for run, one in its} for row, its in judged.items() if its}
            noise = seed_noise(means)
            arms = {row: _constant_arm(found) for row, found in means.items()}
            for other in test.than:
                what = f"{labels[test.row]} − {labels[other]}, judge, {columns[column]}"
                asked = ClaimComparison(what, "above", 0.0, "points of the judge", even=0.0)
                if not {test.row, other} <= means.keys():
                    yield asked.without_effect(NOT_JUDGED)
                    continue
                sides = [judged[test.row], judged[other]]
                # both answer the same examples: taken as if they did not, the interval is wide enough
                fixed = sum(statistics.fmean(_variance_over_examples(one) for _, one in its) for its in sides)
                estimate = compare_among(arms, test.row, other, noise)
                runs = [run for its in sides for run, _ in its]
                yield asked.with_effect(replace(estimate, fixed=fixed), runs, _too_few_seeds(estimate.seeds))

    def _columns(self, table: Table, names: Sequence[str], task: str = "") -> list[Column]:
        """The columns that a test names, of a task if it names one. A user's own task has others, and all count."""
        named = [one for one in table.columns if (not names or one.name in names) and task in ("", one.task)]
        return named or (list(table.columns) if self.index.own else [])

    def _arms_of(self, table_name: str) -> TableArms:
        table, selection = self._select(table_name)
        if table_name not in self._arms:
            self._arms[table_name] = TableArms(table, selection)
        return self._arms[table_name]

    def _difference(
        self, asked: ClaimComparison, table_name: str, first: tuple[str, Column], second: tuple[str, Column]
    ) -> ClaimComparison:
        """One cell's score less another's, each given by row and column."""
        arms = self._arms_of(table_name)
        sides = [arms.runs(*cell) for cell in (first, second)]
        if not all(sides):
            return asked.without_effect("no runs")
        found = arms.compare(first, second)
        if found is None:
            return asked.without_effect("one test example only")
        return asked.with_effect(found, [run for side in sides for run in side], _too_few_seeds(found.seeds))

    @_of.register
    def _time(self, test: TimeTest) -> Iterator[ClaimComparison]:
        labels, timed = self._timed(test.table)
        limits: list[tuple[Direction, float]] = []
        limits += [("above", test.at_least)] if test.at_least is not None else []
        limits += [("below", test.at_most)] if test.at_most is not None else []
        for one in test.of:
            for side, threshold in limits:
                # a lower limit is of one method being slower; an upper one says nothing of which is
                even = 1.0 if side == "above" else None
                what = f"time of {labels[one]} / {labels[test.over]}"
                asked = ClaimComparison(what, side, threshold, "times", even)
                runs = [timed[one], timed[test.over]]
                fewest = min(map(len, runs))
                if not fewest:
                    yield asked.without_effect(_too_few_timed(0))
                    continue
                logs = [[math.log(training_seconds(run)) for run in found] for found in runs]
                both = [*runs[0], *runs[1]]
                yield asked.with_effect(difference_of(*logs), both, _too_few_timed(fewest), logarithm=True)

    def _timed(self, table_name: str) -> tuple[dict[str, str], dict[str, list[Run]]]:
        """Labels of a table's rows, and their runs whose training times can be compared."""
        table, selection = self._select(table_name)
        runs = {row.name: selection.of_row(row) for row in table.rows}
        return table.row_labels, exclusively_timed(runs)

    @_of.register
    def _time_share(self, test: TimeShareTest) -> Iterator[ClaimComparison]:
        labels, timed = self._timed(test.table)
        for row in test.rows:
            what = f"{test.phase} in {labels[row]}"
            asked = ClaimComparison(what, "above", test.at_least, "of training time", even=None)
            if len(timed[row]) < MIN_TIMED_RUNS:
                yield asked.without_effect(_too_few_timed(len(timed[row])))
                continue
            shares = [run.record.time.share(test.phase) for run in timed[row]]
            yield asked.with_effect(mean_of(shares), timed[row])

    @_of.register
    def _convergence(self, test: ConvergenceTest) -> Iterator[ClaimComparison]:
        table, selection = self._select(test.table)
        rows = {row.name: row for row in table.rows}
        curves = {
            name: {run.seed: validation_scores(run.record) for run in selection.of_row(rows[name])}
            for name in (*test.rows, *test.than)
        }
        there = [curve for found in curves.values() for curve in found.values()]
        steps = set.intersection(*map(set, there)) if there else set()
        means = {
            name: {seed: statistics.fmean(curve[step] for step in steps) for seed, curve in found.items()}
            for name, found in curves.items()
            if steps and found
        }
        noise = seed_noise(means)
        arms = {row: _constant_arm(found) for row, found in means.items()}
        for pair in [(row, other) for row in test.rows for other in test.than]:
            sides = [selection.of_row(rows[name]) for name in pair]
            what = " − ".join(rows[name].label for name in pair) + ", mean over validations"
            asked = ClaimComparison(what, "above", 0.0, self.index.metric_label(table.columns[0].task), even=0.0)
            fewest = min(map(len, sides))
            if lacking := _too_few_seeds(fewest) if fewest else "no runs":
                yield asked.without_effect(lacking)
                continue
            if not steps:
                yield asked.without_effect("no validations at the same steps")
                continue
            # the validation set is taken as given
            found = compare_among(arms, *pair, noise)
            yield asked.with_effect(found, [run for side in sides for run in side], _too_few_seeds(found.seeds))

    @_of.register
    def _estimation_error(self, test: EstimationErrorTest) -> Iterator[ClaimComparison]:
        best = test.alpha
        errors = {loss: self._plug_in_errors(loss, test.tokens) for loss in SKEWED_LOSSES}
        others = {loss: [a for a in found if a != best and best in found] for loss, found in errors.items()}
        for loss in SKEWED_LOSSES:
            label = METHOD_LABELS[loss]
            if not others[loss]:
                what = f"{label}: error at another α / error at α = {best:g}"
                yield ClaimComparison(what, "above", 1.0, "times", 1.0, missing=NOT_PROBED)
            for other in others[loss]:
                what = f"{label}: error at α = {other:g} / error at α = {best:g}"
                ratios = [a / b for a, b in zip(errors[loss][other], errors[loss][best], strict=True)]
                asked = ClaimComparison(what, "above", 1.0, "times", 1.0)
                # thousands of positions leave little noise of sampling; what is not known is what another student does
                few = f"{len(ratios)} of {MIN_SEEDS} students probed, and what another would give is not known"
                yield asked.with_effect(mean_of(ratios), open_because=few if len(ratios) < MIN_SEEDS else "")

    def _plug_in_errors(self, loss: str, tokens: int) -> Mapping[float, list[float]]:
        """By skew, the normalised error of the plug-in estimate from so many tokens, of each student probed."""
        errors: dict[float, list[float]] = {}
        for row in self._coefficients.plug_in if self._coefficients else ():
            if (row.loss, row.n) == (loss, tokens):
                errors.setdefault(row.alpha, []).append(row.normalised)
        return errors

    @_of.register
    def _coefficient_bound(self, test: CoefficientBoundTest) -> Iterator[ClaimComparison]:
        for loss in test.losses:
            what = f"{METHOD_LABELS[loss]}: largest coefficient / bound, all α > 0"
            asked = ClaimComparison(what, "below", 1.0, "times", None, rounding=ROUNDING)  # the bound is reached
            rows = self._coefficients.coefficients if self._coefficients else ()
            ratios = [row.largest / row.bound for row in rows if row.loss == loss and row.bound]
            if not ratios:
                yield asked.without_effect(NOT_PROBED)
                continue
            yield asked.with_effect(Estimate(max(ratios)))

    @cached_property
    def probe(self) -> ModelProbe[Coefficients] | None:
        """The recorded probe of coefficients; None where there is none, and for a user's own task.

        Raises:
            BenchError: it is damaged.
        """
        own = self.index.own is not None
        return None if own else COEFFICIENTS.read(self.index.store.root, self.index.preset_name)

    @property
    def _coefficients(self) -> Coefficients | None:
        return self.probe.found if self.probe else None


def _constant_arm(scores: Mapping[int, float]) -> Arm:
    """An arm by its scores alone, without noise of examples: two that are alike, the whole set."""
    return Arm(tuple(scores), np.array([[value, value] for value in scores.values()]))


def _over_sets(table: Table, selection: Selection, sets: Sequence[tuple[str, ...]]) -> dict[str, Arm]:
    """By row, an arm whose score is the mean over evaluation sets; rows that lack some are left out.

    It holds the examples of all sets, each weighed so that every set counts alike.
    """
    group = table.columns[0].group
    every = {row.name: selection.runs[row.specs[group]] for row in table.rows}
    runs_of = {name: [run for run in runs if all(map(run.scored_set, sets))] for name, runs in every.items()}
    runs_of = {name: runs for name, runs in runs_of.items() if runs}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in runs_of}
    for names in sets if runs_of else ():
        found = by_example(runs_of, replace(table.columns[0], sets=names))
        for name, runs in runs_of.items():
            score = find_metric(runs[0].record.metric.name).score_of_sum
            parts[name].append(Arm.of([run.seed for run in runs], found[name], score).values)
    arms = {}
    for name, values in parts.items():
        size = sum(one.shape[1] for one in values)
        weighed = [one * size / (len(values) * one.shape[1]) for one in values]
        arms[name] = Arm(tuple(run.seed for run in runs_of[name]), np.concatenate(weighed, axis=1))
    return arms


def _variance_over_examples(score: JudgeScore) -> float:
    """Of a judge's score, from its 95 % interval; 0 where it has none."""
    return 0.0 if score.low is None or score.high is None else ((score.high - score.low) / (2 * 1.96)) ** 2


def _too_few_seeds(seeds: int) -> str:
    return f"{seeds} of {MIN_SEEDS} training seeds" if seeds < MIN_SEEDS else ""


def _too_few_timed(runs: int) -> str:
    return f"{runs} of {MIN_TIMED_RUNS} timed runs" if runs < MIN_TIMED_RUNS else ""
