"""From a claim to its comparisons: effects with intervals, from recorded runs and measurements on the models."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from bench.analysis.significance import hierarchical_comparison, mean_interval, ratio_interval, welch_interval
from bench.record.example_scores import pooled_bleu
from bench.system.errors import BenchError
from bench.system.files import read_json
from paper_tables.numbers.cells import LEVEL, by_example, scored_runs, training_seconds, undisturbed
from paper_tables.numbers.runs import Library, Run, Selection
from paper_tables.paper.ablations import any_table
from paper_tables.paper.claim_specs import Claim, Kind
from paper_tables.paper.tables import Column, Table

MIN_SEEDS = 3
"""Training seeds on each side of a comparison of quality: with fewer, what a seed does is not known."""
MIN_TIMED = 2
"""Runs on each side of a comparison of time: one shows no spread."""
ROUNDING = 1e-9
UNMEASURED = "no measurement of it: bench figures 3"
LABELS = {"skl": "SKL", "srkl": "SRKL"}

Outcome = Literal["holds", "open", "the other way round", "falling short", "beyond the limit"]


@dataclass(frozen=True)
class Comparison:
    """One comparison of a claim.

    Attributes:
        what: what is measured.
        side: the effect is claimed to be above or below the threshold.
        threshold: in the unit.
        unit: of the effect.
        even: the effect where there is no difference: 0 of differences, 1 of ratios; None where there is no such value.
        effect: the measured value; None where runs are missing.
        low, high: its interval.
        holds: True, False, or None where that is open.
        runs: the recorded runs behind it.
        missing: why there is no effect, or why it is left open whatever it is.
    """

    what: str
    side: Literal["above", "below"]
    threshold: float
    unit: str
    even: float | None
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    holds: bool | None = None
    runs: tuple[str, ...] = ()
    missing: str = ""

    @property
    def lead(self) -> float:
        """By how much the effect is on the claimed side of the threshold; negative on the other side."""
        beyond = (self.effect or 0.0) - self.threshold
        return beyond if self.side == "above" else -beyond

    @property
    def outcome(self) -> Outcome:
        """What came out, in words."""
        if self.holds is None or self.low is None or self.high is None:
            return "open"
        if self.holds:
            return "holds"
        if self.even is not None and (self.high < self.even if self.side == "above" else self.low > self.even):
            return "the other way round"
        return "falling short" if self.side == "above" else "beyond the limit"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"outcome": self.outcome}

    def found(self, effect: float, low: float, high: float, runs: Sequence[Run] = (), open_for: str = "") -> Comparison:
        """This comparison with what was measured; with a reason to leave it open, it is."""
        above, below = low > self.threshold, high < self.threshold
        holds = (above if self.side == "above" else below) if above or below else None
        return replace(
            self,
            effect=effect,
            low=low,
            high=high,
            holds=None if open_for else holds,
            runs=tuple(run.record["run_id"] for run in runs),
            missing=open_for,
        )


class Evidence:
    """What is recorded, as comparisons.

    Args:
        library: the records.
        out: the results folder, for measurements on the models.
        resamples: of the bootstrap.
    """

    def __init__(self, library: Library, out: Path, resamples: int) -> None:
        self.library, self.out, self.resamples = library, out, resamples
        self._selections: dict[str, Selection] = {}

    def on(self, claim: Claim) -> Iterator[Comparison]:
        """The comparisons of a claim.

        Raises:
            BenchError: runs that would be compared cannot be.
        """
        kinds: dict[Kind, Callable[..., Iterator[Comparison]]] = {
            "quality": self._quality,
            "time": self._time,
            "share": self._share,
            "convergence": self._convergence,
            "estimate": self._estimate,
            "bounded": self._bounded,
        }
        return kinds[claim.kind](**{key: value for key, value in claim.test.items() if key != "any"})

    def _select(self, name: str) -> tuple[Table, Selection]:
        table = any_table(name, self.library.preset)
        if name not in self._selections:
            self._selections[name] = self.library.select(table)
        return table, self._selections[name]

    def _quality(
        self,
        table: str,
        row: str = "",
        than: Sequence[str] = (),
        columns: Sequence[str] = (),
        rows: Sequence[str] = (),
        column: str = "",
        than_column: str = "",
        margin: float = 0.0,
        lower: bool = False,
    ) -> Iterator[Comparison]:
        whole, selection = self._select(table)
        labels = {r.name: r.label for r in whole.rows}
        by_name = {c.name: c for c in whole.columns}
        pairs: list[tuple[str, str, Column, str, Column]] = []
        if column:
            first, second = by_name[column], by_name[than_column]
            pairs = [(f"{labels[r]}: {first.label} − {second.label}", r, first, r, second) for r in rows]
        else:
            pairs = [
                (f"{labels[row]} − {labels[other]}, {by_name[c].label}", row, by_name[c], other, by_name[c])
                for c in (columns or by_name)
                for other in than
            ]
        arms = {r.name: r.arms for r in whole.rows}
        for what, one, its_column, other, other_column in pairs:
            sides = {
                "first": scored_runs(selection.runs[arms[one][its_column.group]], its_column),
                "second": scored_runs(selection.runs[arms[other][other_column.group]], other_column),
            }
            unit = "BLEU" if "BLEU" in its_column.label else "ROUGE-L"
            asked = Comparison(what, "below" if lower else "above", margin, unit, even=0.0)
            yield self._difference(asked, sides, its_column, len(pairs))

    def _difference(
        self, asked: Comparison, sides: Mapping[str, list[Run]], column: Column, comparisons: int
    ) -> Comparison:
        fewest = min(len(runs) for runs in sides.values())
        if not fewest:
            return replace(asked, missing="no runs")
        arrays = by_example(sides, column)
        score = pooled_bleu if asked.unit == "BLEU" else None
        level = 1 - LEVEL / comparisons
        result = hierarchical_comparison(
            arrays["first"], arrays["second"], score=score, resamples=self.resamples, level=level
        )
        runs = [run for side in sides.values() for run in side]
        return asked.found(result.difference, result.low, result.high, runs, _too_few(fewest))

    def _time(
        self, table: str, of: Sequence[str], over: str, at_least: float = 0.0, at_most: float = 0.0
    ) -> Iterator[Comparison]:
        labels, timed = self._timed(table)
        limits: list[tuple[Literal["above", "below"], float]] = []
        limits += [("above", at_least)] if at_least else []
        limits += [("below", at_most)] if at_most else []
        for one in of:
            for side, threshold in limits:
                # a lower limit is of one method being slower; an upper one says nothing of which is
                even = 1.0 if side == "above" else None
                asked = Comparison(f"time of {labels[one]} / {labels[over]}", side, threshold, "times", even)
                runs = [timed[one], timed[over]]
                fewest = min(len(found) for found in runs)
                if not fewest:
                    yield replace(asked, missing=_too_few_timed(0))
                    continue
                seconds = [[training_seconds(run) for run in found] for found in runs]
                if fewest < MIN_TIMED:
                    ratio = statistics.geometric_mean(seconds[0]) / statistics.geometric_mean(seconds[1])
                    interval = ratio, ratio, ratio
                else:
                    interval = ratio_interval(*seconds, level=1 - LEVEL / (len(of) * len(limits)))
                yield asked.found(*interval, [*runs[0], *runs[1]], _too_few_timed(fewest))

    def _timed(self, table: str) -> tuple[dict[str, str], dict[str, list[Run]]]:
        """Labels of a table's rows, and their runs with a wall-clock to compare."""
        whole, selection = self._select(table)
        runs = {row.name: [run for arm in row.arms.values() for run in selection.runs[arm]] for row in whole.rows}
        return {row.name: row.label for row in whole.rows}, undisturbed(runs)

    def _share(self, table: str, rows: Sequence[str], phase: str, at_least: float) -> Iterator[Comparison]:
        labels, timed = self._timed(table)
        for row in rows:
            asked = Comparison(f"{phase} in {labels[row]}", "above", at_least, "of training time", even=None)
            if len(timed[row]) < MIN_TIMED:
                yield replace(asked, missing=_too_few_timed(len(timed[row])))
                continue
            shares = [run.record["time"]["phases"].get(phase, 0.0) / training_seconds(run) for run in timed[row]]
            yield asked.found(*mean_interval(shares, level=1 - LEVEL / len(rows)), timed[row])

    def _convergence(self, table: str, rows: Sequence[str], than: Sequence[str]) -> Iterator[Comparison]:
        whole, selection = self._select(table)
        by_name = {row.name: row for row in whole.rows}
        pairs = [(row, other) for row in rows for other in than]
        for row, other in pairs:
            sides = [
                [run for arm in by_name[name].arms.values() for run in selection.runs[arm]] for name in (row, other)
            ]
            runs = [run for side in sides for run in side]
            what = f"{by_name[row].label} − {by_name[other].label}, mean over validations"
            asked = Comparison(what, "above", 0.0, "ROUGE-L", even=0.0)
            fewest = min(len(side) for side in sides)
            if lacking := _too_few(fewest) if fewest else "no runs":
                yield replace(asked, missing=lacking)
                continue
            steps = set.intersection(*(set(_validations(run)) for run in runs))
            if not steps:
                yield replace(asked, missing="no validations at the same steps")
                continue
            means = [[statistics.fmean(_validations(run)[step] for step in steps) for run in side] for side in sides]
            yield asked.found(*welch_interval(*means, level=1 - LEVEL / len(pairs)), runs)

    def _estimate(self, alpha: float, tokens: int) -> Iterator[Comparison]:
        errors = {loss: self._errors(loss, tokens) for loss in LABELS}
        others = {loss: [a for a in found if a != alpha and alpha in found] for loss, found in errors.items()}
        level = 1 - LEVEL / max(1, sum(map(len, others.values())))
        for loss, label in LABELS.items():
            if not others[loss]:
                what = f"{label}: error at another α / error at α = {alpha:g}"
                yield Comparison(what, "above", 1.0, "times", 1.0, missing=UNMEASURED)
            for other in others[loss]:
                what = f"{label}: error at α = {other:g} / error at α = {alpha:g}"
                ratios = [a / b for a, b in zip(errors[loss][other], errors[loss][alpha], strict=True)]
                asked = Comparison(what, "above", 1.0, "times", 1.0)
                # thousands of positions leave little noise of sampling; what is not known is what another student does
                if len(ratios) < MIN_SEEDS:
                    effect = statistics.fmean(ratios)
                    few = f"{len(ratios)} of {MIN_SEEDS} students measured, and what another would give is not known"
                    yield asked.found(effect, effect, effect, open_for=few)
                else:
                    yield asked.found(*mean_interval(ratios, level=level))

    def _errors(self, loss: str, tokens: int) -> dict[float, list[float]]:
        """By skew, the normalised error of the plug-in estimate from so many tokens, of each student measured."""
        errors: dict[float, list[float]] = {}
        for row in self._coefficients.get("plug_in", []):
            if (row["loss"], row["n"]) == (loss, tokens):
                errors.setdefault(row["alpha"], []).append(row["normalised"])
        return errors

    def _bounded(self, losses: Sequence[str]) -> Iterator[Comparison]:
        for loss in losses:
            what = f"{LABELS[loss]}: largest coefficient / bound, all α > 0"
            asked = Comparison(what, "below", 1 + ROUNDING, "times", None)  # the bound itself is reached
            rows = [r for r in self._coefficients.get("coefficients", []) if r["loss"] == loss and r["bound"]]
            if not rows:
                yield replace(asked, missing=UNMEASURED)
                continue
            largest = max(row["q1"] / row["bound"] for row in rows)
            yield asked.found(largest, largest, largest)

    @cached_property
    def _coefficients(self) -> Mapping[str, list[dict[str, Any]]]:
        path = self.out / "measurements" / f"coefficients-{self.library.preset}.json"
        try:
            return read_json(path)["found"] if path.is_file() else {}
        except (ValueError, KeyError, TypeError) as error:
            raise BenchError(f"{path}: damaged; make it again with bench figures 3 --fresh") from error


def _too_few(seeds: int) -> str:
    return f"{seeds} of {MIN_SEEDS} training seeds" if seeds < MIN_SEEDS else ""


def _too_few_timed(runs: int) -> str:
    return f"{runs} of {MIN_TIMED} timed runs" if runs < MIN_TIMED else ""


def _validations(run: Run) -> dict[int, float]:
    return {int(row["step"]): row["metric"] for row in run.record["validations"] if "metric" in row}
