"""The paper's tables asked of another task and model pair: the same rows, with the columns that its runs have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from bench.config.presets import recorded_name
from bench.data import find_task
from bench.metrics.registry import find_metric
from paper_tables.paper.ablations import CAPACITIES, OWN_CAPACITY
from paper_tables.paper.methods import OUTPUT_SOURCES
from paper_tables.paper.published_values import published
from paper_tables.paper.run_spec import RunSpec, default_models
from paper_tables.paper.tables import TABLE_NAMES, Column, Row, Table

_TEXT_WEIGHT = "plain_text.weight="
_CAPACITY = "sgo.capacity="


@dataclass(frozen=True)
class OwnTask:
    """A task and a model pair in place of those that the paper's tables have under a preset.

    Attributes:
        preset: its name or file.
        name: of the task.
        file: its task file; None for one that ships.
        models: name of the pair.
        teacher, student: of a pair that was given directly.
        sets: names of its evaluation sets.
        label: of the metric that stands in tables.
        options: `--set KEY=VALUE` that say where its data is.
    """

    preset: str
    name: str
    file: str | None
    models: str
    teacher: str | None
    student: str | None
    sets: tuple[str, ...]
    label: str
    options: tuple[str, ...]

    def table(self, table: Table) -> Table:
        """A table of the paper with this task's runs. Where columns stood for settings, they still do.

        A table that is of this task anyway keeps its columns, with the values that were published for the pair.
        """
        if {column.task for column in table.columns} == {self.name}:
            pair = recorded_name(self.models)
            known = table.name in TABLE_NAMES and any(value.models == pair for value in published(table.name))
            return replace(
                table,
                caption=f"{table.caption}, {pair}",
                rows=tuple(self._rows(table, dict.fromkeys(column.group for column in table.columns))),
                published_for={self.name: pair} if known else {},
            )
        settings = len({column.task for column in table.columns}) == 1
        groups = list(dict.fromkeys(column.group for column in table.columns)) if settings else [self.name]
        if len(groups) == 1:
            columns = [Column(name, f"{name} ({self.label})", groups[0], self.name, (name,)) for name in self.sets]
        else:
            columns = [replace(one, task=self.name, sets=self.sets[:1]) for one in table.columns]
        return replace(
            table,
            caption=f"{table.caption.removesuffix(', on Dolly')}, asked of {self.name}",
            rows=tuple(self._rows(table, groups)),
            columns=tuple(columns),
            published_for={},
        )

    def _rows(self, table: Table, groups: Iterable[str]) -> Iterable[Row]:
        """A table's rows with the specs of these groups of columns; of one task's only group, with each row's first."""
        for row in table.rows:
            specs = {group: row.specs.get(group, next(iter(row.specs.values()))) for group in groups}
            own = replace(row, specs={group: self.spec(one) for group, one in specs.items()})
            if table.name == "buffer-capacity":  # rows are shares of the method's own capacity, which a task may set
                capacity = next(iter(own.specs.values())).config(self.preset).sgo.capacity
                own = replace(own, label=f"{capacity} responses", value=capacity)
            yield own

    def spec(self, spec: RunSpec) -> RunSpec:
        """The run of this task and pair that a run of the paper's stands for."""
        pair = None if self.teacher is None or self.student is None else (self.teacher, self.student)
        own = tuple(
            self._scaled(spec, option) if option.startswith(_CAPACITY) else option
            for option in spec.options
            if not option.startswith(_TEXT_WEIGHT)
        )
        options = (*own, *self.options)
        found = replace(spec, task=self.name, task_file=self.file, models=self.models, pair=pair, options=options)
        if len(own) == len(spec.options):
            return found
        # the paper's run has the weight of plain text that DistiLLM has on Dolly: this one, that of DistiLLM here
        distillm = replace(found, method="distillm", output_source=OUTPUT_SOURCES["distillm"], options=self.options)
        weight = distillm.config(self.preset).plain_text.weight
        if found.config(self.preset).plain_text.weight == weight:
            return found
        return replace(found, options=(*own, f"{_TEXT_WEIGHT}{weight:g}", *self.options))

    def _scaled(self, spec: RunSpec, option: str) -> str:
        """A capacity of the ablation, scaled from the paper's with this task's own in place of Dolly's."""
        given = int(option.removeprefix(_CAPACITY))
        theirs = replace(spec, options=()).config(self.preset).sgo.capacity
        own = self.spec(replace(spec, options=())).config(self.preset).sgo.capacity
        in_paper = next(one for one in CAPACITIES if one * theirs // OWN_CAPACITY == given)
        return f"{_CAPACITY}{in_paper * own // OWN_CAPACITY}"


def own_task(task: str, preset: str, models: str | None = None) -> OwnTask:
    """A task, by its name or file, with a model pair, by default the preset's; no record is asked.

    Raises:
        BenchError: no such task, or the preset has no pair for it.
    """
    known = find_task(task)
    return OwnTask(
        preset=preset,
        name=known.name,
        file=None if task == known.name else task,
        models=models or default_models(preset, known.name),
        teacher=None,
        student=None,
        sets=("test", *known.evaluation_sets),
        label=find_metric(known.metrics[0]).label,
        options=(),
    )
