"""Figures 6, 7 and 8, the sweeps of the appendix, and what quality costs: drawn from recorded runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from bench.analysis.timing import had_machine_to_itself
from bench.evaluation.evaluate import mean_of_sets
from paper_tables.figures.figure import Drawn, NothingToDraw, hardware
from paper_tables.figures.labels import Label, label_ends, label_points
from paper_tables.figures.style import COLOURS, COLUMN, FAINT, HATCHES, PAGE, look, plain_log, ticks_at
from paper_tables.numbers.cells import relative_times, training_seconds
from paper_tables.numbers.runs import Library, Run, Selection
from paper_tables.paper.ablations import NUMERIC, OWN_ALPHA, sweeps
from paper_tables.paper.tables import Row, Table, arm_of, tables

FIXED = {"skl": "SKL", "srkl": "SRKL"}
LOGARITHMIC = ("alpha", "buffer-capacity")


def convergence(library: Library) -> Drawn:
    """Figure 6: validation score against training step, by loss, on fixed data."""
    table = tables(library.preset)["1"]
    selection = library.select(table)
    figure, axes = plt.subplots(figsize=(COLUMN, 2.4))
    rows: list[dict[str, Any]] = []
    ends: list[Label] = []
    for number, row in enumerate(table.rows):
        runs = selection.runs[row.arms["dolly"]]
        if not runs:
            continue
        style = look(number)
        by_step = _validations(runs)
        steps = sorted(by_step)
        means = [statistics.fmean(by_step[s]) for s in steps]
        lows, highs = [min(by_step[s]) for s in steps], [max(by_step[s]) for s in steps]
        axes.plot(steps, means, **style)
        if len(runs) > 1:
            axes.fill_between(steps, lows, highs, color=style["color"], alpha=0.15, linewidth=0)
        ends.append(Label(steps[-1], means[-1], row.label, style["color"]))
        rows += [
            {"loss": row.name, "step": s, "mean": m, "low": low, "high": high, "n": len(runs)}
            for s, m, low, high in zip(steps, means, lows, highs, strict=True)
        ]
    _need(rows, "table1")
    axes.set_xlabel("training step")
    axes.set_ylabel("validation ROUGE-L")
    label_ends(axes, ends)
    measured = {row["step"] for row in rows}
    start = [] if 0 in measured else [f"The first score is measured at step {min(measured)}; the start is not scored."]
    return Drawn(
        figure,
        pd.DataFrame(rows),
        [
            f"Figure 6: convergence on fixed data, mean over training seeds {_seeds(selection)}; bands: all of them.",
            *start,
            *_missing(table, selection, "table1", library.preset),
        ],
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
    selection = library.select(together)
    figure, axes = plt.subplots(figsize=(COLUMN, 2.3))
    rows: list[dict[str, Any]] = []
    timed: list[Run] = []
    prefix = {loss: f"{loss}-" for loss in FIXED}
    sources = ["dataset", *(r.name.removeprefix("skl-") for r in table.rows if r.name.startswith("skl-"))]
    for number, (loss, label) in enumerate(FIXED.items()):
        own = {r.name.removeprefix(prefix[loss]): r for r in table.rows if r.name.startswith(prefix[loss])}
        own["dataset"] = fixed[loss]
        runs_of = {source: list(selection.runs[row.arms["dolly"]]) for source, row in own.items()}
        times, _ = relative_times(runs_of, "dataset")
        for source, cell in times.items():
            x = sources.index(source) + 0.46 * (number - 0.5)
            seconds = [training_seconds(run) for run in cell.runs]
            # relative as the mean is: all to the mean of the runs on fixed data
            each = [cell.mean * one / statistics.fmean(seconds) for one in seconds]
            axes.bar(
                x,
                cell.mean,
                0.42,
                color=COLOURS[number],
                hatch=HATCHES[number],
                edgecolor="white",
                label=label if source == "dataset" else None,
            )
            if len(each) > 1:
                axes.plot([x] * len(each), each, "o", color="black", markerfacecolor="white", markersize=2.5)
            axes.annotate(
                f"{cell.mean:.2f}", (x, max(each)), (0, 2.5), textcoords="offset points", ha="center", va="bottom"
            )
            timed += cell.runs
            rows.append(
                {"loss": loss, "source": source, "relative_time": cell.mean, "sd": cell.sd, "n": len(cell.runs)}
                | {"each": " ".join(f"{one:.6g}" for one in each), "seconds": statistics.fmean(seconds)}
                | {"generation_share": statistics.fmean(_generation_share(run) for run in cell.runs)}
            )
    _need([row for row in rows if row["source"] != "dataset"], "table2", "that had the machine to themselves")
    names = {"dataset": "fixed\ndata", "adaptive-off-policy": "adaptive\noff-policy"}
    axes.set_xticks(range(len(sources)), [names.get(source, source) for source in sources])
    axes.set_xlim(-0.5, len(sources) - 0.5)
    axes.set_ylabel("training time / fixed data")
    axes.grid(axis="x", visible=False)
    axes.legend()
    dots = "; dots: each run" if any(row["n"] > 1 for row in rows) else ", so that nothing is known of their spread"
    return Drawn(
        figure,
        pd.DataFrame(rows),
        [
            "Figure 7: training time by output source, relative to the same loss on fixed data, on Dolly; of runs that "
            f"had the machine to themselves (n = {_range(row['n'] for row in rows)} a bar{dots}).",
            hardware(run.record for run in timed),
            *_missing(together, selection, "table2", library.preset),
        ],
    )


def _generation_share(run: Run) -> float:
    time = run.record["time"]
    share: float = time["phases"].get("generation", 0.0) / time["training_seconds"]
    return share


def sweep(library: Library, name: str) -> Drawn:
    """A sweep of the appendix, the score against the option's value; Figure 8 is that of alpha."""
    table = sweeps(library.preset)[name]
    selection = library.select(table)
    numeric = name in NUMERIC
    figure, axes = plt.subplots(figsize=(COLUMN, 2.3))
    rows: list[dict[str, Any]] = []
    ends: list[Label] = []
    for number, column in enumerate(table.columns):
        found = [(row, selection.runs[row.arms[column.group]]) for row in table.rows]
        cells = [(row, _scores(runs)) for row, runs in found if runs]
        if not cells:
            continue
        means = [statistics.fmean(scores) for _, scores in cells]
        deviations = [statistics.stdev(scores) if len(scores) > 1 else 0.0 for _, scores in cells]
        style = look(3 * number)
        if numeric:
            # beside each other, where several series have the same value
            aside = number - (len(table.columns) - 1) / 2
            x = [_beside(name, _value(row), aside) for row, _ in cells]
            axes.errorbar(x, means, yerr=deviations, capsize=2, **style)
            ends.append(Label(x[-1], means[-1], column.label, style["color"]))
        else:
            axes.bar(
                [table.rows.index(row) + 0.38 * (number - 0.5) for row, _ in cells],
                means,
                0.36,
                yerr=deviations,
                capsize=2,
                color=style["color"],
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
    axes.set_ylabel("ROUGE-L on Dolly")
    if numeric:
        axes.set_xlabel(NUMERIC[name])
        values = [_value(row) for row in table.rows]
        if name in LOGARITHMIC:
            axes.set_xscale("log")
            axes.set_xlim(values[0] / 1.4, values[-1] * 1.4)
        near = [name in LOGARITHMIC and after < 1.3 * value for value, after in pairwise(values)]
        names = ["" if close else f"{value:g}" for value, close in zip(values, [*near, False], strict=True)]
        ticks_at(axes.xaxis, values, names)
        if name == "alpha":
            axes.axvline(OWN_ALPHA, color="black", linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
            axes.text(OWN_ALPHA * 1.05, 0.02, f"the paper's {OWN_ALPHA:g}", transform=axes.get_xaxis_transform())
        if len(table.columns) > 1:
            label_ends(axes, ends)
    else:
        axes.set_xticks(range(len(table.rows)), [row.label for row in table.rows])
        axes.grid(axis="x", visible=False)
        # above the bars, none of which it may cover
        figure.legend(loc="outside upper right", ncols=len(table.columns))
    title = "Figure 8: " if name == "alpha" else "Appendix: "
    return Drawn(
        figure,
        pd.DataFrame(rows),
        [
            f"{title}{table.caption}; test ROUGE-L, mean over training seeds {_seeds(selection)}; "
            "bars: standard deviation.",
            *_missing(table, selection, name, library.preset),
        ],
    )


def _beside(name: str, value: float, aside: float) -> float:
    return value * 1.12**aside if name in LOGARITHMIC else value + 0.03 * aside


def _value(row: Row) -> float:
    """The option's value in a row of numbers; a capacity is scaled with the preset, so its label has it."""
    return float(row.label.split()[0]) if row.label.endswith("responses") else float(row.name)


def _scores(runs: Iterable[Run]) -> list[float]:
    return [run.record["scores"]["test"]["mean"] for run in runs]


def pareto(library: Library) -> Drawn:
    """Quality against training time for all methods; the front holds those that none beats in both."""
    points: list[dict[str, Any]] = []
    table = tables(library.preset)["main"]
    selection = library.select(table)
    methods = _timed(table, selection)
    for label, runs in methods.items():
        scores = [mean_of_sets(run.record["scores"]) for run in runs.scored]
        points.append(
            {"method": label, "seconds": runs.seconds, "score": statistics.fmean(scores), "n": len(scores)}
            | {"sd": statistics.stdev(scores) if len(scores) > 1 else None}
            | {"timed": len(runs.each), "fastest": min(runs.each), "slowest": max(runs.each)}
        )
    _need(points, "main", "that had the machine to themselves")
    best = -np.inf
    front = []
    for point in sorted(points, key=lambda p: (p["seconds"], -p["score"])):
        point["on_front"] = point["score"] > best
        if point["on_front"]:
            best = point["score"]
            front.append(point)
    figure, axes = plt.subplots(figsize=(PAGE, 3.4))
    axes.step([p["seconds"] for p in front], [p["score"] for p in front], where="post", color=FAINT, linewidth=1)
    for number, point in enumerate(points):
        style = look(number) | {"linestyle": "none"}
        axes.errorbar(
            point["seconds"],
            point["score"],
            xerr=[[point["seconds"] - point["fastest"]], [point["slowest"] - point["seconds"]]],
            yerr=point["sd"],
            capsize=2,
            elinewidth=0.8,
            markersize=5,
            markerfacecolor=style["color"] if point["on_front"] else "white",
            **style,
        )
    axes.set_xscale("log")
    axes.set_xlim(right=1.3 * max(point["slowest"] for point in points))  # room for the name of the slowest
    plain_log(axes.xaxis, (1, 1.5, 2, 3, 5, 7))
    axes.set_xlabel("training time (s)")
    axes.set_ylabel("ROUGE-L, mean of the five sets")
    # a name may cover neither a point, nor what is drawn of its spread, nor the front
    taken = [(p["seconds"], p["score"] + (p["sd"] or 0) * step / 4) for p in points for step in range(-4, 5)]
    for point in points:
        taken += [(float(x), point["score"]) for x in np.geomspace(point["fastest"], point["slowest"], 20)]
    for point, after in pairwise(front):
        taken += [(float(x), point["score"]) for x in np.geomspace(point["seconds"], after["seconds"], 40)]
    names = [Label(p["seconds"], p["score"], p["method"], look(number)["color"]) for number, p in enumerate(points)]
    label_points(axes, names, taken)
    several = any(point["timed"] > 1 for point in points)
    spread = "horizontal bars: fastest to slowest timed run" if several else "one timed run each"
    return Drawn(
        figure,
        pd.DataFrame(points),
        [
            "Quality against training time, all methods, instruction following. Filled: on the Pareto front (no "
            "method is both faster and better; line). Times are of runs that had the machine to themselves "
            f"({spread}); vertical bars: standard deviation over training seeds.",
            hardware(run.record for runs in methods.values() for run in runs.alone),
            *_missing(table, selection, "main", library.preset),
        ],
    )


def equal_budget(library: Library) -> Drawn:
    """Best validation score that each method's full-length run has reached after so much wall-clock of training."""
    rows = []
    table = tables(library.preset)["main"]
    selection = library.select(table)
    methods = _timed(table, selection)
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for label, runs in methods.items():
        by_step = _validations(runs.scored)
        total = max(run.record["training"]["steps"] for run in runs.scored)
        steps = sorted(by_step)
        times = [runs.seconds * step / total for step in steps]
        bests = [max(statistics.fmean(by_step[s]) for s in steps if s <= step) for step in steps]
        lines[label] = (times, bests)
        rows += [
            {"method": label, "step": s, "seconds": t, "best": b, "n": len(runs.scored)}
            for s, t, b in zip(steps, times, bests, strict=True)
        ]
    _need(rows, "main", "that had the machine to themselves")
    columns = min(5, len(lines))
    height = -(-len(lines) // columns)
    figure, panels = plt.subplots(
        height, columns, figsize=(PAGE, 0.5 + 1.1 * height), sharex=True, sharey=True, squeeze=False
    )
    for axes, (label, line) in zip(panels.flat, lines.items(), strict=False):
        for other in lines.values():
            axes.step(*other, where="post", color="#cccccc", linewidth=0.7)
        axes.step(*line, where="post", color=COLOURS[0], marker="o", markersize=3, linewidth=1.5)
        axes.set_title(label)
    panels.flat[0].set_xscale("log")
    plain_log(panels.flat[0].xaxis, (1, 3))
    for axes in panels.flat[len(lines) :]:
        axes.set_visible(False)
    for axes in panels.flat[len(lines) - columns : len(lines)]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    figure.supxlabel("training time (s)")
    figure.supylabel("best validation ROUGE-L so far")
    return Drawn(
        figure,
        pd.DataFrame(rows),
        [
            "Quality over wall-clock, all methods, instruction following: a panel a method (blue), the others in grey. "
            "Best validation ROUGE-L so far, mean over training seeds, of the intermediate validations of full-length "
            "runs: their learning rate follows the schedule of the full length, so this is not the score of runs "
            "trained to a smaller budget, which may be higher.",
            "A method's training time, of runs that had the machine to themselves, is spread evenly over its steps.",
            hardware(run.record for runs in methods.values() for run in runs.alone),
            *_missing(table, selection, "main", library.preset),
        ],
    )


class _Timed:
    """A method's runs, and the training times of those that had the machine to themselves."""

    def __init__(self, scored: tuple[Run, ...], alone: list[Run]) -> None:
        self.scored, self.alone = scored, alone
        self.each = [training_seconds(run) for run in alone]
        self.seconds = statistics.fmean(self.each)


def _timed(table: Table, selection: Selection) -> dict[str, _Timed]:
    found = {}
    for row in table.rows:
        runs = selection.runs[row.arms["dolly"]]
        alone = [run for run in runs if had_machine_to_itself(run.record)]
        if alone:
            found[row.label] = _Timed(runs, alone)
    return found


def _need(rows: list[Any], suite: str, which: str = "") -> None:
    if not rows:
        raise NothingToDraw(f"no runs{f' {which}' if which else ''}: bench suite {suite}")


def _missing(table: Table, selection: Selection, suite: str, preset: str) -> list[str]:
    """What a caption says of runs that are not recorded."""
    lost = {missing.arm: len(missing.seeds) for missing in selection.missing}
    if not lost:
        return []
    groups = {column.group: column.label for column in reversed(table.columns)}
    names = [
        f"{row.label} ({groups[group]})" if len(groups) > 1 else row.label
        for row in table.rows
        for group, arm in row.arms.items()
        if arm in lost
    ]
    missing = sum(lost.values())
    planned = missing + len(selection.records)
    command = f"bench suite {suite}" + (f" --preset {preset}" if preset != "tiny" else "")
    return [f"Missing: {missing} of {planned} runs, of {', '.join(names)}; made by: {command}"]


def _seeds(selection: Selection) -> str:
    return ", ".join(str(seed) for seed in sorted({run.seed for runs in selection.runs.values() for run in runs}))


def _range(counts: Iterable[int]) -> str:
    found = sorted(set(counts))
    return str(found[0]) if len(found) == 1 else f"{found[0]}–{found[-1]}"
