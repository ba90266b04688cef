"""Is the difference between two recorded runs real? Paired bootstrap over the examples of each test set."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from bench.analysis.significance import hierarchical_comparison, holm
from bench.config.comparable import differences, scoring_fields
from bench.metrics.metric import Array
from bench.record.example_scores import example_scores
from bench.record.record import MetricInfo, RunRecord
from bench.record.store import Store
from bench.system.errors import BenchError


@dataclass(frozen=True)
class RunScore:
    """A run's score on one set, over all its decoding seeds."""

    run: str
    score: float


@dataclass(frozen=True)
class SetComparison:
    """Two runs on one set by one metric.

    Attributes:
        metric, label: its name in records, and in tables.
        difference: first minus second.
        low, high: ends of the difference's 95 % interval.
        p: two-sided p-value.
        p_holm: the same, corrected for the number of comparisons made at once.
        examples: how many the set has.
    """

    set: str
    metric: str
    label: str
    first: RunScore
    second: RunScore
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    examples: int

    def as_dict(self) -> dict[str, object]:
        """As plain values, for JSON."""
        return asdict(self)


def check_comparable(first: RunRecord, second: RunRecord) -> None:
    """Refuse two runs that may not stand in one table.

    Raises:
        BenchError: the runs differ in more than method, output source, init student and seed, or, where one is of a
            model that was not trained here, in what is scored; it says in what.
    """
    one, two = first.comparison_fields, second.comparison_fields
    if first.evaluated or second.evaluated:
        one, two = scoring_fields(one), scoring_fields(two)
    elif first.comparison_key == second.comparison_key:
        return
    if one != two:
        found = map(str, differences(one, two))
        raise BenchError(
            f"{first.run_id} and {second.run_id} cannot be compared; they differ in\n  " + "\n  ".join(found)
        )


def compare_runs(store: Store, first: RunRecord, second: RunRecord, resamples: int) -> list[SetComparison]:
    """Compare two runs by each metric on each test set; the metric that selects checkpoints comes first.

    An example's score is the mean over its decoding seeds (for BLEU its summed counts). The intervals speak of
    other test examples, not of other training seeds. Holm's correction is over all comparisons returned.

    Raises:
        BenchError: the runs may not stand in one table, or their predictions cannot be read or do not match.
    """
    check_comparable(first, second)
    predictions = [store.predictions(record) for record in (first, second)]
    found = []
    for metric in first.metrics:
        one, two = (example_scores(rows, metric.name) for rows in predictions)
        for name, examples in one.items():
            ids = sorted(examples)
            if ids != sorted(two.get(name, {})):
                raise BenchError(f"{name}: the two runs' predictions are not over the same examples")
            a, b = (np.array([side[name][i] for i in ids], dtype=np.float64) for side in (one, two))
            found.append(_compare_set(name, metric, (first.run_id, a), (second.run_id, b), resamples))
    corrected = holm([one.p for one in found])
    return [replace(one, p_holm=p) for one, p in zip(found, corrected, strict=True)]


def _compare_set(
    name: str, metric: MetricInfo, first: tuple[str, Array], second: tuple[str, Array], resamples: int
) -> SetComparison:
    """One row, from run ids with example scores; `p_holm` is left uncorrected."""
    of_sum = metric.find().score_of_sum if first[1].ndim > 1 else None  # a mean of numbers needs no metric's code
    try:
        result = hierarchical_comparison(first[1][None], second[1][None], score=of_sum, resamples=resamples)
    except ValueError as error:  # a single example, say
        raise BenchError(f"{name}: no interval can be given: {error}") from error
    scores = [RunScore(run, of_sum(arm.sum(0)) if of_sum else float(arm.mean())) for run, arm in (first, second)]
    return SetComparison(
        set=name,
        metric=metric.name,
        label=metric.label,
        first=scores[0],
        second=scores[1],
        difference=result.difference,
        low=result.low,
        high=result.high,
        p=result.p_value,
        p_holm=result.p_value,
        examples=result.n,
    )
