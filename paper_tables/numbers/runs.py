"""Which recorded runs a table takes: those of its run specs under one preset, if they can be compared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from bench.config.comparable import differences, differences_in_words, own_settings, shared_settings
from bench.config.presets import is_path, read_preset, recorded_name, shipped, usual_pair
from bench.config.sections import Config
from bench.data import find_task
from bench.record.example_scores import ExampleArray
from bench.record.record import RunRecord, Scores
from bench.record.store import Store
from bench.system.errors import BenchError
from bench.system.hashing import digest
from paper_tables.paper.ablations import find_table
from paper_tables.paper.own_task import OwnTask
from paper_tables.paper.run_spec import RunSpec
from paper_tables.paper.tables import Row, Table, metric_label

ExampleScores = Mapping[str, ExampleArray]
"""By evaluation set."""
MANY_SEEDS = 20
LONGEST_NAME = 80
"""Characters of a file's name that say which runs it is made of."""


@dataclass(frozen=True)
class Run:
    """A recorded run with what it scored on each example, by the metric that stands in tables."""

    record: RunRecord
    examples: ExampleScores

    @property
    def seed(self) -> int:
        """Its training seed."""
        return self.record.seed

    def scored_set(self, names: tuple[str, ...]) -> str | None:
        """The first of some names of an evaluation set under which the run has scores; None if it has none."""
        return next((name for name in names if name in self.record.scores), None)

    def score(self, names: tuple[str, ...]) -> float:
        """Its score on that set: the mean over decoding seeds."""
        return self.score_in(self.record.scores, names)

    def score_in(self, scores: Scores, names: tuple[str, ...]) -> float:
        """The same of its teacher's or init student's scores.

        Raises:
            KeyError: it was not scored on the set.
        """
        return scores[self.scored_set(names) or names[0]].primary.mean


