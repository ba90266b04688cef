"""Figures 6, 7 and 8, the sweeps of the appendix, and what quality costs: drawn from recorded runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from bench.environment import had_machine_to_itself
from bench.evaluation import mean_of_sets
from paper_tables.figures.drawn import Drawn, NothingToDraw
from paper_tables.figures.style import COLOURS, COLUMN, HATCHES, PAGE, look
from paper_tables.layout import Arm, Row, Table, arm_of, tables
from paper_tables.measure import relative_times, training_seconds
from paper_tables.select import Library, Run
from paper_tables.sweeps import NUMERIC, sweeps

FIXED = {"skl": "SKL", "srkl": "SRKL"}


def convergence(library: Library) -> Drawn:
    """Figure 6: validation score against training step, by loss, on fixed data."""
    table = tables(library.preset)["1"]
    selected = library.select(table).runs
    figure, axes = plt.subplots(figsize=(COLUMN, 2.4))
    rows = []
    for number, row in enumerate(table.rows):
        runs = selected[row.arms["dolly"]]
        if not runs:
            continue
        by_step = _validations(runs)
        steps = sorted(by_step)
        means = [statistics.fmean(by_step[s]) for s in steps]
        axes.plot(steps, means, label=row.label, **look(number))
        if len(runs) > 1:
            axes.fill_between(
                steps,
                [min(by_step[s]) for s in steps],
                [max(by_step[s]) for s in steps],
                color=look(number)["color"],
                alpha=0.15,
                linewidth=0,
            )
        rows += [
            {"loss": row.name, "step": s, "mean": m, "low": min(by_step[s]), "high": max(by_step[s]), "n": len(runs)}
            for s, m in zip(steps, means, strict=True)
        ]
    _need(rows, "table1")
    axes.set_xlabel("training step")
    axes.set_ylabel("validation ROUGE-L")
    axes.legend(ncols=2)
    return Drawn(
        figure,
        pd.DataFrame(rows),
        [f"Figure 6: convergence on fixed data, mean over training seeds {_seeds(selected)}; bands: all of them."],
    )


def _validations(runs: Iterable[Run]) -> dict[int, list[float]]:
    by_step: dict[int, list[float]] = {}
    for run in runs:
        for row in run.record["validations"]:
            if "metric" in row:
                by_step.setdefault(int(row["step"]), []).append(row["metric"])
    return by_step


def relative_time(library: Library) -> Drawn:
    """Figure 7: training time by output source, relative to the same loss on fixed data."""
    table = tables(library.preset)["2"]
    fixed = {loss: Row(loss, "fixed data", {"dolly": arm_of(library.preset, loss)}) for loss in FIXED}
    # one selection, so that the runs are known to be comparable
    together = Table("2", table.caption, (*table.rows, *fixed.values()), table.columns)
    selected = library.select(together).runs
    figure, axes = plt.subplots(figsize=(COLUMN, 2.2))
    rows: list[dict[str, Any]] = []
    prefix = {loss: f"{loss}-" for loss in FIXED}
    sources = ["dataset", *(r.name.removeprefix("skl-") for r in table.rows if r.name.startswith("skl-"))]
    for number, (loss, label) in enumerate(FIXED.items()):
        own = {r.name.removeprefix(prefix[loss]): r for r in table.rows if r.name.startswith(prefix[loss])}
        own["dataset"] = fixed[loss]
        runs_of = {source: list(selected[row.arms["dolly"]]) for source, row in own.items()}
        times, _ = relative_times(runs_of, "dataset")
        for source, cell in times.items():
            x = sources.index(source) + 0.38 * (number - 0.5)
            axes.bar(
                x,
                cell.mean,
                0.36,
                color=COLOURS[number],
                hatch=HATCHES[number],
                edgecolor="white",
                label=label if source == "dataset" else None,
            )
            axes.text(x, cell.mean, f"{cell.mean:.1f}", ha="center", va="bottom", fontsize=6)
            rows.append(
                {"loss": loss, "source": source, "relative_time": cell.mean, "sd": cell.sd, "n": len(cell.runs)}
                | {"seconds": statistics.fmean(training_seconds(run) for run in cell.runs)}
                | {"generation_share": statistics.fmean(_generation_share(run) for run in cell.runs)}
            )
    _need([row for row in rows if row["source"] != "dataset"], "table2", "that had the machine to themselves")
    axes.set_xticks(
        range(len(sources)),
        [s.replace("dataset", "fixed data").replace("adaptive-off", "adaptive\noff") for s in sources],
    )
    axes.set_ylabel("training time / fixed data")
    axes.grid(axis="x", visible=False)
    axes.legend()
    return Drawn(
        figure,
        pd.DataFrame(rows),
        [
            "Figure 7: training time by output source, relative to the same loss on fixed data, on Dolly; of runs that "
            f"had the machine to themselves (n = {_range(row['n'] for row in rows)} a bar)."
        ],
    )


def _generation_share(run: Run) -> float:
    time = run.record["time"]
    share: float = time["phases"].get("generation", 0.0) / time["training_seconds"]
    return share


def sweep(library: Library, name: str) -> Drawn:
    """A sweep of the appendix, the score against the option's value; Figure 8 is that of alpha."""
    table = sweeps(library.preset)[name]
    selected = library.select(table).runs
    numeric = name in NUMERIC
    figure, axes = plt.subplots(figsize=(COLUMN, 2.3))
    rows = []
    for number, column in enumerate(table.columns):
        found = [(row, selected[row.arms[column.group]]) for row in table.rows if selected[row.arms[column.group]]]
        cells = [(row, _scores(runs)) for row, runs in found]
        if not cells:
            continue
        means = [statistics.fmean(scores) for _, scores in cells]
        deviations = [statistics.stdev(scores) if len(scores) > 1 else 0.0 for _, scores in cells]
        if numeric:
            x = [_value(row) for row, _ in cells]
            axes.errorbar(x, means, yerr=deviations, capsize=2, label=column.label, **look(number))
        else:
            places = [table.rows.index(row) + 0.38 * (number - 0.5) for row, _ in cells]
            axes.bar(
                places,
                means,
                0.36,
                yerr=deviations,
                capsize=2,
                color=COLOURS[number],
                hatch=HATCHES[number],
                edgecolor="white",
                label=column.label,
            )
        rows += [
            {"series": column.name, "value": row.name, "mean": mean, "sd": sd if len(scores) > 1 else None}
            | {"n": len(scores)}
            for (row, scores), mean, sd in zip(cells, means, deviations, strict=True)
        ]
    if len({row["value"] for row in rows}) < 2:
        _need([], name if name != "alpha" else "figures")
    if numeric:
        axes.set_xlabel(NUMERIC[name])
        if name == "buffer-capacity":
            axes.set_xscale("log", base=2)
            ticks = [_value(row) for row in table.rows]
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    else:
        axes.set_xticks(range(len(table.rows)), [row.label for row in table.rows])
        axes.grid(axis="x", visible=False)
    axes.set_ylabel("ROUGE-L on Dolly")
    if len(table.columns) > 1:
        axes.legend()
    title = "Figure 8: " if name == "alpha" else "Appendix: "
    return Drawn(
        figure,
        pd.DataFrame(rows),
        [
            f"{title}{table.caption}; test ROUGE-L, mean over training seeds {_seeds(selected)}; "
            "bars: standard deviation."
        ],
    )


