"""Which method to use on a task: what recorded runs say, how sure that is, and which run would tell more.

What is believed of the arms' true scores is a multivariate t around their means. Its matrix is the one behind
`compare_arms`: the variance of residuals over seeds, with blocks fitted, plus what the examples add to differences.
Where residuals are pooled and all arms have the same seeds, the difference of two arms has there the very interval of
`compare_arms` with the noise of all. Probabilities are shares of `DRAWS`
draws from it, with one fixed seed: their own error is at most 0.05 percentage points.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean, median

import numpy as np
from numpy.typing import NDArray

from bench.analysis.blocks import Arm, SeedNoise, compare_among, seed_noise
from bench.analysis.compare import Side, arm_key, unread_options
from bench.analysis.significance import p_values_of_best
from bench.analysis.timing import hardware, has_exclusive_timing, usual_hardware
from bench.config.comparable import differences
from bench.config.presets import read_pair, recorded_name, shipped
from bench.config.resolve import resolve
from bench.config.sections import Config
from bench.data import find_task
from bench.record.example_scores import example_scores
from bench.record.record import RunRecord
from bench.record.store import RECORD, Store
from bench.system.errors import BenchError

_Array = NDArray[np.float64]
DRAWS = 2**20
POINT = 1.0
"""What counts as near the best, in points of the score."""
IN_THE_RACE = 0.01
"""The probability of being best from which on a method is worth another run."""
MAY_BE_NEAR = 0.05
"""The probability of being near the best from which on a method that is not told from the best may be as good."""
SIGNIFICANCE = 0.05
_SAME = 1e-9
"""Points: methods that gave the same responses."""
_SOURCE = "sgo.source"
NEXT_SEED = 10  # after the last one, where no two show the step


@dataclass(frozen=True)
class Advice:
    """What is known of one method.

    Attributes:
        method: its name; with every output source, that of another than its own is in brackets.
        score: its mean over training seeds.
        best, near_best: probability of being the best, and of being within `POINT` of the best; None where no method
            has a second training seed, whose noise is most of what they are made of.
        seeds: training seeds.
        seconds: median training time of the runs whose time may be shown; None without any.
        before: median of what the runs need before their training; None where they do not say all of it.
        cost: of both, where a price was given.
        within_budget: False where both together are more than was asked for, or not known.
        told_apart: whether it differs from the leader at 5 %, by Tukey's test of all methods within the budget.
    """

    method: str
    score: float
    best: float | None
    near_best: float | None
    seeds: tuple[int, ...]
    seconds: float | None
    before: float | None
    cost: float | None
    within_budget: bool
    told_apart: bool

    @property
    def total(self) -> float | None:
        """Seconds of the training and of what comes before it."""
        return None if self.seconds is None or self.before is None else self.seconds + self.before


@dataclass(frozen=True)
class NextRuns:
    """The runs that would tell most: of these methods at this seed.

    Attributes:
        regret_now, regret_then: points that the choice is expected to lose, now and after these runs; None where
            nothing is known of what another seed does.
        commands: what makes them.
    """

    methods: tuple[str, ...]
    seed: int
    regret_now: float | None
    regret_then: float | None
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """A recorded setting of a method that is not ranked, since the method is ranked with another.

    Attributes:
        method, source: its name and output source.
        other: what else is not as the preset gives it, by dotted key.
        score: the mean over its training seeds.
        run_id: of its first run.
    """

    method: str
    source: str
    other: tuple[str, ...]
    score: float
    run_id: str


@dataclass(frozen=True)
class OtherPreset:
    """What the same folder says of the task at another preset.

    Attributes:
        preset: its recorded name.
        told: its leader in words, or why there is none.
        leader: its leader's name.
        command: what shows all of it.
    """

    preset: str
    told: str
    leader: str | None
    command: str


@dataclass(frozen=True)
class Recommendation:
    """Methods on a task, the best first.

    Attributes:
        set, label: what the scores are of.
        methods: those within the budget first; probabilities are among these, and 0 for the others.
        seeds_known: whether the noise of training seeds is known.
        pooled: whether all methods share one variance of residuals.
        next_runs: None where one method alone is in the race.
        left_out: recorded settings that are not ranked, the best first.
        other_presets: recorded in the same folder on the same task and models.
    """

    task: str
    preset: str
    models: str
    set: str
    label: str
    methods: tuple[Advice, ...]
    seeds_known: bool
    pooled: bool
    next_runs: NextRuns | None
    left_out: tuple[LeftOut, ...] = ()
    other_presets: tuple[OtherPreset, ...] = ()

    @property
    def as_good(self) -> list[Advice]:
        """Those that the test does not tell from the best, and that may well be within a point of it."""
        return [one for one in self._open if (one.near_best or 0.0) >= MAY_BE_NEAR]

    @property
    def too_noisy(self) -> list[Advice]:
        """Those that the test does not tell from the best, though they are hardly within a point of it."""
        return [one for one in self._open if (one.near_best or 0.0) < MAY_BE_NEAR]

    @property
    def _open(self) -> list[Advice]:
        return [one for one in self.methods[1:] if self.seeds_known and one.within_budget and not one.told_apart]


@dataclass(frozen=True)
class Belief:
    """A multivariate t of the arms' true scores, up to what all of them share.

    Attributes:
        scores: (A,), where it lies: means over seeds, corrected for seeds that an arm lacks.
        spread: (A, A), its matrix.
        df: degrees of freedom.
    """

    scores: _Array
    spread: _Array
    df: float

    def drawn(self, draws: int = DRAWS) -> _Array:
        """(draws, A), the same in each call."""
        rng = np.random.default_rng(0)
        values, vectors = np.linalg.eigh(self.spread)
        root = vectors * np.sqrt(values.clip(0))
        scale = np.sqrt(self.df / rng.chisquare(self.df, (draws, 1))) if math.isfinite(self.df) else 1.0
        return np.asarray(self.scores + scale * (rng.standard_normal((draws, len(values))) @ root.T))

    def probabilities(self, within: float = POINT, draws: int = DRAWS) -> tuple[_Array, _Array]:
        """(A,) of being best, which arms that are the same share, and of being within so many points of the best."""
        drawn = self.drawn(draws)
        behind = drawn.max(axis=1, keepdims=True) - drawn
        first = behind < _SAME
        best = (first / first.sum(axis=1, keepdims=True)).sum(axis=0) / draws
        return best, np.count_nonzero(behind <= within, axis=0) / draws

    def regret(self) -> float:
        """By how many points the true best is expected to be above the arm of the highest score."""
        drawn = self.drawn(DRAWS // 8)
        return float((drawn.max(axis=1) - drawn[:, self.scores.argmax()]).mean())


def belief(by_name: Mapping[str, Arm], noise: SeedNoise | None, seeds: Sequence[Sequence[int]] | None = None) -> Belief:
    """What is believed of arms that answer the same examples.

    Where residuals are pooled over all arms, seeds are fitted as blocks. Else each arm has the variance that
    comparisons give it, and the degrees of freedom of the louder arm with the fewest seeds; without shared seeds, all
    have the spread within an arm.

    Args:
        by_name: two arms or more.
        noise: of these arms and others beside them.
        seeds: what their seeds would be, for the spread that more of them would leave.
    """
    arms = list(by_name.values())
    of_arms = [arm.seeds for arm in arms] if seeds is None else seeds
    examples = _of_examples(by_name, noise)
    means = np.array([fmean(arm.scores.values()) for arm in arms])
    counts = np.array([len(own) for own in of_arms], dtype=np.float64)
    if noise is None:
        return Belief(means, examples, math.inf)
    if noise.residual is None:
        variance, df = noise.within
        return Belief(means, np.diag(variance / counts) + examples, df)
    fitted, _ = _blocked([arm.seeds for arm in arms])
    scores = fitted @ np.concatenate([[arm.scores[seed] for seed in arm.seeds] for arm in arms])
    scores += means.mean() - scores.mean()
    variance, df = noise.residual
    if not (louder := noise.louder.keys() & by_name.keys()):
        return Belief(scores, variance * _blocked(of_arms)[1] + examples, df)
    own = np.array([noise.louder.get(name, (variance, df))[0] for name in by_name])
    return Belief(scores, np.diag(own / counts) + examples, min(df, *(noise.louder[name][1] for name in louder)))


def _blocked(seeds: Sequence[Sequence[int]]) -> tuple[_Array, _Array]:
    """The additive fit of arms and seeds: (A, cells) that makes arms' effects of scores, and their (A, A) spread.

    Both hold for differences of arms; what all share is not determined.
    """
    every = sorted({seed for own in seeds for seed in own})
    cells = [(row, len(seeds) + every.index(seed)) for row, own in enumerate(seeds) for seed in own]
    design = np.zeros((len(cells), len(seeds) + len(every)))
    for cell, places in enumerate(cells):
        design[cell, list(places)] = 1
    inverse: _Array = np.asarray(np.linalg.pinv(design.T @ design, hermitian=True), dtype=np.float64)
    return (inverse @ design.T)[: len(seeds)], inverse[: len(seeds), : len(seeds)]


def _of_examples(arms: Mapping[str, Arm], noise: SeedNoise | None) -> _Array:
    """(A, A), what the choice of examples adds, such that every two arms' difference has of it what comparisons say."""
    count = len(arms)
    of_pairs = np.zeros((count, count))
    for (i, first), (j, second) in combinations(enumerate(arms), 2):
        of_pairs[i, j] = of_pairs[j, i] = compare_among(arms, first, second, noise).fixed
    centred = np.eye(count) - 1 / count
    return np.asarray(-centred @ of_pairs @ centred / 2, dtype=np.float64)


