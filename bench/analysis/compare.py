"""Is the difference between recorded runs real? Two runs, or methods with all their training seeds."""

from __future__ import annotations

import glob
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean

import numpy as np

from bench.analysis.blocks import Arm, compare_arms, seed_noise
from bench.analysis.significance import holm
from bench.config.comparable import comparison_fields, differences_in_words, own_settings
from bench.config.presets import recorded_name
from bench.config.registry import methods
from bench.config.resolve import resolve
from bench.config.sections import Config
from bench.data import find_task
from bench.record.example_scores import NO_EXAMPLES, ExampleArray
from bench.record.record import MetricInfo, RunRecord
from bench.record.store import Store
from bench.system.errors import BenchError, did_you_mean
from bench.system.hashing import digest
from distillm.sources import SOURCES


@dataclass(frozen=True)
class ComparedRuns:
    """What is compared: a run, or a method with the runs of all its training seeds."""

    name: str
    records: tuple[RunRecord, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Its training seeds."""
        return tuple(record.seed for record in self.records)

    def score(self, where: str, metric: str) -> float:
        """Its recorded score on a set, as tables have it: the mean over decoding seeds, and over training seeds.

        A score of summed counts, such as BLEU, is another over the responses of all decoding seeds together, which is
        what differences are taken of.
        """
        return fmean(record.scores[where].metrics[metric].mean for record in self.records)


@dataclass(frozen=True)
class RunScore:
    """A side's recorded score on one set; `run` is its id, or the method's name."""

    run: str
    score: float


@dataclass(frozen=True)
class SetComparison:
    """Two sides on one set by one metric.

    Attributes:
        metric, label: its name in records, and in tables.
        difference: first minus second, over the training seeds that both have and all decoding seeds' responses
            together; of BLEU it may differ a little from that of the scores.
        low, high: ends of the difference's 95 % interval.
        p: two-sided p-value.
        p_holm: the same, corrected for the number of comparisons made at once.
        examples: how many the set has.
        seeds: how many training seeds of each side it rests on.
        seed_noise: whether the interval knows what another training seed does; else it speaks of examples alone.
        visible: the smallest true difference that would be found with 80 % probability.
        of_sums: whether the difference is of counts summed over decoding seeds, of which the scores are means.
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
    seeds: int
    seed_noise: bool
    visible: float
    of_sums: bool


def check_comparable(first: RunRecord, second: RunRecord) -> None:
    """Refuse two runs that may not stand in one table.

    Raises:
        BenchError: the runs differ in more than method, output source, init student and seed, or, where one is of a
            model that was not trained here, in what is scored; it says in what.
    """
    one, two = first.comparison_fields, second.comparison_fields
    if first.evaluated or second.evaluated:
        one, two = first.scored, second.scored
    elif first.comparison_key == second.comparison_key:
        return
    if one != two:
        found = "\n  ".join(differences_in_words(one, two))
        raise BenchError(f"{first.run_id} and {second.run_id} cannot be compared; they differ in\n  {found}")


def compare_runs(store: Store, first: RunRecord, second: RunRecord) -> list[SetComparison]:
    """Compare two runs by each metric on each test set; the metric that selects checkpoints comes first.

    An example's score is the mean over its decoding seeds (for BLEU its summed counts). Where other seeds of the runs'
    methods are recorded, the intervals are as wide as these seeds' noise makes them; else they speak of other test
    examples alone. Holm's correction is over all comparisons returned.

    Raises:
        BenchError: both are the same run, or may not stand in one table, or their predictions cannot be read or do not
            match.
    """
    if first.run_id == second.run_id:
        raise BenchError(f"{first.run_id} cannot be compared with itself: give two runs (`bench list runs`)")
    sides = [ComparedRuns(record.run_id, (record,)) for record in (first, second)]
    return _compare(store, sides, {arm_key(record): _other_seeds(store, record) for record in (first, second)})


def method_sides(
    store: Store, task: str, names: Sequence[str], preset: str = "tiny", models: str | None = None
) -> list[ComparedRuns]:
    """Methods on a task, each with all its recorded training seeds; of the preset's model pair unless one is given.

    Raises:
        BenchError: an unknown task or method, a method without runs, or with several settings none of which is its
            default.
    """
    if len(set(names)) < max(2, len(names)):
        raise BenchError(f"give two methods or more, each once; got {' '.join(names)}")
    every = list(store.all(curves=False))
    # a task of the user's may be known by its records alone
    given, task = task, task if any(record.task == task for record in every) else find_task(task).name
    known = {*methods(), *(record.config.method.name for record in every if record.evaluated is None)}
    if unknown := [name for name in names if name not in known]:
        raise BenchError(f"unknown method {unknown[0]!r}: {did_you_mean(unknown[0], known)}")
    scale, pair = recorded_name(preset), None if models is None else recorded_name(models)
    recorded = [
        record
        for record in every
        if (record.task, record.config.preset) == (task, scale) and pair in (None, record.config.models.name)
    ]
    return [ComparedRuns(name, tuple(_runs_of(recorded, store, given, name, preset, models))) for name in names]


def compare_sides(store: Store, sides: Sequence[ComparedRuns]) -> list[SetComparison]:
    """Compare methods in pairs and in the order given, within the training seeds that they share.

    The noise of seeds is pooled over all recorded runs that can be compared with them, where their variances allow
    (`bench.analysis.blocks`): two methods alone say little of it.

    Raises:
        BenchError: as `compare_runs`.
    """
    key = sides[0].records[0].comparison_key
    arms = _by_arm(record for record in store.all(curves=False) if record.comparison_key == key)
    return _compare(store, sides, {arm: list(runs.values()) for arm, runs in arms.items()})


def below_init(sides: Iterable[ComparedRuns]) -> Iterator[str]:
    """Of each side that ends below the init students it started from, on some set: a sentence that says so."""
    for side in sides:
        if any(record.config.init != "sft" for record in side.records):
            continue  # an init student's scores are those after its SFT
        for where in side.records[0].scores:
            end = fmean(record.scores[where].primary.mean for record in side.records)
            start = fmean(record.init_scores[where].primary.mean for record in side.records)
            if end < start:
                label = side.records[0].metric.label
                yield f"{side.name} ends below its own init student: {end:.2f} after {start:.2f} ({where} {label})"


def _compare(
    store: Store, sides: Sequence[ComparedRuns], arms_of: Mapping[str, Sequence[RunRecord]]
) -> list[SetComparison]:
    """All pairs of sides; the noise of seeds is that of some recorded arms by their keys, the sides' own among them."""
    for first, second in combinations(sides, 2):
        for record in (*first.records, *second.records):
            check_comparable(first.records[0], record)
    found = []
    for metric in sides[0].records[0].metrics:
        scores = {r.run_id: store.example_arrays(r, metric.name) for side in sides for r in side.records}
        for name, examples in scores[sides[0].records[0].run_id].items():
            decoded = sides[0].records[0].scores[name].metrics[metric.name].by_decoding_seed
            of_sums = len(decoded) > 1 and examples.values.ndim > 1
            if any(examples.ids != of_run.get(name, NO_EXAMPLES).ids for of_run in scores.values()):
                raise BenchError(f"{name}: the two runs' predictions are not over the same examples")
            try:
                arms = [arm_of(side.seeds, [scores[r.run_id][name] for r in side.records], metric) for side in sides]
            except ValueError as error:  # a single example, say
                raise BenchError(f"{name}: no interval can be given: {error}") from error
            # by what records have, so that no predictions of theirs are read
            noise = seed_noise({key: _recorded(its, name, metric) for key, its in arms_of.items() if len(its) > 1})
            for (first, a), (second, b) in combinations(zip(sides, arms, strict=True), 2):
                between = noise and noise.between(arm_key(first.records[0]), arm_key(second.records[0]))
                result = compare_arms(a, b, between)
                low, high = result.interval()
                found.append(
                    SetComparison(
                        set=name,
                        metric=metric.name,
                        label=metric.label,
                        first=RunScore(first.name, first.score(name, metric.name)),
                        second=RunScore(second.name, second.score(name, metric.name)),
                        difference=result.value,
                        low=low,
                        high=high,
                        p=result.p_value(),
                        p_holm=result.p_value(),  # corrected below
                        examples=len(examples.ids),
                        seeds=result.seeds,
                        seed_noise=result.spread_df != math.inf,
                        visible=result.visible(),
                        of_sums=of_sums,
                    )
                )
    corrected = holm([one.p for one in found])
    return [replace(one, p_holm=p) for one, p in zip(found, corrected, strict=True)]


def _recorded(records: Sequence[RunRecord], name: str, metric: MetricInfo) -> dict[int, float]:
    return {record.seed: record.scores[name].metrics[metric.name].mean for record in records}


def arm_of(seeds: Sequence[int], scores: Sequence[ExampleArray], metric: MetricInfo) -> Arm:
    """An arm from what each example scored at each training seed.

    Raises:
        ValueError: as `Arm.of`, or the training seeds do not have the same examples.
    """
    if any(one.ids != scores[0].ids for one in scores):
        raise ValueError("the runs' predictions are not over the same examples")
    values = np.stack([one.values for one in scores])
    # a mean of numbers needs no metric's code
    return Arm.of(seeds, values, metric.find().score_of_sum if values.ndim > 2 else None)


def arm_key(record: RunRecord) -> str:
    """What the runs of one method and setting share, whatever their training seed."""
    return digest([record.comparison_key, _own_settings(record.config)])


def _own_settings(config: Config) -> dict[str, object]:
    """An arm's own, without the options that the output source does not read."""
    found = own_settings(config.identity())
    source, unread = config.sgo.model_dump(mode="json"), unread_options(config)
    return found | {"sgo": {key: value for key, value in source.items() if key not in unread}}


def _settings_of_all(config: Config) -> dict[str, object]:
    """What all runs of a table share, but the device: a record has the one that was found."""
    found: dict[str, object] = comparison_fields({"config": config.identity()})["config"]
    return found | {"device": None}


def unread_options(config: Config) -> frozenset[str]:
    """The keys of `sgo` that a run's output source does not read, so that they have no effect on it."""
    # where a source does not tell what it reads, all may have an effect
    rule = None if config.fidelity.replayed_on_policy else SOURCES.get(config.sgo.source)
    return frozenset() if rule is None else frozenset(type(config.sgo).model_fields) - rule.reads - {"source"}


def _other_seeds(store: Store, record: RunRecord) -> list[RunRecord]:
    """The recorded runs of a run's method and setting, one a training seed; it is one of them."""
    config = record.config
    near = f"{config.task}-{config.method.name}-"
    found = {record.seed: record}
    for folder in sorted(store.runs.glob(f"{glob.escape(near)}*/")):
        other = store.finished(folder.name)
        if other is not None and arm_key(other) == arm_key(record):
            found.setdefault(other.seed, other)
    return list(found.values())


def _by_arm(records: Iterable[RunRecord]) -> dict[str, dict[int, RunRecord]]:
    """By method and setting, and by training seed."""
    arms: dict[str, dict[int, RunRecord]] = {}
    for record in records:
        arms.setdefault(arm_key(record), {}).setdefault(record.seed, record)
    return arms


def _runs_of(
    recorded: Iterable[RunRecord], store: Store, task: str, name: str, preset: str, models: str | None
) -> list[RunRecord]:
    """A method's runs, one a training seed: those of its default settings, or of the only ones there are."""
    arms = _by_arm(record for record in recorded if record.config.method.name == name)
    if len(arms) > 1:
        default, _ = resolve(preset=preset, task=task, method=name, models=models)
        for settings in (_own_settings, _settings_of_all):
            wanted = settings(default)
            arms = {
                arm: runs for arm, runs in arms.items() if settings(next(iter(runs.values())).config) == wanted
            } or arms
    if len(arms) > 1:
        ids = ", ".join(next(iter(runs.values())).run_id for runs in arms.values())
        raise BenchError(f"{name} on {task} is recorded in {len(arms)} settings ({ids}): compare runs by their ids")
    if not arms:
        raise BenchError(
            f"no run of {name} on {task} at preset {recorded_name(preset)} in {store.runs}; make one with: "
            f"bench run --method {name} --task {task} --preset {preset}{f' --models {models}' if models else ''}"
        )
    (runs,) = arms.values()
    return [runs[seed] for seed in sorted(runs)]
