"""The paper's tables asked of another task and model pair: the same rows, with the columns that its runs have."""

from __future__ import annotations

from dataclasses import dataclass, replace

from paper_tables.paper.run_spec import RunSpec
from paper_tables.paper.tables import Column, Table


@dataclass(frozen=True)
class OwnTask:
    """A task and a model pair in place of the paper's, as recorded runs have them.

    Attributes:
        name: of the task.
        file: its task file; None for one that ships.
        models: name of the pair.
        teacher, student: of a pair that was given directly.
        sets: names of its evaluation sets.
        label: of the metric that stands in tables.
        options: `--set KEY=VALUE` that say where its data is.
    """

    name: str
    file: str | None
    models: str
    teacher: str | None
    student: str | None
    sets: tuple[str, ...]
    label: str
    options: tuple[str, ...]

    def table(self, table: Table) -> Table:
        """A table of the paper with this task's runs. Where columns stood for settings, they still do."""
        settings = len({column.task for column in table.columns}) == 1
        groups = list(dict.fromkeys(column.group for column in table.columns)) if settings else [self.name]
        if len(groups) == 1:
            columns = [Column(name, f"{name} ({self.label})", groups[0], self.name, (name,)) for name in self.sets]
        else:
            columns = [replace(one, task=self.name, sets=self.sets[:1]) for one in table.columns]
        rows = []
        for row in table.rows:
            specs = row.specs if settings else {groups[0]: next(iter(row.specs.values()))}
            rows.append(replace(row, specs={group: self._spec(spec) for group, spec in specs.items()}))
        return replace(
            table,
            caption=f"{table.caption.removesuffix(', on Dolly')}, asked of {self.name}",
            rows=tuple(rows),
            columns=tuple(columns),
            published_for={},
        )

    def _spec(self, spec: RunSpec) -> RunSpec:
        pair = None if self.teacher is None or self.student is None else (self.teacher, self.student)
        options = (*spec.options, *self.options)
        return replace(spec, task=self.name, task_file=self.file, models=self.models, pair=pair, options=options)
