"""From recorded runs to the views of a table, and to their files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bench.system.files import write_bytes
from paper_tables.numbers.cells import TableStatistics, table_statistics
from paper_tables.numbers.judge_scores import judge_scores
from paper_tables.numbers.runs import RunIndex, Selection
from paper_tables.paper.ablations import ABLATIONS, find_table
from paper_tables.paper.tables import TABLE_NAMES, Table
from paper_tables.tables.captions import spent_notes
from paper_tables.tables.measured_view import measured_view
from paper_tables.tables.published_view import published_view
from paper_tables.tables.render import TABLE_FORMATS, render
from paper_tables.tables.rendered import RenderedTable
from paper_tables.tables.side_by_side_view import side_by_side_view

COMMANDS = 100
"""That make missing runs, as many as are printed for a table."""


@dataclass(frozen=True)
class FilledTable:
    """A table with the runs it takes, their statistics, and the views made of them."""

    table: Table
    selection: Selection
    statistics: TableStatistics
    views: tuple[RenderedTable, ...]


def fill_table(index: RunIndex, name: str) -> FilledTable:
    """A table of the paper, or an ablation, with the runs of an index.

    An ablation has one view only, and a task that the paper has not: nothing of them is known as published.

    Raises:
        BenchError: an unknown table, or runs that cannot be compared.
    """
    table, preset = index.table(name), index.preset_name
    selection = index.select(table)
    found = table_statistics(table, selection)
    judged = judge_scores(table, selection, index.store)
    views = [measured_view(table, preset, selection, found, judged, spent_notes(index, table, selection))]
    if table.name not in ABLATIONS and table.published_for:
        views += [published_view(find_table(name, "paper")), side_by_side_view(table, preset, selection, found)]
    return FilledTable(table, selection, found, tuple(views))


def write_tables(index: RunIndex, names: Sequence[str], formats: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Write tables and ablations below `OUT/tables`, one after the other, and give the lines to tell about each.

    Without names it is all tables of the paper.

    Those of chosen runs have the choice in their names, and leave the tables of all runs as they are. A table of which
    the choice has no run is not written.

    Raises:
        BenchError: an unknown table, runs that cannot be compared, or a folder that cannot be written.
    """
    for name in dict.fromkeys(index.table(name).name for name in names or TABLE_NAMES):
        filled = fill_table(index, name)
        empty = index.chosen and not filled.selection.records
        paths = () if empty else tuple(_write(index, filled.views, formats))
        yield tuple(_lines(filled, paths))


def rendered(index: RunIndex, views: Sequence[RenderedTable], formats: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """The files of some views: their names, in which the choice of runs stands, and what is in them."""
    preset = f"-{index.preset_name}-"  # what is published is the same whatever runs were chosen
    for view in views:
        name = view.name.replace(preset, f"-{index.preset_name}{index.chosen}-")
        for form in formats:
            yield f"{name}.{TABLE_FORMATS[form]}", render(view, form)


def _write(index: RunIndex, views: Sequence[RenderedTable], formats: Sequence[str]) -> Iterator[Path]:
    for name, content in rendered(index, views, formats):
        path = index.store.root / "tables" / name
        write_bytes(path, content)
        yield path


def _lines(filled: FilledTable, paths: tuple[Path, ...]) -> Iterator[str]:
    table, selection, found = filled.table, filled.selection, filled.statistics
    cells = len(table.rows) * len(table.columns)
    yield f"{table.file}: {len(found.cells)} of {cells} cells from {len(selection.records)} runs"
    if not paths:
        yield "  not written: none of its runs was chosen"
    for stem in dict.fromkeys(path.with_suffix("") for path in paths):
        yield f"  {stem} ({', '.join(path.suffix for path in paths if path.with_suffix('') == stem)})"
    lost = sum(len(missing.seeds) for missing in selection.missing)
    if lost:
        yield f"  missing: {lost} {'run' if lost == 1 else 'runs'}"
    commands = dict.fromkeys(islice((command for one in selection.missing for command in one.commands), COMMANDS))
    for command in commands:
        yield f"    {command}"
    if lost > COMMANDS:
        yield f"    and {lost - COMMANDS} more; bench suite makes all runs of a table"
    for row, reason in found.untimed.items():
        yield f"  no time for {row}: {reason}"
