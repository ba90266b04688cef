"""From a suite to the runs that are missing: what is recorded already, what is left, how long that takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

from bench import __version__
from bench.analysis.timing import hardware, has_exclusive_timing, slow_few, slow_runs, usual_hardware
from bench.config.presets import read_preset, recorded_name
from bench.config.resolve import parse_assignment
from bench.config.sections import Config
from bench.record.record import RunRecord
from bench.record.store import RECORD, Store
from bench.system.errors import BenchError, nearest
from bench.system.hashing import digest
from paper_tables.paper.run_spec import RunSpec
from paper_tables.paper.suites import TimedAt

FIRST_GUESS = {"tiny": 60.0}
"""Seconds of a run before any is recorded, on two CPU cores."""

_VARIED = {
    "seed": "choose training seeds with --seeds",
    "method.name": "choose methods with --only",
    "task": "choose a suite of that task, such as table1, or ask one of it with --task",
    "preset": "choose it with --preset",
    "init": "`bench run --init` makes a single run",
    "sgo.source": "`bench run --sgo` makes a single run",
    "models.name": "choose them with --task and --models",
}


@dataclass(frozen=True)
class PlannedRun:
    """A run of the plan.

    Attributes:
        spec: everything about it but preset and seed.
        seed: training seed.
        exclusive: nothing else may run beside it, since its training time goes into a table.
        recorded: there is a record.
        retimed: it is made again for its training time: what is recorded shared the machine, or is of other hardware,
            or was slow (`bench.analysis.timing`).
        threads: CPU threads it has to take to be comparable in time to what is recorded; None where that is open.
    """

    spec: RunSpec
    seed: int
    exclusive: bool = False
    recorded: bool = False
    retimed: bool = False
    threads: int | None = None

    @property
    def to_do(self) -> bool:
        """Whether it has to be run."""
        return self.retimed or not self.recorded


@dataclass(frozen=True)
class SuitePlan:
    """The runs of a suite.

    Attributes:
        preset: their scale.
        runs: all of them; exclusive ones come first, then seed by seed, so that whatever is done by an interruption is
            of use.
        seconds: estimated duration of each run; None where nothing is known.
        guessed: the estimate rests on no recorded run of the preset.
        slow: recorded runs that were slower than the others of their arm, by how much as a share.
        timed_elsewhere: so many recorded runs lack a training time to compare with most, which this machine cannot
            give them, as most were timed on another.
    """

    preset: str
    runs: tuple[PlannedRun, ...]
    seconds: Mapping[PlannedRun, float | None]
    guessed: bool = False
    slow: Mapping[str, float] = field(default_factory=dict)
    timed_elsewhere: int = 0

    @property
    def to_do(self) -> tuple[PlannedRun, ...]:
        """The runs left."""
        return tuple(run for run in self.runs if run.to_do)

    def estimate(self, jobs: int) -> float | None:
        """Seconds that the runs left take with so many at a time; None where that is not known."""
        found = [(run.exclusive, self.seconds[run]) for run in self.to_do]
        known = [(exclusive, seconds) for exclusive, seconds in found if seconds is not None]
        if len(known) < len(found):
            return None
        return sum(seconds if exclusive else seconds / jobs for exclusive, seconds in known)


def make_plan(
    specs: Iterable[RunSpec],
    timed: Mapping[RunSpec, TimedAt],
    records: Iterable[RunRecord],
    *,
    preset: str,
    seeds: Sequence[int],
    jobs: int = 1,
    only: Sequence[str] = (),
    settings: Sequence[str] = (),
    times: bool = True,
    here: tuple[str, str] | None = None,
    shard: tuple[int, int] = (1, 1),
    gpu_each: bool = False,
) -> SuitePlan:
    """Plan the runs of some specs.

    Args:
        specs: what to run.
        timed: those whose training time is shown, and at which seeds it is needed.
        records: what is recorded.
        preset: the scale: a shipped preset's name, or a user's file.
        seeds: training seeds.
        jobs: how many run at a time. With one, every run has the machine to itself anyway.
        only: take these methods' runs only; none = all.
        settings: more `--set KEY=VALUE` for all.
        times: see to it that timed specs have exclusively timed runs, all on the same hardware.
        here: device and processor of this machine; None = those of most recorded runs.
        shard: number and count of the part to take. What is recorded does not change which runs are in it.
        gpu_each: those that run at a time have a GPU each, which is all that timed runs need to themselves.

    Raises:
        BenchError: a setting that no configuration takes or that the specs differ in, or a method that no spec has.
    """
    specs = tuple(dict.fromkeys(specs))
    there = {spec.method for spec in specs}
    for name in only:
        if name not in there:
            known = f"it has {', '.join(sorted(there))}; the nearest is {nearest(name, there)[0]}"
            raise BenchError(f"--only {name}: the suite has no such method; {known}")
    chosen = [spec for spec in specs if not only or spec.method in only]
    _check_tuned(preset, chosen)
    _check_settings(settings, chosen)
    recorded = _by_configuration(records)
    name = read_preset(preset).name
    at_scale = [one for one in recorded.values() if one.config.preset == name and one.evaluated is None]
    usual = usual_hardware(at_scale)
    # on another machine than most were timed on, no time that is taken again would count
    can_time = here is None or usual is None or (usual.device, usual.cpu) == here
    timed_elsewhere = 0
    arms: dict[RunSpec, list[RunRecord]] = {}
    for spec in specs if times else ():
        if spec in timed:
            whole = replace(spec, options=(*spec.options, *settings))
            arm = [recorded.get(_key(whole.config(preset, seed))) for seed in seeds]
            arms[spec] = [r for r in arm if r and has_exclusive_timing(r) and hardware(r) == usual]
    few = slow_few(arms.values())
    slow_of = {spec: _slow(arms[spec], few) for spec in chosen if spec in arms}
    planned: dict[str, PlannedRun] = {}
    for seed in seeds:
        for spec in chosen:
            whole = replace(spec, options=(*spec.options, *settings))
            config = whole.config(preset, seed)
            key = _key(config)
            found = recorded.get(key)
            planned.setdefault(key, PlannedRun(whole, seed, recorded=found is not None))
            if spec not in arms:
                continue
            is_slow = found is not None and found.run_id in slow_of[spec]
            if timed[spec] == "first seed" and seed != seeds[0] and not is_slow:
                continue
            # at every seed, each run counts for itself; else any one of the spec's will do
            counted = [r for r in arms[spec] if timed[spec] != "every seed" or r is found]
            has_time = bool(counted) and not is_slow
            needs_time = found is not None and not has_time
            timed_elsewhere += needs_time and not can_time and not is_slow
            planned[key] = replace(
                planned[key],
                exclusive=not has_time and jobs > 1 and not (gpu_each and config.device != "cpu"),
                retimed=needs_time and can_time,
                threads=usual.threads if usual else None,
            )
    number, count = shard
    part = list(planned.values())[number - 1 :: count]
    runs = tuple(sorted(part, key=lambda run: not run.exclusive))
    seconds = _durations(runs, FIRST_GUESS.get(preset), at_scale)
    slow = {run_id: share for of_spec in slow_of.values() for run_id, share in of_spec.items()}
    return SuitePlan(preset, runs, seconds, not at_scale, slow, timed_elsewhere)


def _slow(arm: Sequence[RunRecord], few: Mapping[str, float]) -> dict[str, float]:
    """By run id, how much slower runs of an arm were than the others; not of one that was made again.

    One that is as slow again has its reason in itself.

    Args:
        arm: the timed runs of a spec.
        few: the same of all arms with too few runs to tell, by what steps take in other arms of their kind.
    """
    again = {record.run_id for record in arm if not record.time.earlier}
    return {run_id: share for run_id, share in {**slow_runs(arm), **few}.items() if run_id in again}


def _check_tuned(preset: str, specs: Sequence[RunSpec]) -> None:
    """Refuse to make runs of untuned methods with a tuned preset: they could not stand beside the tuned ones."""
    read = read_preset(preset)
    if not read.is_tuned:
        return
    untuned: dict[str, set[str]] = {}
    for spec in specs:
        if read.tuned(spec.task, spec.method) is None:
            untuned.setdefault(spec.task, set()).add(spec.method)
    if untuned:
        missing = "\n".join(f"  --task {task} --methods {','.join(sorted(untuned[task]))}" for task in sorted(untuned))
        raise BenchError(
            f"--preset {preset}: it is tuned, but not for all methods of the suite; tune these as the others were "
            f"(`bench tune`), or choose methods with --only:\n{missing}"
        )


def _check_settings(settings: Sequence[str], specs: Sequence[RunSpec]) -> None:
    """Refuse a setting of what the runs differ in: they would all become the same run."""
    varied = {**_VARIED, **{_key_of(option): "leave it out" for spec in specs for option in spec.options}}
    for text in settings:
        given = f"{_key_of(text)}."
        for key, instead in varied.items():
            if given.startswith(f"{key}.") or f"{key}.".startswith(given):
                raise BenchError(f"--set {text}: the runs of the suite differ in {key}, so it cannot be set: {instead}")


def _key_of(assignment: str) -> str:
    """The dotted key of a `KEY=VALUE`.

    Raises:
        BenchError: as `parse_assignment`.
    """
    return ".".join(parse_assignment(assignment)[0])


class Newcomers:
    """The runs that are recorded after this was made, whoever made them.

    Args:
        store: where they are recorded.
        preset: scale of the planned runs that are looked for.
    """

    def __init__(self, store: Store, preset: str) -> None:
        self.store, self.preset = store, preset
        self._known = dict(self._written())
        self._keys: set[str] = set()

    def __contains__(self, run: PlannedRun) -> bool:
        for path, when in self._written():
            if self._known.get(path) != when:
                self._known[path] = when
                record = self.store.finished(path.parent.name)
                self._keys.update(_by_configuration([record] if record else []))
        return _key(run.spec.config(self.preset, run.seed)) in self._keys

    def _written(self) -> Iterator[tuple[Path, int]]:
        """Every record's file, with the time it was written."""
        for path in self.store.runs.glob(f"*/{RECORD}"):
            with suppress(OSError):
                yield path, path.stat().st_mtime_ns