def _value(row: Row) -> float:
    """The option's value in a row of numbers; a capacity is scaled with the preset, so its label has it."""
    return float(row.label.split()[0]) if row.label.endswith("responses") else float(row.name)


def _scores(runs: Iterable[Run]) -> list[float]:
    return [run.record["scores"]["test"]["mean"] for run in runs]


def pareto(library: Library) -> Drawn:
    """Quality against training time for all methods; the front holds those that none beats in both."""
    points: list[dict[str, Any]] = []
    for label, runs in _timed(library).items():
        scores = [mean_of_sets(run.record["scores"]) for run in runs.scored]
        points.append(
            {"method": label, "seconds": runs.seconds, "score": statistics.fmean(scores), "n": len(scores)}
            | {"sd": statistics.stdev(scores) if len(scores) > 1 else None}
        )
    _need(points, "main", "that had the machine to themselves")
    best = -np.inf
    front = []
    for point in sorted(points, key=lambda p: (p["seconds"], -p["score"])):
        point["on_front"] = point["score"] > best
        if point["on_front"]:
            best = point["score"]
            front.append(point)
    figure, axes = plt.subplots(figsize=(PAGE, 2.9))
    axes.step([p["seconds"] for p in front], [p["score"] for p in front], where="post", color="#999999", linewidth=1)
    for number, point in enumerate(points):
        style = look(number)
        axes.errorbar(
            point["seconds"],
            point["score"],
            yerr=point["sd"],
            capsize=2,
            color=style["color"],
            marker=style["marker"],
            linestyle="none",
            markersize=5,
            label=point["method"],
            markerfacecolor=None if point["on_front"] else "white",
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("training time (s)")
    axes.set_ylabel("ROUGE-L, mean of the five sets")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return Drawn(
        figure,
        pd.DataFrame(points),
        [
            "Quality against training time, all methods, instruction following. Filled: on the Pareto front (no "
            "method is both faster and better). Times are of runs that had the machine to themselves; bars: standard "
            "deviation over training seeds."
        ],
    )


def equal_budget(library: Library) -> Drawn:
    """Best validation score that each method has reached after so much wall-clock of training."""
    figure, axes = plt.subplots(figsize=(PAGE, 2.9))
    rows = []
    for number, (label, runs) in enumerate(_timed(library).items()):
        by_step = _validations(runs.scored)
        total = max(run.record["training"]["steps"] for run in runs.scored)
        times, bests = [], []
        for step in sorted(by_step):
            times.append(runs.seconds * step / total)
            bests.append(max(statistics.fmean(by_step[s]) for s in by_step if s <= step))
        axes.step(times, bests, where="post", label=label, **look(number))
        rows += [
            {"method": label, "step": s, "seconds": t, "best": b, "n": len(runs.scored)}
            for s, t, b in zip(sorted(by_step), times, bests, strict=True)
        ]
    _need(rows, "main", "that had the machine to themselves")
    axes.set_xlabel("training time (s)")
    axes.set_ylabel("best validation ROUGE-L so far")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return Drawn(
        figure,
        pd.DataFrame(rows),
        [
            "Quality at equal wall-clock, all methods, instruction following: read upwards from a budget. Best "
            "validation ROUGE-L so far, mean over training seeds; a method's training time, of runs that had the "
            "machine to themselves, is spread evenly over its steps."
        ],
    )


class _Timed:
    """A method's runs, and the mean training time of those that had the machine to themselves."""

    def __init__(self, scored: tuple[Run, ...], alone: list[Run]) -> None:
        self.scored = scored
        self.seconds = statistics.fmean(training_seconds(run) for run in alone)


def _timed(library: Library) -> dict[str, _Timed]:
    table = tables(library.preset)["main"]
    selected = library.select(table).runs
    found = {}
    for row in table.rows:
        runs = selected[row.arms["dolly"]]
        alone = [run for run in runs if had_machine_to_itself(run.record)]
        if alone:
            found[row.label] = _Timed(runs, alone)
    return found


def _need(rows: list[Any], suite: str, which: str = "") -> None:
    if not rows:
        raise NothingToDraw(f"no runs{f' {which}' if which else ''}: bench suite {suite}")


def _seeds(selected: Mapping[Arm, tuple[Run, ...]]) -> str:
    return ", ".join(str(seed) for seed in sorted({run.seed for runs in selected.values() for run in runs}))


def _range(counts: Iterable[int]) -> str:
    found = sorted(set(counts))
    return str(found[0]) if len(found) == 1 else f"{found[0]}–{found[-1]}"
