"""The appendix: ablations, each with one option varied and all else as in the main table.

An ablation is a `Table` whose rows are the option's values, so that it is filled, tested and written as the paper's
tables are. A value that is the method's own is the very run of the main table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from bench.system.errors import BenchError, did_you_mean
from paper_tables.paper.methods import METHOD_LABELS, SKEWED_LOSSES
from paper_tables.paper.run_spec import RunSpec, default_run
from paper_tables.paper.tables import INIT_STUDENTS, Column, Row, Table, init_student_rows, tables

ALPHAS = (0.01, 0.1, 0.3, 0.5, 0.7, 0.9)
RATIOS = (0.0, 0.25, 0.5, 0.75, 1.0)
CAPACITIES = (250, 500, 1000, 2000, 4000)
OWN_ALPHA, OWN_RATIO, OWN_CAPACITY = 0.1, 0.5, 1000
"""What the paper's main results take. A preset with a buffer of another size has all capacities scaled with it."""
INIT_METHODS = ("kld", "srkl", "imitkd", "gkd", "minillm", "distillm")
ABLATIONS = ("alpha", "sgo-ratio", "init-student", "buffer-capacity")
VALUE_LABELS = {"alpha": "skew α", "sgo-ratio": "probability of training on SGOs", "buffer-capacity": "buffer capacity"}
"""What the rows' numbers are, in the ablations whose rows have one."""


@cache
def ablations(preset: str) -> Mapping[str, Table]:
    """All ablations by name, with the runs of a preset."""
    made = (_alpha, _sgo_ratio, _init_student, _buffer_capacity)
    return dict(zip(ABLATIONS, (make(preset) for make in made), strict=True))


def all_tables(preset: str) -> Mapping[str, Table]:
    """The paper's tables, then the ablations, by name."""
    return {**tables(preset), **ablations(preset)}


def find_table(name: str, preset: str) -> Table:
    """A table of the paper or an ablation, by its name; "Table 1" and "table1" are 1.

    Raises:
        BenchError: no such table or preset.
    """
    known = all_tables(preset)
    wanted = name.lower().removeprefix("table").strip()
    if wanted not in known:
        raise BenchError(f"unknown table {name!r}: {did_you_mean(wanted, known)}")
    return known[wanted]


def _ablation(name: str, caption: str, rows: tuple[Row, ...], columns: Mapping[str, str]) -> Table:
    of_dolly = tuple(Column(group, label, group, "dolly") for group, label in columns.items())
    return Table(name, caption, rows, of_dolly, published_for={"dolly": "gpt2-xl-to-gpt2"})


def _alpha(preset: str) -> Table:
    def spec(loss: str, alpha: float) -> RunSpec:
        options = () if alpha == OWN_ALPHA else (f"method.alpha={alpha}",)
        return default_run(preset, loss, "dolly", None, *options)

    rows = tuple(Row(str(a), f"α = {a}", {loss: spec(loss, a) for loss in SKEWED_LOSSES}, value=a) for a in ALPHAS)
    columns = {loss: METHOD_LABELS[loss] for loss in SKEWED_LOSSES}
    return _ablation("alpha", "Skew α of SKL and SRKL on fixed data, on Dolly", rows, columns)


def _sgo_ratio(preset: str) -> Table:
    def spec(output_source: str, ratio: float) -> RunSpec:
        if ratio == 0:
            return default_run(preset, "srkl")
        if (output_source, ratio) == ("mixed", 1):
            return default_run(preset, "srkl", "dolly", "on-policy")
        options = () if ratio == OWN_RATIO else (f"sgo.probability={ratio}",)
        return default_run(preset, "srkl", "dolly", output_source, *options)

    columns = {"mixed": "fresh SGOs", "off-policy": "replayed SGOs"}
    rows = tuple(
        Row(str(ratio), f"{100 * ratio:.0f} %", {source: spec(source, ratio) for source in columns}, value=ratio)
        for ratio in RATIOS
    )
    return _ablation("sgo-ratio", "Share of batches of student-generated outputs, SRKL on Dolly", rows, columns)


def _init_student(preset: str) -> Table:
    rows = init_student_rows(preset, INIT_METHODS)
    columns = {str(init): label for init, label in INIT_STUDENTS.items()}
    return _ablation("init-student", "Init student, on Dolly", rows, columns)


def _buffer_capacity(preset: str) -> Table:
    own = default_run(preset, "distillm")
    default = own.config(preset).sgo.capacity

    def row(in_paper: int) -> Row:
        capacity = default * in_paper // OWN_CAPACITY
        options = () if in_paper == OWN_CAPACITY else (f"sgo.capacity={capacity}",)
        return Row(str(in_paper), f"{capacity} responses", {"distillm": replace(own, options=options)}, value=capacity)

    rows = tuple(row(in_paper) for in_paper in CAPACITIES)
    columns = {"distillm": METHOD_LABELS["distillm"]}
    return _ablation("buffer-capacity", "Capacity of the replay buffer, on Dolly", rows, columns)