def _by_configuration(records: Iterable[RunRecord]) -> dict[str, RunRecord]:
    """Those made by this version."""
    return {_key(record.config): record for record in records if record.environment.distillm_bench == __version__}


def _key(config: Config) -> str:
    # a record has the device that `auto` turned out to be
    return digest({name: value for name, value in config.identity().items() if name != "device"})


def _durations(
    runs: Sequence[PlannedRun], first_guess: float | None, records: Iterable[RunRecord]
) -> dict[PlannedRun, float | None]:
    """What the recorded runs most like each took; a guess without records."""
    taken: dict[Kind, list[float]] = {}
    for record in records:
        for kind in kinds_of_record(record):
            taken.setdefault(kind, []).append(record.seconds)
    durations = {}
    for run in runs:
        known = next((taken[kind] for kind in kinds_of_run(run) if kind in taken), None)
        durations[run] = fmean(known) if known else first_guess
    return durations


Kind = tuple[str, ...]


def _kinds(task: str, models: str, source: str, method: str) -> tuple[Kind, ...]:
    """Ever wider kinds of runs that one is of: those of its pair first, whose sizes make most of what a run takes."""
    of_pair = (f"pair {models}", task)
    return (
        *((*of_pair, source, method), (*of_pair, source), of_pair),
        *((task, source, method), (task, source), (task,), ()),
    )


def kinds_of_run(run: PlannedRun) -> tuple[Kind, ...]:
    """The kinds of a planned run, the narrowest first; the third is its task and pair."""
    return _kinds(run.spec.task, recorded_name(run.spec.models), run.spec.output_source, run.spec.method)


def kinds_of_record(record: RunRecord) -> tuple[Kind, ...]:
    """The same of a recorded one."""
    config = record.config
    return _kinds(record.task, config.models.name, config.sgo.source, config.method.name)