def recommend(
    store: Store,
    task: str,
    *,
    preset: str = "tiny",
    models: str | None = None,
    on: str = "test",
    max_seconds: float | None = None,
    price: float | None = None,
    every_source: bool = False,
    warn: Callable[[str], None] = lambda _: None,
) -> Recommendation:
    """What the runs recorded on a task say about which method to use.

    Of each method the runs with its own options, output source and the preset's init student are taken, with all their
    seeds; of a method that has none of these, those of the settings with most seeds.

    Args:
        store: the results folder.
        task: a task's name, or a task file.
        preset: the runs' scale: a shipped preset's name, or a file.
        models: the model pair; None = that of most runs.
        on: the evaluation set.
        max_seconds: time that a run may take, with what its method needs before the training. Methods above it, or
            whose time is not known, take no part in the choice.
        price: of an hour.
        every_source: rank each method with every output source that it is recorded with.
        warn: told of what is left out.

    Raises:
        BenchError: nothing recorded, an unknown set, or no method within the budget.
    """
    name, scale = find_task(task).name, recorded_name(preset)
    pair = None if models is None else read_pair(models).name
    recorded = [
        record
        for record in store.all()
        # a trial of tuning has validation scores, which are no test scores
        if record.task == name and record.evaluated is None and record.config.score_on == "test"
    ]
    own = [record for record in recorded if record.config.preset == scale and pair in (None, record.config.models.name)]
    if not own:
        there = " or ".join(store.preset(one) for one in sorted({record.config.preset for record in recorded}))
        raise BenchError(
            f"no runs on {name} at preset {scale}{'' if pair is None else f' with models {pair}'} in {store.runs}"
            f"{f' (recorded: --preset {there})' if there else ''}; "
            f"make some with: bench recommend --task {task} --preset {preset} --minutes 60"
        )
    options = _Options(on, max_seconds, price, every_source, models)
    found = _by_records(store, own, task, preset, options, warn)
    words = ["bench", "recommend", "--task", task, "--out", str(store.root)]
    words += [] if models is None else ["--models", models]
    words += [] if on == "test" else ["--on", on]
    others = []
    for other in sorted({record.config.preset for record in recorded} - {scale}):
        theirs = [r for r in recorded if r.config.preset == other and r.config.models.name == found.models]
        if theirs:
            command = shlex.join([*words, "--preset", store.preset(other)])
            others.append(_other(store, theirs, task, other, options, command))
    return replace(found, other_presets=tuple(others))


