"""From a suite to the runs that are missing: what is recorded already, what is left, how long that takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from bench import __version__
from bench.analysis.timing import had_machine_to_itself, hardware, threads_of, usual_hardware
from bench.record.store import Record
from bench.system.errors import BenchError
from bench.system.hashing import digest
from paper_tables.paper.suites import TimedAt
from paper_tables.paper.tables import Arm

FIRST_GUESS = {"tiny": 45.0}
"""Seconds of a run before any is recorded, on two CPU cores."""


@dataclass(frozen=True)
class Planned:
    """A run of the plan.

    Attributes:
        arm: what kind of run.
        seed: training seed.
        alone: it has to have the machine to itself, since its wall-clock goes into a table.
        recorded: there is a record.
        again: it is made again for its wall-clock: what is recorded shared the machine, or is of other hardware.
        threads: CPU threads it has to take to be comparable in time to what is recorded; None where that is open.
    """

    arm: Arm
    seed: int
    alone: bool = False
    recorded: bool = False
    again: bool = False
    threads: int | None = None

    @property
    def to_do(self) -> bool:
        """Whether it has to be run."""
        return self.again or not self.recorded


@dataclass(frozen=True)
class Plan:
    """The runs of a suite.

    Attributes:
        preset: their scale.
        runs: all of them; those that need the machine to themselves come first, then seed by seed, so that whatever
            is done by an interruption is of use.
        impossible: arms that cannot be run, and why.
        seconds: estimated duration of each run to do; None where nothing is known.
        guessed: the estimate rests on no recorded run of the preset.
        elsewhere: so many recorded runs lack a wall-clock beside that of most, which this machine cannot give them.
    """

    preset: str
    runs: tuple[Planned, ...]
    impossible: Mapping[Arm, str]
    seconds: Mapping[Planned, float | None]
    guessed: bool = False
    elsewhere: int = 0

    @property
    def to_do(self) -> tuple[Planned, ...]:
        """The runs left."""
        return tuple(run for run in self.runs if run.to_do)

    def estimate(self, jobs: int) -> float | None:
        """Seconds that the runs left take with so many at a time; None where that is not known."""
        found = [(run.alone, self.seconds[run]) for run in self.to_do]
        known = [(alone, seconds) for alone, seconds in found if seconds is not None]
        if len(known) < len(found):
            return None
        return sum(seconds if alone else seconds / jobs for alone, seconds in known)


def make_plan(
    arms: Iterable[Arm],
    timed: Mapping[Arm, TimedAt],
    records: Iterable[Record],
    *,
    preset: str,
    seeds: Sequence[int],
    jobs: int = 1,
    only: Sequence[str] = (),
    settings: Sequence[str] = (),
    times: bool = True,
    here: tuple[str, str] | None = None,
) -> Plan:
    """Plan the runs of some arms.

    Args:
        arms: the kinds of run.
        timed: those whose wall-clock is shown, and at which seeds it is needed.
        records: what is recorded.
        preset: the scale.
        seeds: training seeds.
        jobs: how many run at a time. With one, no run has to be kept apart to have the machine to itself.
        only: take these methods' runs only; none = all.
        settings: more `--set KEY=VALUE` for all.
        times: see to it that timed arms have runs with the machine to themselves, all on the same hardware.
        here: device and processor of this machine; None = those of most recorded runs.

    Raises:
        BenchError: a setting that no configuration takes, or a method that no arm has.
    """
    arms = tuple(dict.fromkeys(arms))
    unknown = set(only) - {arm.method for arm in arms}
    if unknown:
        there = ", ".join(sorted({arm.method for arm in arms}))
        raise BenchError(f"--only {', '.join(sorted(unknown))}: the suite has no such method; it has {there}")
    recorded = _by_configuration(records)
    usual = usual_hardware(record for record in recorded.values() if record["config"]["preset"] == preset)
    # on another machine than most were timed on, no time that is taken again would count
    of_use = here is None or usual is None or usual[:2] == here
    elsewhere = 0
    impossible: dict[Arm, str] = {}
    planned: dict[str, Planned] = {}
    for seed in seeds:
        for arm in arms:
            if only and arm.method not in only:
                continue
            try:
                arm.config(preset)
            except BenchError as error:
                impossible[arm] = str(error).splitlines()[0]
                continue
            whole = replace(arm, options=(*arm.options, *settings))
            key = _key(whole.config(preset, seed).canonical())
            found = recorded.get(key)
            planned.setdefault(key, Planned(whole, seed, recorded=found is not None))
            if times and arm in timed:
                # at every seed, each run counts for itself; else any one of the arm's will do
                mine = (seed,) if timed[arm] == "every seed" else seeds
                if timed[arm] == "first seed" and seed != seeds[0]:
                    continue
                candidates = (recorded.get(_key(whole.config(preset, s).canonical())) for s in mine)
                measured = any(had_machine_to_itself(r) and hardware(r) == usual for r in candidates if r)
                again = found is not None and not measured
                elsewhere += again and not of_use
                planned[key] = replace(
                    planned[key],
                    alone=not measured and jobs > 1,
                    again=again and of_use,
                    threads=threads_of(usual) if usual else None,
                )
    runs = tuple(sorted(planned.values(), key=lambda run: not run.alone))
    seconds = _durations(runs, preset, recorded.values())
    guessed = not any(record["config"]["preset"] == preset for record in recorded.values())
    return Plan(preset, runs, impossible, seconds, guessed, elsewhere)


def _by_configuration(records: Iterable[Record]) -> dict[str, Record]:
    return {
        _key(record["config"]): record
        for record in records
        if record["comparison_fields"].get("version") == __version__
    }


def _key(config: Mapping[str, Any]) -> str:
    # a record has the device that `auto` turned out to be
    return digest({name: value for name, value in config.items() if name != "device"})


def _durations(runs: Sequence[Planned], preset: str, records: Iterable[Record]) -> dict[Planned, float | None]:
    """What runs of the same kind took, else those of the same task, else of the preset."""
    taken: dict[tuple[str, ...], list[float]] = {}
    for record in records:
        config = record["config"]
        if config["preset"] == preset:
            kind = (config["task"], config["sgo"]["source"], config["method"]["name"])
            for depth in range(len(kind) + 1):
                taken.setdefault(kind[:depth], []).append(record["seconds"])
    durations = {}
    for run in runs:
        kind = (run.arm.task, run.arm.sgo, run.arm.method)
        known = next((taken[kind[:depth]] for depth in range(len(kind), -1, -1) if kind[:depth] in taken), None)
        durations[run] = fmean(known) if known else FIRST_GUESS.get(preset)
    return durations
