"""Suites: the runs that tables and figures need, each once. Nothing here runs or reads anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from bench.system.errors import BenchError, did_you_mean
from paper_tables.paper.ablations import SWEEPS, sweeps
from paper_tables.paper.claim_specs import timed_rows
from paper_tables.paper.tables import NAMES, Arm, tables

FIGURES = ("2", "main", "alpha")
"""Tables whose runs the figures show: 7 is of Table 2, 6 and the Pareto front of the main table, 8 of the sweep."""
SUITES = {
    **{f"table{name}": (name,) for name in NAMES if name.isdigit()},
    "main": ("main",),
    "figures": FIGURES,
    "appendix": SWEEPS,
    "paper": (*NAMES, *SWEEPS),
}
"""By name, the tables and sweeps that a suite fills; `paper` is everything that a table, figure or claim needs."""
TIMED = ("2", "main")
"""Tables whose runs' wall-clock is shown."""
TimedAt = Literal["every seed", "first seed"]
"""At which training seeds a kind of run has to have the machine to itself."""


def arms(suite: str, preset: str) -> tuple[Arm, ...]:
    """The kinds of run that a suite needs, each once.

    Raises:
        BenchError: no such suite or preset.
    """
    wanted = f"table{suite}" if suite.isdigit() else suite
    known = {**SUITES, **{name: (name,) for name in SWEEPS}}
    if wanted not in known:
        raise BenchError(f"unknown suite {suite!r}: {did_you_mean(suite, known)}")
    return _arms_of(known[wanted], preset)


def timed_arms(preset: str) -> Mapping[Arm, TimedAt]:
    """The kinds of run whose wall-clock is shown; where a claim rests on it, at every seed, for its spread."""
    claimed = timed_rows()
    timed: dict[Arm, TimedAt] = dict.fromkeys(_arms_of(TIMED, preset), "first seed")
    for name in dict.fromkeys(table for table, _ in claimed):
        for row in tables(preset)[name].rows:
            if (name, row.name) in claimed:
                timed |= dict.fromkeys(row.arms.values(), "every seed")
    return timed


def _arms_of(names: Iterable[str], preset: str) -> tuple[Arm, ...]:
    every = {**tables(preset), **sweeps(preset)}
    return tuple(dict.fromkeys(arm for name in names for arm in every[name].arms))