@dataclass(frozen=True)
class _Options:
    on: str
    max_seconds: float | None
    price: float | None
    every_source: bool
    models: str | None


def _other(
    store: Store, records: Sequence[RunRecord], task: str, preset: str, options: _Options, command: str
) -> OtherPreset:
    try:
        found = _by_records(store, records, task, store.preset(preset), options, lambda _: None)
    except BenchError as error:
        return OtherPreset(preset, str(error).splitlines()[0], None, command)
    first = found.methods[0]
    sure = "at one training seed" if first.best is None else f"the best with probability {first.best:.2f}"
    alike = ", ".join(one.method for one in found.as_good)
    told = f"{first.method} has the highest score ({sure}{f'; may be as good: {alike}' if alike else ''})"
    return OtherPreset(preset, told, first.method, command)


def _by_records(
    store: Store,
    records: Sequence[RunRecord],
    task: str,
    preset: str,
    options: _Options,
    warn: Callable[[str], None],
) -> Recommendation:
    """What runs of one preset say."""
    sides, left_out = _sides(records, task, preset, options, warn)
    records = [record for side in sides for record in side.records]
    first, on, max_seconds = records[0], options.on, options.max_seconds
    if on not in first.scores:
        raise BenchError(f"no scores on {on!r} of {first.task}: its runs have {', '.join(first.scores)}")
    usual = usual_hardware(records)
    seconds, before, fits = {}, {}, {}
    for side in sides:
        timed = [r for r in side.records if has_exclusive_timing(r) and hardware(r) == usual]
        needed = [r.seconds_before for r in side.records]  # made once for many runs, whichever of them are timed
        seconds[side.name] = median(r.time.training_seconds for r in timed) if timed else None
        known = [one for one in needed if one is not None]
        before[side.name] = median(known) if known and len(known) == len(needed) else None
    totals = {
        name: None if time is None or (needs := before[name]) is None else time + needs
        for name, time in seconds.items()
    }
    fits = {name: max_seconds is None or (one is not None and one <= max_seconds) for name, one in totals.items()}
    if not any(fits.values()):
        least = min((one for one in totals.values() if one is not None), default=None)
        reason = "no time is known" if least is None else f"the fastest takes {least:.3g} s"
        raise BenchError(f"no method on {first.task} within --max-seconds {max_seconds:g}: {reason}")
    every = {side.name: _arm(store, side, on) for side in sides}
    noise = seed_noise({name: arm.scores for name, arm in every.items()})
    arms = {name: arm for name, arm in every.items() if fits[name]}
    found = belief(arms, noise)
    scores = dict(zip(arms, map(float, found.scores), strict=True))
    best, near = (dict(zip(arms, map(float, of_arm), strict=True)) for of_arm in found.probabilities())
    leader = max(scores, key=scores.__getitem__)
    following = _next_runs(arms, noise, best, leader)
    apart: set[str] = set()
    if noise is not None:
        others = [name for name in arms if name != leader]
        p_values = p_values_of_best([compare_among(arms, leader, name, noise) for name in others])
        apart = {name for name, p in zip(others, p_values, strict=True) if p < SIGNIFICANCE}
    if following is not None:
        folders = {side.name: store.folder(side.records[0].run_id) for side in sides}
        rest = ["--seed", str(following.seed), "--out", str(store.root)]
        commands = tuple(
            shlex.join(["bench", "run", "--config", str(folders[name] / RECORD), *rest]) for name in following.methods
        )
        following = replace(following, commands=commands)
    advice = [
        Advice(
            method=side.name,
            score=side.score(on, side.records[0].metric.name),
            best=None if noise is None else best.get(side.name, 0.0),
            near_best=None if noise is None else near.get(side.name, 0.0),
            seeds=side.seeds,
            seconds=seconds[side.name],
            before=before[side.name],
            cost=None
            if options.price is None or (total := totals[side.name]) is None
            else options.price * total / 3600,
            within_budget=side.name in arms,
            told_apart=side.name in apart,
        )
        for side in sides
    ]
    return Recommendation(
        task=first.task,
        preset=first.config.preset,
        models=first.config.models.name,
        set=on,
        label=first.metric.label,
        methods=tuple(sorted(advice, key=lambda one: (not one.within_budget, -one.score))),
        seeds_known=noise is not None,
        pooled=noise is not None and not noise.louder,
        next_runs=following,
        left_out=tuple(sorted(left_out, key=lambda one: -one.score)),
    )


