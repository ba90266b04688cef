"""Which method to use on a task: what recorded runs say, how sure that is, and which run would tell more."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

from bench.analysis.blocks import Arm, SeedNoise, compare_among, seed_noise
from bench.analysis.compare import ComparedRuns, arm_of
from bench.analysis.significance import p_values_of_best
from bench.analysis.student_outputs import none_used
from bench.analysis.timing import common_hardware, hardware, has_exclusive_timing, usual_hardware
from bench.config.presets import read_pair, recorded_name
from bench.data import find_task
from bench.recommend.belief import belief
from bench.recommend.ranked_settings import DEFAULTS, LeftOut, Options, ranked_sides
from bench.record.example_scores import NO_EXAMPLES
from bench.record.record import RunRecord
from bench.record.store import RECORD, Store
from bench.system.errors import BenchError

IN_THE_RACE = 0.01
"""The probability of being best from which on a method is worth another run."""
MAY_BE_NEAR = 0.05
"""The probability of being near the best from which on a method that is not told from the best may be as good."""
SIGNIFICANCE = 0.05
NEXT_SEED = 10  # after the last one, where no two show the step


@dataclass(frozen=True)
class Advice:
    """What is known of one method.

    Attributes:
        method: its name; with every output source, that of another than its own is in brackets.
        score: its mean over training seeds.
        best, near_best: probability of being the best, and of being within a point of the best; None where no method
            has a second training seed, whose noise is most of what they are made of.
        seeds: training seeds.
        seconds: median training time of the runs that were timed alone; None without any.
        at_most: where there are none, the median of the others' times: other work only made them longer, so that it is
            an upper bound. None where `seconds` is known, and where no run had the hardware of most.
        before: median of what the runs need before their training; None where they do not say all of it.
        cost: of both, where a price was given; an upper bound where the time is one.
        within_budget: False where both together are more than was asked for, or not known.
        told_apart: whether it differs from the leader at 5 %, by Tukey's test of all methods within the budget.
        no_student_outputs: in how many runs adaptive φ stayed 0, in words; "" where in none.
    """

    method: str
    score: float
    best: float | None
    near_best: float | None
    seeds: tuple[int, ...]
    seconds: float | None
    at_most: float | None
    before: float | None
    cost: float | None
    within_budget: bool
    told_apart: bool
    no_student_outputs: str = ""


@dataclass(frozen=True)
class NextRuns:
    """The runs that would tell most: of these methods at this seed.

    Attributes:
        regret_now, regret_then: points that the choice is expected to lose, now and after these runs, which may change
            it; None where nothing is known of what another seed does.
        commands: what makes them.
    """

    methods: tuple[str, ...]
    seed: int
    regret_now: float | None
    regret_then: float | None
    commands: tuple[str, ...]


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
        other_pairs: names of other model pairs that are recorded on the task at the preset, where none was chosen.
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
    other_pairs: tuple[str, ...] = ()
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
class _Time:
    """Medians in seconds, None where not known: of the training or its upper bounds, and of what comes before it."""

    seconds: float | None
    at_most: float | None
    before: float | None

    @property
    def total(self) -> float | None:
        """Both together; an upper bound where that of the training is one."""
        training = self.at_most if self.seconds is None else self.seconds
        return None if training is None or self.before is None else training + self.before


def recommend(
    store: Store,
    task: str,
    preset: str = "tiny",
    options: Options = DEFAULTS,
    warn: Callable[[str], None] = lambda _: None,
) -> Recommendation:
    """What the runs recorded on a task say about which method to use.

    Of each method the runs with its own options, output source and the preset's init student are taken, with all their
    seeds; of a method that has none of these, those of the settings with most seeds.

    Args:
        store: the results folder.
        task: a task's name, or a task file.
        preset: the runs' scale: a shipped preset's name, or a file.
        options: what else is asked.
        warn: told of what is left out.

    Raises:
        BenchError: nothing recorded, an unknown set, or no method within the budget.
    """
    name, scale = find_task(task).name, recorded_name(preset)
    pair = None if options.models is None else read_pair(options.models).name
    recorded = [
        record
        for record in store.all(curves=False)
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
    found = _by_records(store, own, task, preset, options, warn)
    words = ["bench", "recommend", "--task", task, "--out", str(store.root)]
    words += [] if options.models is None else ["--models", options.models]
    words += [] if options.on == "test" else ["--on", options.on]
    others = []
    for other in sorted({record.config.preset for record in recorded} - {scale}):
        theirs = [r for r in recorded if r.config.preset == other and r.config.models.name == found.models]
        if theirs:
            command = shlex.join([*words, "--preset", store.preset(other)])
            others.append(_other(store, theirs, task, other, options, command))
    return replace(found, other_presets=tuple(others))


def _other(
    store: Store, records: Sequence[RunRecord], task: str, preset: str, options: Options, command: str
) -> OtherPreset:
    try:
        found = _by_records(store, records, task, store.preset(preset), options, lambda _: None)
    except BenchError as error:
        return OtherPreset(preset, str(error).splitlines()[0], None, command)
    first = found.methods[0]
    sure = "at one training seed" if first.best is None else f"the best with probability {first.best:.2f}"
    alike = ", ".join(one.method for one in found.as_good)
    told = "; ".join([sure, *[f"may be as good: {alike}"] * bool(alike), *filter(None, [first.no_student_outputs])])
    told = f"{first.method} has the highest score ({told})"
    return OtherPreset(preset, told, first.method, command)


def _by_records(
    store: Store,
    records: Sequence[RunRecord],
    task: str,
    preset: str,
    options: Options,
    warn: Callable[[str], None],
) -> Recommendation:
    """What runs of one preset say."""
    sides, left_out = ranked_sides(records, task, preset, options, warn)
    first, on = sides[0].records[0], options.on
    if on not in first.scores:
        raise BenchError(f"no scores on {on!r} of {first.task}: its runs have {', '.join(first.scores)}")
    times = _times(sides)
    within = _within(times, first.task, options.max_seconds)
    every = {side.name: _arm(store, side, on) for side in sides}
    noise = seed_noise({name: arm.scores for name, arm in every.items()})
    arms = {name: arm for name, arm in every.items() if name in within}
    found = belief(arms, noise)
    scores = dict(zip(arms, map(float, found.scores), strict=True))
    best, near = (dict(zip(arms, map(float, of_arm), strict=True)) for of_arm in found.probabilities())
    leader = max(scores, key=scores.__getitem__)
    apart = _told_apart(arms, noise, leader)
    advice = [
        Advice(
            method=side.name,
            score=side.score(on, side.records[0].metric.name),
            best=None if noise is None else best.get(side.name, 0.0),
            near_best=None if noise is None else near.get(side.name, 0.0),
            seeds=side.seeds,
            seconds=times[side.name].seconds,
            at_most=times[side.name].at_most,
            before=times[side.name].before,
            cost=_cost(times[side.name], options.price),
            within_budget=side.name in within,
            told_apart=side.name in apart,
            no_student_outputs=none_used(side.records),
        )
        for side in sides
    ]
    return Recommendation(
        task=first.task,
        preset=first.config.preset,
        models=first.config.models.name,
        set=on,
        label=first.metric.label,
        # a seed that is bad for all does not count against the methods that have it
        methods=tuple(sorted(advice, key=lambda one: (not one.within_budget, -scores.get(one.method, one.score)))),
        seeds_known=noise is not None,
        pooled=noise is not None and not noise.louder,
        next_runs=_next_runs(store, sides, arms, noise, best, leader),
        left_out=tuple(sorted(left_out, key=lambda one: -one.score)),
        other_pairs=tuple(sorted({record.config.models.name for record in records} - {first.config.models.name})),
    )


def _times(sides: Sequence[ComparedRuns]) -> dict[str, _Time]:
    """By name, what a run of each side takes on the hardware that most of the timed runs had, or else most of all."""
    every = [record for side in sides for record in side.records]
    usual = usual_hardware(every) or common_hardware(every)
    times = {}
    for side in sides:
        there = [r for r in side.records if hardware(r) == usual]
        timed = [r.time.training_seconds for r in there if has_exclusive_timing(r)]
        needed = [r.seconds_before for r in side.records]  # made once for many runs, whichever of them are timed
        known = [one for one in needed if one is not None]
        times[side.name] = _Time(
            seconds=median(timed) if timed else None,
            at_most=median(r.time.training_seconds for r in there) if there and not timed else None,
            before=median(known) if known and len(known) == len(needed) else None,
        )
    return times


def _within(times: Mapping[str, _Time], task: str, max_seconds: float | None) -> set[str]:
    """The methods that may be chosen: those known to take no longer; all of them where no time is set.

    Raises:
        BenchError: none.
    """
    if max_seconds is None:
        return set(times)
    totals = {name: total for name, time in times.items() if (total := time.total) is not None}
    if within := {name for name, total in totals.items() if total <= max_seconds}:
        return within
    reason = "no time is known"
    if totals:
        fastest = min(totals, key=totals.__getitem__)
        bound = times[fastest].seconds is None
        reason = (
            f"{fastest} takes least as far as is known, {'at most ' * bound}{totals[fastest]:.3g} s"
            f"{' (timed beside other work)' * bound}"
        )
    raise BenchError(f"no method on {task} is known to be within --max-seconds {max_seconds:g}: {reason}")


def _cost(time: _Time, price: float | None) -> float | None:
    """Of a run, at a price an hour; None where there is no price or the time is not known."""
    return None if price is None or time.total is None else price * time.total / 3600


def _told_apart(arms: Mapping[str, Arm], noise: SeedNoise | None, leader: str) -> set[str]:
    """The arms that differ from the leader by Tukey's test of all of them."""
    if noise is None:
        return set()
    others = [name for name in arms if name != leader]
    p_values = p_values_of_best([compare_among(arms, leader, name, noise) for name in others])
    return {name for name, p in zip(others, p_values, strict=True) if p < SIGNIFICANCE}