@dataclass(frozen=True)
class MissingRuns:
    """Runs that a table lacks: of one run spec, their training seeds, and what else the commands need to make them."""

    spec: RunSpec
    seeds: tuple[int, ...]
    preset: str
    settings: tuple[str, ...]

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands that make them."""
        return tuple(self.spec.command(self.preset, seed, self.settings) for seed in self.seeds)


@dataclass(frozen=True)
class Selection:
    """The runs of each run spec, by training seed, what is missing, and models that were scored as they are."""

    runs: Mapping[RunSpec, tuple[Run, ...]]
    missing: tuple[MissingRuns, ...]
    evaluated: tuple[Run, ...] = ()

    @property
    def records(self) -> list[RunRecord]:
        """The records of all runs."""
        return [run.record for runs in self.runs.values() for run in runs]

    @property
    def seeds(self) -> list[int]:
        """The training seeds of all runs, each once, ascending."""
        return sorted({record.seed for record in self.records})

    @property
    def seed_list(self) -> str:
        """The same in words; of a sweep over many, where they begin and end."""
        seeds = self.seeds
        first = ", ".join(map(str, seeds if len(seeds) <= MANY_SEEDS else seeds[:3]))
        return first if len(seeds) <= MANY_SEEDS else f"{first}, …, {seeds[-1]} ({len(seeds)} in all)"

    def of_row(self, row: Row) -> list[Run]:
        """The runs in any column of a row."""
        return [run for spec in row.specs.values() for run in self.runs[spec]]


class RunIndex:
    """The runs of a results folder under one preset, read once for all tables.

    Args:
        store: the results folder.
        preset: a shipped preset's name, or a user's file; records of other presets are not looked at.
        seeds: the training seeds to take; none = all that are recorded.
        keys: beginnings of comparison keys, to choose among runs that cannot be compared.
        warn: told of each run that is left out because its predictions cannot be read.
        task: a task's name or file to ask the paper's tables of, in place of its own tasks; no other run is looked at.
        models: the pair of its runs, where there are several.

    Raises:
        BenchError: an unknown preset, nothing recorded under it, or no run has a chosen key.
    """

    def __init__(
        self,
        store: Store,
        preset: str,
        seeds: Collection[int] = (),
        keys: Collection[str] = (),
        warn: Callable[[str], None] = lambda _: None,
        task: str | None = None,
        models: str | None = None,
    ) -> None:
        self.store, self.preset, self.seeds, self.keys, self.warn = store, preset, tuple(seeds), tuple(keys), warn
        self.preset_name = read_preset(preset).name
        self.records: list[RunRecord] = []
        self.evaluated: list[RunRecord] = []
        presets = set()
        for record in store.all(curves=False):  # no number is made of them; `store.curve` has one
            presets.add(record.config.preset)
            if record.config.preset == self.preset_name and record.config.score_on == "test":  # else a trial of tuning
                if record.evaluated is not None:
                    self.evaluated.append(record)
                    continue
                self.records.append(record)
        self.own = None if task is None else self._own(task, models)
        self._groups = _by_own_settings(self.records)
        self._runs: dict[str, Run | None] = {}
        if not (self.records or self.evaluated):
            others = sorted(presets)
            instead = f" (recorded: --preset {' or '.join(others)})" if others else ""
            raise BenchError(
                f"no records of preset {self.preset_name} in {store.runs}{instead}; make one with: "
                f"bench run --method srkl --task dolly --preset {preset}"
            )
        there = sorted({record.comparison_key for record in self.records})
        for key in self.keys:
            if not any(one.startswith(key) for one in there):
                known = ", ".join(one[:10] for one in there)
                raise BenchError(
                    f"--key {key}: no run of preset {self.preset_name} has such a comparison key; known: {known}"
                )

    @property
    def chosen(self) -> str:
        """What a file's name says of the runs it is made of; "" where they are all of the preset."""
        words = [] if self.own is None else ["task", self.own.name, recorded_name(self.own.models)]
        words += [
            *(["seeds", *map(str, self.seeds)] if self.seeds else []),
            *(["key", *self.keys] if self.keys else []),
        ]
        name = "".join(f"-{word}" for word in words)
        return name if len(name) <= LONGEST_NAME else f"-chosen-{digest(words)[:10]}"

    @property
    def scope(self) -> str:
        """What its runs are of, in words: the preset, and a task of its own."""
        own = f", task {self.own.name}, models {recorded_name(self.own.models)}" if self.own else ""
        return f"{self.preset_name}{own}"

    def table(self, name: str) -> Table:
        """A table of the paper or an ablation, of the task that is asked.

        Raises:
            BenchError: no such table.
        """
        table = find_table(name, self.preset)
        return self.own.table(table) if self.own else table

    def metric_label(self, task: str) -> str:
        """The label of the metric that a task's tables show."""
        return self.own.label if self.own else metric_label(task)

    def _own(self, task: str, models: str | None) -> OwnTask:
        name = find_task(task).name
        found = [record for record in self.records if record.task == name]
        pairs = Counter(record.config.models.name for record in found)
        usual = usual_pair(self.preset, name)
        most = max(pairs, key=lambda one: (pairs[one], one == usual), default="")
        pair = most if models is None else recorded_name(models)
        self.records = [record for record in found if record.config.models.name == pair]
        if not self.records:
            instead = f" with models {pair} (recorded: {', '.join(pairs)})" if pairs else ""
            raise BenchError(f"no runs on {name}{instead} of preset {self.preset_name} in {self.store.runs}")
        record = self.records[0]
        config = record.config
        direct = pair not in shipped("pairs") and (models is None or not is_path(models))
        if direct and "scratch" in (config.models.teacher, config.models.student):
            raise BenchError(f"the runs on {name} have models {pair}, which came from a file: give it with --models")
        data = {"dir": config.data.dir, "hub": config.data.hub}
        options = [f"data.{key}={json.dumps(value)}" for key, value in data.items() if value]
        if config.data.dir is not None:
            options.append("data.hub=false")  # which some presets turn on
        if config.plain_text.file is not None:
            options.append(f"plain_text.file={json.dumps(config.plain_text.file)}")
        return OwnTask(
            preset=self.preset,
            name=name,
            file=None if task == name else task,
            models=pair if models is None or direct else models,
            teacher=config.models.teacher if direct else None,
            student=config.models.student if direct else None,
            sets=tuple(record.scores),
            label=record.metric.label,
            options=tuple(options),
        )

    def select(self, table: Table) -> Selection:
        """The runs a table takes.

        Raises:
            BenchError: runs that would stand in one column cannot be compared; it says in what they differ.
        """
        found = {spec: self._records_of(spec) for spec in table.specs}
        for task, models in dict.fromkeys((spec.task, spec.models) for spec in table.specs):
            specs = [spec for spec in table.specs if (spec.task, spec.models) == (task, models)]
            kept = self._comparable([record for spec in specs for record in found[spec]], task)
            for spec in specs:
                found[spec] = [record for record in found[spec] if record.comparison_key in kept]
        runs = {spec: self._read(records) for spec, records in found.items()}
        return Selection(runs, tuple(self._missing(runs)), tuple(self._evaluated_beside(table, runs)))

    def _evaluated_beside(self, table: Table, runs: Mapping[RunSpec, tuple[Run, ...]]) -> Iterable[Run]:
        """Models that were scored as they are, on the very examples and in the very way of the table's runs."""
        for task in dict.fromkeys(spec.task for spec in table.specs):
            beside = [run.record for spec, found in runs.items() if spec.task == task for run in found]
            for record in sorted(self.evaluated, key=lambda one: one.run_id):
                if record.task != task:
                    continue
                own = record.scored
                theirs = beside[0].scored if beside else own
                if told := ", ".join(differences_in_words(own, theirs)):
                    self.warn(f"left out {record.run_id}: scored otherwise than the runs of the table: {told}")
                elif (run := self._run(record)) is not None:
                    yield run

    def _records_of(self, spec: RunSpec) -> list[RunRecord]:
        wanted = own_settings(spec.config(self.preset).identity())
        found = [
            record
            for own, records in self._groups
            if own == wanted
            for record in records
            if (record.task, record.config.models.name) == (spec.task, recorded_name(spec.models))
            and (not self.seeds or record.seed in self.seeds)
        ]
        return sorted(found, key=lambda record: record.run_id)

    def _comparable(self, records: list[RunRecord], task: str) -> set[str]:
        """The comparison key that the records share, or that was chosen."""
        by_key: dict[str, list[RunRecord]] = {}
        for record in records:
            by_key.setdefault(record.comparison_key, []).append(record)
        chosen = {key for key in by_key if key.startswith(self.keys)} if len(by_key) > 1 else set(by_key)
        if len(chosen) == 1 or not by_key:
            return chosen
        (first, ones), *others = sorted(by_key.items(), key=lambda item: (-len(item[1]), item[0]))
        told = [f"{_names(ones)} (comparison key {first[:10]})"]
        for key, records_of_key in others:
            told.append(f"{_names(records_of_key)} (comparison key {key[:10]}) differ in")
            found = differences_in_words(ones[0].comparison_fields, records_of_key[0].comparison_fields)
            told += [f"  {difference}" for difference in found]
        raise BenchError(
            f"the runs on {task} cannot stand in one table:\n  "
            + "\n  ".join(told)
            + f"\nChoose with --key, for example --key {first[:10]}, or move the others out of {self.store.runs}."
        )

    def _read(self, records: list[RunRecord]) -> tuple[Run, ...]:
        read = (self._run(record) for record in records)
        return tuple(sorted((run for run in read if run is not None), key=lambda run: run.seed))

    def _run(self, record: RunRecord) -> Run | None:
        if record.run_id not in self._runs:
            try:
                self._runs[record.run_id] = Run(record, _examples(self.store, record))
            except BenchError as error:
                self.warn(f"skipped {record.run_id}: {error}")
                self._runs[record.run_id] = None
        return self._runs[record.run_id]

    def _missing(self, runs: Mapping[RunSpec, tuple[Run, ...]]) -> Iterable[MissingRuns]:
        in_table = {run.seed for found in runs.values() for run in found}
        wanted = self.seeds or sorted(in_table or {record.seed for record in self.records})
        for spec, found in runs.items():
            there = {run.seed for run in found}
            seeds = tuple(seed for seed in wanted if seed not in there)
            if not seeds:
                continue
            beside = [
                run for other in runs if (other.task, other.models) == (spec.task, spec.models) for run in runs[other]
            ]
            settings = _settings(spec.config(self.preset), beside[0].record.config) if beside else ()
            yield MissingRuns(spec, seeds, self.preset, settings)


