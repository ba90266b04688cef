"""The appendix as data: one option varied at a time, all else as in the main table. Nothing here reads a record.

Each sweep is a `Table` whose rows are the option's values, so that it is measured, tested and written as the paper's
tables are; a value that is the method's own is the very run of the main table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from bench.system.errors import BenchError, did_you_mean
from distillm.interface import Init
from paper_tables.paper import tables as layout
from paper_tables.paper.tables import LABELS, Arm, Column, Row, Table, arm_of

ALPHAS = (0.01, 0.1, 0.3, 0.5, 0.7, 0.9)
RATIOS = (0.0, 0.25, 0.5, 0.75, 1.0)
CAPACITIES = (250, 500, 1000, 2000, 4000)
OWN_ALPHA, OWN_RATIO, OWN_CAPACITY = 0.1, 0.5, 1000
"""What the paper's main results take. A preset with a buffer of another size has all capacities scaled with it."""
STARTED = ("kld", "srkl", "imitkd", "gkd", "minillm", "distillm")
SWEEPS = ("alpha", "sgo-ratio", "init", "buffer-capacity")
NUMERIC = {"alpha": "skew α", "sgo-ratio": "probability of training on SGOs", "buffer-capacity": "buffer capacity"}
"""Sweeps whose rows are numbers, with the name of their axis."""


@cache
def sweeps(preset: str) -> Mapping[str, Table]:
    """All sweeps by name, as a preset fills them."""
    made = (_alpha, _sgo_ratio, _init, _buffer_capacity)
    return dict(zip(SWEEPS, (make(preset) for make in made), strict=True))


def any_table(name: str, preset: str) -> Table:
    """A table of the paper or a sweep, by its name.

    Raises:
        BenchError: no such table or preset.
    """
    known = {**layout.tables(preset), **sweeps(preset)}
    wanted = name.lower().removeprefix("table")
    if wanted not in known:
        raise BenchError(f"unknown table {name!r}: {did_you_mean(wanted, known)}")
    return known[wanted]


def _table(name: str, caption: str, rows: tuple[Row, ...], columns: Mapping[str, str]) -> Table:
    sets = tuple(Column(group, label, group, "dolly") for group, label in columns.items())
    return Table(name, caption, rows, sets, published_for={"dolly": "gpt2-xl-to-gpt2"})


def _alpha(preset: str) -> Table:
    def arm(loss: str, alpha: float) -> Arm:
        return arm_of(preset, loss, "dolly", None, *(() if alpha == OWN_ALPHA else (f"method.alpha={alpha}",)))

    losses = ("skl", "srkl")
    rows = tuple(Row(str(a), f"α = {a}", {loss: arm(loss, a) for loss in losses}) for a in ALPHAS)
    return _table("alpha", "Skew α of SKL and SRKL on fixed data, on Dolly", rows, {n: LABELS[n] for n in losses})


def _sgo_ratio(preset: str) -> Table:
    def arm(source: str, ratio: float) -> Arm:
        if ratio == 0:
            return arm_of(preset, "srkl")
        if (source, ratio) == ("mixed", 1):
            return arm_of(preset, "srkl", "dolly", "on-policy")
        options = () if ratio == OWN_RATIO else (f"sgo.probability={ratio}",)
        return arm_of(preset, "srkl", "dolly", source, *options)

    columns = {"mixed": "fresh SGOs", "off-policy": "replayed SGOs"}
    rows = tuple(Row(str(r), f"{r:.0%}".replace("%", " %"), {c: arm(c, r) for c in columns}) for r in RATIOS)
    return _table("sgo-ratio", "Share of batches of student-generated outputs, SRKL on Dolly", rows, columns)


def _init(preset: str) -> Table:
    columns: dict[Init, str] = {"sft": "SFT init student", "pretrained": "pretrained init student"}
    models = layout.own_models(preset, "dolly")
    rows = tuple(
        Row(m, LABELS[m], {start: Arm(m, "dolly", layout.OWN_SOURCE[m], start, models) for start in columns})
        for m in STARTED
    )
    return _table("init", "Where the student starts, on Dolly", rows, {str(k): v for k, v in columns.items()})


def _buffer_capacity(preset: str) -> Table:
    own = arm_of(preset, "distillm")
    default = own.config(preset).sgo["capacity"]

    def row(papers: int) -> Row:
        capacity = default * papers // OWN_CAPACITY
        options = () if papers == OWN_CAPACITY else (f"sgo.capacity={capacity}",)
        return Row(str(papers), f"{capacity} responses", {"distillm": replace(own, options=options)})

    rows = tuple(row(papers) for papers in CAPACITIES)
    return _table("buffer-capacity", "Capacity of the replay buffer, on Dolly", rows, {"distillm": LABELS["distillm"]})
