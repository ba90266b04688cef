"""Suites: the runs that tables and figures need, each once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from bench.system.errors import BenchError, did_you_mean
from paper_tables.paper.ablations import ABLATIONS, all_tables
from paper_tables.paper.claim_specs import timed_rows
from paper_tables.paper.own_task import OwnTask
from paper_tables.paper.run_spec import RunSpec
from paper_tables.paper.tables import TABLE_NAMES, tables

SUITES = {
    **{f"table{name}": (name,) for name in TABLE_NAMES if name.isdigit()},
    "main": ("main",),
    # 7 is of Table 2, 6 and the Pareto front of the main table, 8 of the ablation of alpha
    "figures": ("2", "main", "alpha"),
    "appendix": ABLATIONS,
    "paper": (*TABLE_NAMES, *ABLATIONS),
}
"""By name, the tables and ablations that a suite fills; `paper` is everything that a table, figure or claim needs."""
TABLES_WITH_TIMES = ("2", "main")
"""Tables whose runs' training time is shown in a table or figure."""
TimedAt = Literal["every seed", "first seed"]
"""At which training seeds a run needs exclusive timing: with nothing else running on the machine."""


def run_specs(suite: str, preset: str, own: OwnTask | None = None) -> tuple[RunSpec, ...]:
    """The run specs that a suite needs, each once; those of another task where one is given.

    Raises:
        BenchError: no such suite or preset.
    """
    return _specs_of(tables_of(suite), preset, own)


def tables_of(suite: str) -> tuple[str, ...]:
    """The tables and ablations that a suite fills.

    Raises:
        BenchError: no such suite.
    """
    wanted = f"table{suite}" if suite.isdigit() else suite
    known = {**SUITES, **{name: (name,) for name in ABLATIONS}}
    if wanted not in known:
        raise BenchError(f"unknown suite {suite!r}: {did_you_mean(suite, known)}")
    return known[wanted]


def timed_specs(preset: str, own: OwnTask | None = None) -> Mapping[RunSpec, TimedAt]:
    """The run specs whose training time is shown; at every seed where a claim rests on it, for its spread."""
    claimed = timed_rows()
    timed: dict[RunSpec, TimedAt] = dict.fromkeys(_specs_of(TABLES_WITH_TIMES, preset), "first seed")
    for name in dict.fromkeys(table for table, _ in claimed):
        for row in tables(preset)[name].rows:
            if (name, row.name) in claimed:
                timed |= dict.fromkeys(row.specs.values(), "every seed")
    return {own.spec(spec): at for spec, at in timed.items()} if own else timed


def _specs_of(names: Iterable[str], preset: str, own: OwnTask | None = None) -> tuple[RunSpec, ...]:
    chosen = [all_tables(preset)[name] for name in names]
    return tuple(dict.fromkeys(spec for table in chosen for spec in (own.table(table) if own else table).specs))
