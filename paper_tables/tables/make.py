"""Tables from a results folder into files, and what is said about them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.record.store import Store
from bench.system.errors import BenchError
from bench.system.files import write_bytes
from paper_tables.numbers.cells import Measurement, measure
from paper_tables.numbers.judge_scores import judgements
from paper_tables.numbers.runs import Library, Missing, Selection
from paper_tables.paper.ablations import SWEEPS, any_table
from paper_tables.paper.tables import NAMES, Table
from paper_tables.tables.published_view import as_published, side_by_side
from paper_tables.tables.render import FORMATS, render
from paper_tables.tables.rendered import Sheet, as_measured


@dataclass(frozen=True)
class Made:
    """A table that was written: its files, and what to tell about it."""

    table: Table
    paths: tuple[Path, ...]
    lines: tuple[str, ...]


def parse_seeds(text: str | None) -> tuple[int, ...]:
    """Training seeds in a comma-separated list.

    Raises:
        BenchError: something in it is no whole number.
    """
    try:
        return tuple(sorted({int(part) for part in (text or "").split(",") if part.strip()}))
    except ValueError as error:
        raise BenchError(f"--seeds {text}: expected whole numbers such as 10,20,30") from error


def make_tables(
    store: Store,
    names: Sequence[str],
    *,
    forms: Sequence[str],
    preset: str,
    seeds: Collection[int] = (),
    keys: Collection[str] = (),
    resamples: int = 10_000,
    warn: Callable[[str], None] = lambda _: None,
) -> Iterator[Made]:
    """Write tables and sweeps below `OUT/tables`, one after the other; without names all tables of the paper.

    A sweep has one face only: nothing of the appendix is known as published.

    Raises:
        BenchError: an unknown table or preset, nothing recorded, runs that cannot be compared, or a folder that
            cannot be written.
    """
    wanted = list(dict.fromkeys(any_table(name, preset).name for name in names or NAMES))
    library = Library(store, preset, seeds, keys, warn)
    for name in wanted:
        one = any_table(name, preset)
        selection = library.select(one)
        measurement = measure(one, selection, resamples)
        judged = judgements(one, selection, store)
        sheets = [as_measured(one, preset, selection, measurement, resamples, judged)]
        if name not in SWEEPS:
            sheets += [as_published(any_table(name, "paper")), side_by_side(one, preset, selection, measurement)]
        paths = tuple(_write(store.root / "tables", sheets, forms))
        yield Made(one, paths, tuple(_lines(one, selection, measurement, paths)))


def _write(folder: Path, sheets: list[Sheet], forms: Sequence[str]) -> Iterator[Path]:
    for sheet in sheets:
        for form in forms:
            path = folder / f"{sheet.name}.{FORMATS[form]}"
            write_bytes(path, render(sheet, form))
            yield path


def _lines(one: Table, selection: Selection, measurement: Measurement, paths: tuple[Path, ...]) -> Iterator[str]:
    cells = len(one.rows) * len(one.columns)
    runs = sum(len(found) for found in selection.runs.values())
    yield f"{one.file}: {len(measurement.cells)} of {cells} cells from {runs} runs"
    for stem in dict.fromkeys(path.with_suffix("") for path in paths):
        yield f"  {stem} ({', '.join(path.suffix for path in paths if path.with_suffix('') == stem)})"
    lost = sum(len(missing.seeds) for missing in selection.missing)
    if lost:
        yield f"  missing: {lost} {'run' if lost == 1 else 'runs'}"
    told = (line for missing in selection.missing for line in _what_to_do(missing))
    yield from (f"    {line}" for line in dict.fromkeys(told))
    for row, reason in measurement.untimed.items():
        yield f"  no time for {row}: {reason}"


def _what_to_do(missing: Missing) -> Iterator[str]:
    if missing.reason:
        yield f"{missing.arm.method} x {missing.arm.sgo} cannot be run: {missing.reason}"
    yield from missing.commands
