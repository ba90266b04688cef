"""The paper's claims, each with a verdict from recorded runs: reproduced, not reproduced, or not enough evidence.

A claim is a set of comparisons, all of which have to hold. One holds when its whole confidence interval lies on the
claimed side, fails when it lies on the other, and is open otherwise. The intervals of a claim's comparisons hold
together at 95 % (Bonferroni). A failed comparison refutes the claim, whatever the others; an open or missing one
leaves it open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from bench.comparison import pooled_bleu
from bench.environment import had_machine_to_itself
from bench.errors import BenchError, did_you_mean
from bench.files import read_json
from bench.statistics import hierarchical_comparison
from paper_tables.layout import Column, Table
from paper_tables.measure import LEVEL, by_example, same_hardware, scored_runs, training_seconds
from paper_tables.select import Library, Run, Selection
from paper_tables.sweeps import any_table

Verdict = Literal["reproduced", "not reproduced", "not enough evidence"]
VERDICTS: tuple[Verdict, ...] = ("reproduced", "not reproduced", "not enough evidence")
MIN_SEEDS = 3
"""Training seeds on each side of a comparison of quality: with fewer, what a seed does is not known."""
TIME_TOLERANCE = 0.1
"""A training time is taken as known within so much of itself."""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, as `claims.yaml` has it."""

    id: str
    claim: str
    where: str
    source: str
    sureness: str
    suite: str
    quality: Mapping[str, Any] = field(default_factory=dict)
    time: Mapping[str, Any] = field(default_factory=dict)
    estimate: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """One comparison of a claim.

    Attributes:
        what: what is compared.
        effect: the measured value; None where runs are missing.
        low, high: its interval.
        threshold: what it has to be above.
        unit: of the effect.
        holds: True, False, or None where that is open.
        runs: the recorded runs behind it.
        missing: why there is no effect.
    """

    what: str
    threshold: float
    unit: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    holds: bool | None = None
    runs: tuple[str, ...] = ()
    missing: str = ""


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict and every comparison."""

    claim: Claim
    verdict: Verdict
    comparisons: tuple[Comparison, ...]
    reason: str

    @property
    def deciding(self) -> Comparison | None:
        """The measured comparison that speaks most against the claim."""
        measured = [c for c in self.comparisons if c.effect is not None]
        return min(measured, key=lambda c: (c.effect or 0.0) - c.threshold, default=None)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            **{key: getattr(self.claim, key) for key in ("id", "claim", "where", "source", "sureness", "suite")},
            "verdict": self.verdict,
            "reason": self.reason,
            "comparisons": [asdict(c) for c in self.comparisons],
        }


def claims() -> tuple[Claim, ...]:
    """All claims, in the order of their file."""
    text = (resources.files("paper_tables") / "claims.yaml").read_text(encoding="utf-8")
    return tuple(Claim(**entry) for entry in yaml.safe_load(text))


def timed_rows() -> frozenset[tuple[str, str]]:
    """Table and row of each kind of run on whose training time a claim rests."""
    return frozenset(
        (claim.time["table"], row)
        for claim in claims()
        if claim.time
        for row in (claim.time["row"], *claim.time["than"])
    )


def judge(library: Library, out: Path, ids: Sequence[str] = (), resamples: int = 10_000) -> Iterator[Judged]:
    """Each claim with its verdict; without ids all of them.

    Args:
        library: the records.
        out: the results folder, for measurements on the models.
        ids: of claims.
        resamples: of the bootstrap.

    Raises:
        BenchError: no such claim, or runs that would be compared cannot be.
    """
    known = {claim.id: claim for claim in claims()}
    for name in ids:
        if name not in known:
            raise BenchError(f"unknown claim {name!r}: {did_you_mean(name, known)}")
    judge_one = _Judge(library, out, resamples)
    for name in ids or known:
        yield judge_one(known[name])


class _Judge:
    def __init__(self, library: Library, out: Path, resamples: int) -> None:
        self.library, self.out, self.resamples = library, out, resamples
        self._selections: dict[str, Selection] = {}

    def __call__(self, claim: Claim) -> Judged:
        if claim.quality:
            found = list(self._quality(**claim.quality))
        elif claim.time:
            found = list(self._time(**claim.time))
        else:
            found = list(self._estimate(**claim.estimate))
        return Judged(claim, *_verdict(found, claim.suite))

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
            yield self._difference(
                f"{what}" + (" (claimed lower)" if lower else ""), sides, its_column, margin, lower, len(pairs)
            )

    def _difference(
        self, what: str, sides: Mapping[str, list[Run]], column: Column, margin: float, lower: bool, comparisons: int
    ) -> Comparison:
        bleu = "BLEU" in column.label
        unit = "BLEU" if bleu else "ROUGE-L"
        fewest = min(len(runs) for runs in sides.values())
        if not fewest:
            return Comparison(what, margin, unit, missing="no runs")
        arrays = by_example(sides, column)
        a, b = (arrays["second"], arrays["first"]) if lower else (arrays["first"], arrays["second"])
        result = hierarchical_comparison(
            a, b, score=pooled_bleu if bleu else None, resamples=self.resamples, level=1 - LEVEL / comparisons
        )
        holds = True if result.low > margin else False if result.high < margin else None
        few = f"{fewest} of {MIN_SEEDS} training seeds" if fewest < MIN_SEEDS else ""
        runs = tuple(run.record["run_id"] for side in sides.values() for run in side)
        return Comparison(
            what, margin, unit, result.difference, result.low, result.high, None if few else holds, runs, few
        )

    def _time(
        self, table: str, row: str, than: Sequence[str], factor: float = 0.0, at_most: float = 0.0
    ) -> Iterator[Comparison]:
        whole, selection = self._select(table)
        labels = {r.name: r.label for r in whole.rows}
        alone = {
            r.name: [run for arm in r.arms.values() for run in selection.runs[arm] if had_machine_to_itself(run.record)]
            for r in whole.rows
        }
        for other in than:
            # either way the claim is that the ratio is large: at most 1.6 times as slow is at least 1/1.6 as fast
            what = f"time of {labels[other]} / {labels[row]}"
            threshold = factor or 1 / at_most
            sides = [alone[other], alone[row]]
            if not all(sides):
                yield Comparison(what, threshold, "times", missing="no runs that had the machine to themselves")
                continue
            if not same_hardware([*sides[0], *sides[1]]):
                yield Comparison(what, threshold, "times", missing="runs on different hardware")
                continue
            seconds = [[training_seconds(run) for run in side] for side in sides]
            effect = (sum(seconds[0]) / len(seconds[0])) / (sum(seconds[1]) / len(seconds[1]))
            low = min(seconds[0]) / max(seconds[1]) / (1 + TIME_TOLERANCE)
            high = max(seconds[0]) / min(seconds[1]) * (1 + TIME_TOLERANCE)
            holds = True if low >= threshold else False if high < threshold else None
            runs = tuple(run.record["run_id"] for side in sides for run in side)
            yield Comparison(what, threshold, "times", effect, low, high, holds, runs)

    def _estimate(self, alpha: float) -> Iterator[Comparison]:
        for loss, label in (("skl", "SKL"), ("srkl", "SRKL")):
            errors = self._errors.get(loss)
            if not errors:
                missing = "no measurement of it (bench figures 3)"
                yield Comparison(f"{label}: lowest other error / error at α = {alpha:g}", 1.0, "times", missing=missing)
                continue
            best = min((a for a in errors if a != alpha), key=lambda a: errors[a])
            effect = errors[best] / errors[alpha]
            what = f"{label}: error at α = {best:g} / error at α = {alpha:g}"
            # computed over the whole vocabulary, not sampled: no interval
            yield Comparison(what, 1.0, "times", effect, effect, effect, effect > 1)

    @cached_property
    def _errors(self) -> dict[str, dict[float, float]]:
        path = self.out / "measurements" / f"coefficients-{self.library.preset}.json"
        errors: dict[str, dict[float, float]] = {}
        if path.is_file():
            for row in read_json(path)["found"]["errors"]:
                if row["n"] == 1:
                    errors.setdefault(row["loss"], {})[row["alpha"]] = row["normalised"]
        return errors


def _verdict(found: list[Comparison], suite: str) -> tuple[Verdict, tuple[Comparison, ...], str]:
    comparisons = tuple(found)
    held = sum(c.holds is True for c in found)
    failed = sum(c.holds is False for c in found)
    missing = list(dict.fromkeys(c.missing for c in found if c.missing))
    counted = f"{held} of {len(found)} comparisons hold"
    if failed:
        return "not reproduced", comparisons, f"{counted}, {failed} the other way round"
    if held == len(found):
        return "reproduced", comparisons, counted
    reason = f"{'; '.join(missing)}: bench suite {suite}" if missing else f"{counted}, the others cannot be told"
    return "not enough evidence", comparisons, reason
