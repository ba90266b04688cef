"""The report's first screen: what holds, what does not, what is open, at which scale, and what to use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.record.record import RunRecord
from paper_tables.claims.beside import ONE_RATE, columns_of
from paper_tables.claims.verdicts import VERDICT_WORDS, ClaimVerdict
from paper_tables.numbers.regime import PRESET, regimes
from paper_tables.numbers.runs import RunIndex
from paper_tables.paper.tables import Column
from paper_tables.tables.captions import setting_notes
from paper_tables.tables.make import FilledTable

SHOWN_COLUMNS = {"main": 1, "3": None}
"""Tables whose best methods are named, with how many of their columns; None for all."""


@dataclass(frozen=True)
class Glance:
    """What the first screen says.

    Attributes:
        scale: models and hardware that everything speaks of.
        verdicts: by heading; headings without a claim are left out.
        columns: what the runs say of each claim, and beside it those of presets that extend theirs, by heading
            and the claim's id, in few words.
        regime: by task and models, whether the criteria of the paper's regime hold; of the preset that they are for.
        use: what scored best on each task, and what it is not told apart from.
        warnings: methods that end below the student they started from.
    """

    scale: tuple[str, ...]
    verdicts: dict[str, tuple[ClaimVerdict, ...]]
    columns: Mapping[str, Mapping[str, str]]
    regime: tuple[str, ...]
    use: tuple[str, ...]
    warnings: tuple[str, ...]


def at_a_glance(
    found: Sequence[ClaimVerdict],
    filled: Sequence[FilledTable],
    records: list[RunRecord],
    others: Mapping[str, RunIndex],
) -> Glance:
    """The first screen from verdicts, all tables and the records behind them.

    Args:
        found: the verdicts.
        filled: the tables.
        records: of the runs.
        others: runs with other settings, by their names.
    """
    preset = records[0].config.preset if records else ""
    of_regime = preset == PRESET
    groups = {
        words.heading: tuple(one for one in found if one.verdict == verdict) for verdict, words in VERDICT_WORDS.items()
    }
    return Glance(
        scale=tuple(note for note in setting_notes(records) if note.startswith(("Models:", "Hardware:"))),
        verdicts={text: ones for text, ones in groups.items() if ones},
        columns=columns_of(found, others, ONE_RATE if others or of_regime else preset or ONE_RATE),
        regime=tuple(map(str, regimes(records))) if of_regime else (),
        use=tuple(line for one in filled for line in _best_methods(one)),
        warnings=tuple(dict.fromkeys(line for one in filled for line in _below_init(one))),
    )


def _best_methods(filled: FilledTable) -> Iterator[str]:
    if filled.table.name not in SHOWN_COLUMNS:
        return
    for column in filled.table.columns[: SHOWN_COLUMNS[filled.table.name]]:
        yield from _best_of(filled, column)


def _best_of(filled: FilledTable, column: Column) -> Iterator[str]:
    """The best of a column; nothing where fewer than two methods have runs."""
    labels = filled.table.row_labels
    cells = {row: cell for (row, name), cell in filled.statistics.cells.items() if name == column.name}
    best = next((row for row, cell in cells.items() if cell.best), None)
    if best is None:
        return
    metric = cells[best].runs[0].record.metric.label
    label = column.label if metric in column.label else f"{column.label} ({metric})"
    others = sorted((row for row, cell in cells.items() if not cell.best), key=lambda row: -cells[row].mean)
    as_good = [row for row in others if cells[row].as_good_as_best]
    parts = {
        "not told apart from it": as_good,
        "too noisy to tell": [row for row in others if cells[row].too_noisy],
        "not tested": [row for row in others if cells[row].p is None],
    }
    listed = {what: ", ".join(f"{labels[row]} {cells[row].mean:.2f}" for row in rows) for what, rows in parts.items()}
    told = "; ".join(f"{what}: {rows}" for what, rows in listed.items() if rows)
    told = told or "significantly above all others"
    times = {row: filled.statistics.times[row].mean for row in (best, *as_good) if row in filled.statistics.times}
    fastest = min(times, key=lambda row: times[row], default="")
    if as_good and fastest:
        told += f"; least training time of these: {labels[fastest]}, {times[fastest]:.2f} times that of KLD"
    yield f"{label}: {labels[best]} {cells[best].mean:.2f} is highest of {len(cells)}; {told}."


def _below_init(filled: FilledTable) -> Iterator[str]:
    rows = filled.table.row_labels
    columns = filled.table.column_labels
    for row, column in filled.statistics.below_init:
        yield f"{rows[row]} ({columns[column]})"