def _next_runs(
    arms: Mapping[str, Arm], noise: SeedNoise | None, best: Mapping[str, float], leader: str
) -> NextRuns | None:
    """The next seed of the leader and one rival, whichever leaves the least regret a run if scores stay as they are.

    A seed that one method alone has tells nothing of differences, so that both run it, unless one has it already.
    Where nothing is known of what a seed does, no rival is out of the race, and that of the next score is taken.
    """
    every = sorted({seed for arm in arms.values() for seed in arm.seeds})
    new = every[-1] + (every[-1] - every[-2] if len(every) > 1 else NEXT_SEED)
    now = belief(arms, noise).regret()
    found: list[tuple[float, NextRuns]] = []
    for rival in arms:
        if rival == leader or (noise is not None and best[rival] < IN_THE_RACE):
            continue
        pair = (leader, rival)
        if noise is None:
            found.append((-fmean(arms[rival].scores.values()), NextRuns(pair, new, None, None)))
            continue
        seed = next((one for one in every if any(one not in arms[name].seeds for name in pair)), new)
        runs = tuple(name for name in pair if seed not in arms[name].seeds)
        seeds = [(*arm.seeds, seed) if name in runs else arm.seeds for name, arm in arms.items()]
        then = belief(arms, noise, seeds).regret()
        found.append(((then - now) / len(runs), NextRuns(runs, seed, now, then)))
    return min(found, key=lambda one: one[0])[1] if found else None


