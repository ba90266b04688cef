"""Which recorded runs a table takes: those of its arms under one preset, if they can be compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench.analysis.compare import differences
from bench.config.sections import Config
from bench.record.example_scores import example_scores
from bench.record.store import Record, Store
from bench.system.errors import BenchError
from paper_tables.paper.tables import Arm, Table


@dataclass(frozen=True)
class Run:
    """A recorded run with what it scored on each example: set -> example id -> score or statistics."""

    record: Record
    examples: Mapping[str, Mapping[str, object]]

    @property
    def seed(self) -> int:
        """Its training seed."""
        seed: int = self.record["config"]["seed"]
        return seed

    def scored_set(self, names: tuple[str, ...]) -> str | None:
        """The first of some evaluation sets that the run was scored on."""
        return next((name for name in names if name in self.record["scores"]), None)


@dataclass(frozen=True)
class Missing:
    """Runs a table lacks: an arm, its missing training seeds, and what makes them or why nothing can."""

    arm: Arm
    seeds: tuple[int, ...]
    commands: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True)
class Selection:
    """The runs of each arm, by training seed, and what is missing."""

    runs: Mapping[Arm, tuple[Run, ...]]
    missing: tuple[Missing, ...]

    @property
    def records(self) -> list[Record]:
        """The records of all runs."""
        return [run.record for runs in self.runs.values() for run in runs]


class Library:
    """The records of a results folder under one preset, read once for all tables.

    Args:
        store: the results folder.
        preset: records of other presets are not looked at.
        seeds: the training seeds to take; none = all that are recorded.
        keys: beginnings of comparison keys, to choose among runs that cannot be compared.
        warn: told of each run that is left out because its predictions cannot be read.

    Raises:
        BenchError: nothing is recorded under the preset, or no run has a chosen key.
    """

    def __init__(
        self,
        store: Store,
        preset: str,
        seeds: Collection[int] = (),
        keys: Collection[str] = (),
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.store, self.preset, self.seeds, self.keys, self.warn = store, preset, tuple(seeds), tuple(keys), warn
        everything = list(store.all())
        self.records = [record for record in everything if record["config"]["preset"] == preset]
        self._runs: dict[str, Run | None] = {}
        if not self.records:
            others = sorted({record["config"]["preset"] for record in everything})
            instead = f" (recorded: --preset {' or '.join(others)})" if others else ""
            raise BenchError(
                f"no records of preset {preset} in {store.runs}{instead}; make one with: "
                f"bench run --method srkl --task dolly --preset {preset}"
            )
        there = sorted({record["comparison_key"] for record in self.records})
        for key in self.keys:
            if not any(one.startswith(key) for one in there):
                known = ", ".join(one[:10] for one in there)
                raise BenchError(f"--key {key}: no run of preset {preset} has such a comparison key; known: {known}")

    def select(self, table: Table) -> Selection:
        """The runs a table takes.

        Raises:
            BenchError: runs that would stand in one column cannot be compared; it says in what they differ.
        """
        found: dict[Arm, list[Record]] = {}
        impossible: dict[Arm, str] = {}
        for arm in table.arms:
            try:
                found[arm] = self._records_of(arm)
            except BenchError as error:
                found[arm], impossible[arm] = [], str(error).splitlines()[0]
        for task, models in dict.fromkeys((arm.task, arm.models) for arm in table.arms):
            arms = [arm for arm in table.arms if (arm.task, arm.models) == (task, models)]
            kept = self._comparable([record for arm in arms for record in found[arm]], task)
            for arm in arms:
                found[arm] = [record for record in found[arm] if record["comparison_key"] in kept]
        runs = {arm: self._read(records) for arm, records in found.items()}
        return Selection(runs, tuple(self._missing(runs, impossible)))

    def _records_of(self, arm: Arm) -> list[Record]:
        wanted = arm.config(self.preset).canonical()
        return [
            record
            for record in self.records
            if (record["config"]["task"], record["config"]["models"]["name"]) == (arm.task, arm.models)
            and _of_the_arm(record["config"], record) == _of_the_arm(wanted, record)
            and (not self.seeds or record["config"]["seed"] in self.seeds)
        ]

    def _comparable(self, records: list[Record], task: str) -> set[str]:
        """The comparison key that the records share, or that was chosen."""
        by_key: dict[str, list[Record]] = {}
        for record in records:
            by_key.setdefault(record["comparison_key"], []).append(record)
        chosen = {key for key in by_key if key.startswith(self.keys)} if len(by_key) > 1 else set(by_key)
        if len(chosen) == 1 or not by_key:
            return chosen
        (first, ones), *others = sorted(by_key.items(), key=lambda item: (-len(item[1]), item[0]))
        told = [f"{_names(ones)} (comparison key {first[:10]})"]
        for key, records_of_key in others:
            found = differences(ones[0]["comparison_fields"], records_of_key[0]["comparison_fields"])
            told.append(f"{_names(records_of_key)} (comparison key {key[:10]}) differ in")
            told += [f"  {line}" for line in found]
        raise BenchError(
            f"the runs on {task} cannot stand in one table:\n  "
            + "\n  ".join(told)
            + f"\nChoose with --key, for example --key {first[:10]}, or move the others out of {self.store.runs}."
        )

    def _read(self, records: list[Record]) -> tuple[Run, ...]:
        made = (self._run(record) for record in records)
        return tuple(sorted((run for run in made if run is not None), key=lambda run: run.seed))

    def _run(self, record: Record) -> Run | None:
        run_id = record["run_id"]
        if run_id not in self._runs:
            try:
                self._runs[run_id] = Run(record, _examples(self.store, record))
            except BenchError as error:
                self.warn(f"skipped {run_id}: {error}")
                self._runs[run_id] = None
        return self._runs[run_id]

    @cached_property
    def _seeds(self) -> tuple[int, ...]:
        return self.seeds or tuple(sorted({record["config"]["seed"] for record in self.records}))

    def _missing(self, runs: Mapping[Arm, tuple[Run, ...]], impossible: Mapping[Arm, str]) -> list[Missing]:
        there = {run.seed for found in runs.values() for run in found}
        wanted = self.seeds or tuple(sorted(there)) or self._seeds
        missing = []
        for arm, found in runs.items():
            seeds = tuple(seed for seed in wanted if seed not in {run.seed for run in found})
            if seeds and arm in impossible:
                missing.append(Missing(arm, seeds, (), impossible[arm]))
            elif seeds:
                beside = [
                    run for other in runs if (other.task, other.models) == (arm.task, arm.models) for run in runs[other]
                ]
                settings = _settings(arm.config(self.preset), beside[0].record) if beside else ()
                missing.append(Missing(arm, seeds, tuple(arm.command(self.preset, seed, settings) for seed in seeds)))
        return missing


def _of_the_arm(config: Mapping[str, Any], record: Record) -> dict[str, Any]:
    """What in a configuration need not be the same throughout a table, the seed left out: method, source, start."""

    shared = record["comparison_fields"]["config"]
    own: dict[str, Any] = {}
    for key, value in config.items():
        if key not in shared:
            own[key] = value
        elif isinstance(value, Mapping) and isinstance(shared[key], Mapping):
            own |= {f"{key}.{name}": inner for name, inner in value.items() if name not in shared[key]}
    del own["seed"]
    return own


def _examples(store: Store, record: Record) -> Mapping[str, Mapping[str, object]]:
    """Scores by set and example, as many as the record says.

    Raises:
        BenchError: the predictions cannot be read, or some are not there.
    """
    try:
        found = example_scores(store.predictions(record))
    except (KeyError, TypeError) as error:
        raise BenchError("its predictions hold no scores; make the run again with --fresh") from error
    short = [name for name, scores in record["scores"].items() if len(found.get(name, ())) != scores["examples"]]
    if short:
        raise BenchError(f"its predictions for {', '.join(short)} are not complete; make the run again with --fresh")
    return found


def _settings(config: Config, record: Record) -> tuple[str, ...]:
    """What must be `--set` for a configuration to be comparable to a record."""

    def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str) -> Iterator[str]:
        for key, value in theirs.items():
            both = isinstance(value, Mapping) and isinstance(ours.get(key), Mapping)
            if both and not key.endswith("_config"):  # an architecture is set whole
                yield from differing(ours[key], value, f"{path}{key}.")
            elif key in ours and ours[key] != value and path + key != "device":  # the record has the device it ran on
                yield f"{path}{key}={json.dumps(value, ensure_ascii=False)}"

    return tuple(differing(config.canonical(), record["comparison_fields"]["config"], ""))


def _names(records: list[Record]) -> str:
    names = [record["run_id"] for record in records]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