def _next_runs(
    store: Store,
    sides: Sequence[ComparedRuns],
    arms: Mapping[str, Arm],
    noise: SeedNoise | None,
    best: Mapping[str, float],
    leader: str,
) -> NextRuns | None:
    """The next seed of the leader and one rival, whichever gains most a run: by changing the choice for a better one.

    A seed that one method alone has tells nothing of differences, so that both run it, unless one has it already.
    Where nothing is known of what a seed does, no rival is out of the race, and that of the next score is taken.
    """
    records = {side.name: store.folder(side.records[0].run_id) / RECORD for side in sides}

    def runs_of(names: tuple[str, ...], seed: int, now: float | None, then: float | None) -> NextRuns:
        rest = ["--seed", str(seed), "--out", str(store.root)]
        commands = tuple(shlex.join(["bench", "run", "--config", str(records[name]), *rest]) for name in names)
        return NextRuns(names, seed, now, then, commands)

    every = sorted({seed for arm in arms.values() for seed in arm.seeds})
    new = every[-1] + (every[-1] - every[-2] if len(every) > 1 else NEXT_SEED)
    now = belief(arms, noise)
    regret = now.regret()
    found: list[tuple[float, float, NextRuns]] = []
    for rival in arms:
        if rival == leader or (noise is not None and best[rival] < IN_THE_RACE):
            continue
        pair = (leader, rival)
        if noise is None:
            found.append((-fmean(arms[rival].scores.values()), 0.0, runs_of(pair, new, None, None)))
            continue
        seed = next((one for one in every if any(one not in arms[name].seeds for name in pair)), new)
        names = tuple(name for name in pair if seed not in arms[name].seeds)
        seeds = [(*arm.seeds, seed) if name in names else arm.seeds for name, arm in arms.items()]
        gain = now.gain(belief(arms, noise, seeds))
        found.append((-gain / len(names), -best[rival], runs_of(names, seed, regret, max(0.0, regret - gain))))
    return min(found, key=lambda one: one[:2])[2] if found else None


def _arm(store: Store, side: ComparedRuns, on: str) -> Arm:
    metric = side.records[0].metric
    scores = [store.example_arrays(record).get(on, NO_EXAMPLES) for record in side.records]
    try:
        return arm_of(side.seeds, scores, metric)
    except ValueError as error:
        raise BenchError(f"{on}: {error}") from error
