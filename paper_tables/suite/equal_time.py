"""Runs that take equally long: steps by method, planned from recorded times, as a preset that extends another."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench.config.layers import Layer
from bench.config.presets import change_preset, is_path, recorded_name
from bench.system.errors import BenchError
from paper_tables.numbers.cells import exclusively_timed
from paper_tables.numbers.runs import Run, RunIndex
from paper_tables.paper.run_spec import RunSpec

AS_LONG_AS = "-as-long-as-"
"""Between the names of preset and reference in the name of the planned preset."""


def equal_time_preset(index: RunIndex, names: Sequence[str], reference: str, only: Sequence[str] = ()) -> Layer:
    """The preset of an index with the steps with which every method takes as long as the reference does.

    The budget of a model pair is the median, over the reference's exclusively timed runs, of their training time and of
    what the method needs before it (`TimeInfo.before`). What a method needs itself before its training comes out of it;
    the rest is divided by the median of its seconds a step.

    Args:
        index: recorded runs of the preset.
        names: of the tables whose runs are planned.
        reference: a method.
        only: plan these methods beside it; none = all of the tables.

    Raises:
        BenchError: a method has runs in several ways (output sources, init students), has no time that may be shown or
            does not say what came before, or has no time left for its warm-up.
    """
    by_pair: dict[str, dict[str, tuple[RunSpec, list[Run]]]] = {}
    for name in names:
        table = index.table(name)
        selection = index.select(table)
        if reference not in {spec.method for spec in table.specs}:
            raise BenchError(f"--equal-time {reference}: table {name} has no such row to take the time of")
        for spec in table.specs:
            if only and spec.method not in (*only, reference):
                continue
            of_pair = by_pair.setdefault(recorded_name(spec.models), {})
            there, _ = of_pair.setdefault(spec.method, (spec, list(selection.runs[spec])))
            if there != spec:
                raise BenchError(
                    f"--equal-time: table {name} has {spec.method} in several ways, and steps are planned by method; "
                    "the suites main and table3 have each in one"
                )
    planned: dict[str, Layer] = {}
    for models, of_pair in by_pair.items():
        timed = exclusively_timed({method: runs for method, (_, runs) in of_pair.items()})
        missing = [
            method
            for method, runs in timed.items()
            if not runs or any(run.record.seconds_before is None for run in runs)
        ]
        if missing:
            raise BenchError(
                f"--equal-time {reference}: no training time that may be shown, or none of what came before it, of "
                f"{', '.join(missing)} "
                f"with models {models}; make the runs first: the same command without --equal-time"
            )
        budget = median(
            (run.record.seconds_before or 0.0) + run.record.time.training_seconds for run in timed[reference]
        )
        planned[models] = {
            "methods": {method: {"training": _steps(method, its, budget)} for method, its in timed.items()}
        }
    summary = f"{index.preset_name}, each method with as many steps as take the time of {reference}"
    return {"extends": index.preset, "summary": summary, "pairs": planned}


def _steps(method: str, runs: Sequence[Run], budget: float) -> Layer:
    left = budget - median(run.record.seconds_before or 0.0 for run in runs)
    steps = round(left / median(run.record.time.training_seconds / run.record.training.steps for run in runs))
    warmup = runs[0].record.config.training.warmup_steps
    if steps <= warmup:
        raise BenchError(
            f"--equal-time: {method} has time for {max(0, steps)} steps in the budget of {budget:.3g} s, of "
            f"{warmup} that its learning rate takes to rise (training.warmup_steps)"
        )
    epochs = {} if runs[0].record.config.training.epochs is None else {"epochs": None}
    return {"steps": steps, **epochs}


def write_preset(path: Path, planned: Layer, *, replan: bool = False) -> None:
    """Write a planned preset; steps that the file has stay as they were when their runs were begun.

    Args:
        path: its file.
        planned: what `equal_time_preset` gave.
        replan: take the planned steps in place of those that the file has.

    Raises:
        BenchError: it cannot be written.
    """
    base = planned["extends"]
    extends = f"./{os.path.relpath(base, path.parent)}" if is_path(base) else base

    def with_planned(there: Layer | None) -> Layer:
        before = {} if there is None else there.get("pairs", {})
        pairs = before | {
            models: {"methods": _merged(before.get(models, {}).get("methods", {}), of_pair["methods"], replan)}
            for models, of_pair in planned["pairs"].items()
        }
        return {**planned, "extends": extends, "pairs": pairs}

    change_preset(path, with_planned)


def _merged(before: Layer, planned: Layer, replan: bool) -> Layer:
    return before | planned if replan else planned | before