def _arm(store: Store, side: Side, on: str) -> Arm:
    metric = side.records[0].metric
    scores = [example_scores(store.predictions(record), metric.name).get(on, {}) for record in side.records]
    ids = sorted(scores[0])
    if any(sorted(of_run) != ids for of_run in scores):
        raise BenchError(f"{on}: the runs' predictions are not over the same examples")
    values = np.array([[of_run[i] for i in ids] for of_run in scores], dtype=np.float64)
    try:
        return Arm.of(side.seeds, values, metric.find().score_of_sum if values.ndim > 2 else None)
    except ValueError as error:
        raise BenchError(f"{on}: {error}") from error


def _sides(
    recorded: Sequence[RunRecord], task: str, preset: str, options: _Options, warn: Callable[[str], None]
) -> tuple[list[Side], list[LeftOut]]:
    """Every method of some runs on a task, with one run a seed, all of which can be compared; what is left out."""
    groups: dict[str, list[RunRecord]] = {}
    for record in recorded:
        groups.setdefault(record.comparison_key, []).append(record)
    records, *others = sorted(groups.values(), key=len, reverse=True)
    for left in others:
        told = ", ".join(map(str, differences(records[0].comparison_fields, left[0].comparison_fields)))
        warn(
            f"left out {len(left)} of {records[0].task}'s runs, which cannot be compared with the other "
            f"{len(records)}: {told}"
        )
    by_method: dict[str, dict[str, dict[int, RunRecord]]] = {}
    for record in records:
        arms = by_method.setdefault(record.config.method.name, {})
        arms.setdefault(arm_key(record), {}).setdefault(record.seed, record)
    sides, left_out = [], []
    for method, found in by_method.items():
        unlike: dict[str, tuple[str, ...]] = dict.fromkeys(found, ())
        if len(found) > 1:
            unlike = {key: _unlike_usual(arm[min(arm)].config, task, preset, options) for key, arm in found.items()}
        ranked: set[str] = set()
        for key, arm in sorted(found.items(), key=lambda item: (*_preference(unlike[item[0]]), -len(item[1]))):
            one = arm[min(arm)]
            source, other = one.config.sgo.source, tuple(name for name in unlike[key] if name != _SOURCE)
            if not ranked or (options.every_source and source not in ranked and not other):
                name = method if not ranked else f"{method} ({source})"
                sides.append(Side(name, tuple(arm[seed] for seed in sorted(arm))))
                ranked.add(source)
            elif options.on in one.scores:
                score = fmean(record.scores[options.on].primary.mean for record in arm.values())
                left_out.append(LeftOut(method, source, other, score, one.run_id))
    return sides, left_out


def _preference(unlike: tuple[str, ...]) -> tuple[bool, bool]:
    """A method's own settings first; then the usual ones of another output source."""
    return bool(unlike), unlike != (_SOURCE,)


def _unlike_usual(config: Config, task: str, preset: str, options: _Options) -> tuple[str, ...]:
    """Where a run's method options, output source and init student are not what the preset gives its method.

    Options of another output source are held to those that the preset gives that source. Those that the source does not
    read have no effect and are not looked at: runs that differ in them alone are of one setting (`arm_key`).
    """
    settings = [] if config.data.dir else [f"data.hub={json.dumps(config.data.hub)}"]
    name = config.method.file or config.method.name
    usual, method = resolve(
        preset=preset,
        task=task,
        method=name,
        models=config.models.name if config.models.name in shipped("pairs") else options.models,
        sgo=config.sgo.source,
        data_dir=config.data.dir,
        assignments=settings,
    )
    unread = unread_options(config)
    first, second = (
        {
            "method": dict(one.method.options),
            "sgo": one.sgo.model_dump(mode="json", exclude=set(unread)),
            "init": one.init,
        }
        for one in (usual, config)
    )
    source = () if method.source == config.sgo.source else (_SOURCE,)
    return (*source, *(difference.key for difference in differences(first, second)))