def _by_own_settings(records: Iterable[RunRecord]) -> list[tuple[dict[str, object], list[RunRecord]]]:
    """Records by their own fields: thousands share those of few configurations."""
    groups: dict[str, tuple[dict[str, object], list[RunRecord]]] = {}
    for record in records:
        key = json.dumps(record.config.identity() | {"seed": None}, sort_keys=True)
        if key not in groups:
            groups[key] = own_settings(record.config.identity()), []
        groups[key][1].append(record)
    return list(groups.values())


def _settings(config: Config, beside: Config) -> tuple[str, ...]:
    """What must be `--set` for the runs of a configuration to be comparable to those of another."""
    found = differences(shared_settings(config.identity()), shared_settings(beside.identity()))
    # a record has the device that it ran on
    return tuple(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, _, value in found if key != "device")


def _examples(store: Store, record: RunRecord) -> ExampleScores:
    """Scores by set and example, as many as the record says.

    Raises:
        BenchError: the predictions cannot be read, or some are not there.
    """
    found = store.example_arrays(record)
    there = {name: len(one.ids) for name, one in found.items()}
    short = [name for name, scores in record.scores.items() if there.get(name, 0) != scores.examples]
    if short:
        raise BenchError(f"its predictions for {', '.join(short)} are not complete; make the run again with --fresh")
    return found


def _names(records: list[RunRecord]) -> str:
    names = [record.run_id for record in records]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
