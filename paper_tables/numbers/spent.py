"""What a table's runs took on the clock: a run, and the trials of tuning that chose its settings."""

from __future__ import annotations

import statistics

from bench.config.presets import read_preset
from paper_tables.numbers.cells import exclusively_timed, training_seconds
from paper_tables.numbers.runs import RunIndex, Selection
from paper_tables.paper.tables import Table


def spent_notes(index: RunIndex, table: Table, selection: Selection) -> list[str]:
    """Sentences with the seconds of a run by row, of tables that have times, and with those of the trials before it."""
    runs_of = {row.label: runs for row in table.rows if (runs := selection.of_row(row))}
    notes = []
    if table.timed and runs_of:
        timed = {label: runs for label, runs in exclusively_timed(runs_of).items() if runs}
        medians = {label: statistics.median(map(training_seconds, its)) for label, its in (timed or runs_of).items()}
        which = "of exclusively timed runs" if timed else "whatever else ran then, so not to be compared"
        notes.append(f"Seconds of training of a run, the median, {which}: {_listed(medians)}.")
    preset = read_preset(index.preset)
    specs_of = {row.label: row.specs.values() for row in table.rows if row.label in runs_of}
    known = {
        label: [entry.seconds for task, method in found if (entry := preset.tuned(task, method))]
        for label, specs in specs_of.items()
        for found in [dict.fromkeys((spec.task, spec.method) for spec in specs if selection.runs[spec])]
    }
    if tuned := {label: sum(its) for label, its in known.items() if its}:
        notes.append(f"Tuning, seconds that all trials of a method took, which a run's leave out: {_listed(tuned)}.")
    return notes


def _listed(seconds: dict[str, float]) -> str:
    return ", ".join(f"{label} {value:.0f}" for label, value in seconds.items())
