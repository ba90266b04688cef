"""Figures 6, 7 and 8, the ablations of the appendix, and what quality costs: drawn from recorded runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bench.analysis.timing import step_spread
from bench.record.record import mean_of_sets
from paper_tables.figures.labels import Label, label_ends, label_points
from paper_tables.figures.style import (
    COLOURS,
    COLUMN,
    FAINT,
    HATCHES,
    PAGE,
    Drawing,
    NothingToDraw,
    look,
    plain_log,
    ticks_at,
    timing_note,
)
from paper_tables.numbers.cells import (
    CellStatistics,
    cell_of,
    exclusively_timed,
    relative_times,
    spread_note,
    training_seconds,
    validation_scores,
)
from paper_tables.numbers.runs import Run, RunIndex, Selection
from paper_tables.paper.ablations import OWN_ALPHA, VALUE_LABELS, ablations
from paper_tables.paper.methods import METHOD_LABELS, SKEWED_LOSSES
from paper_tables.paper.run_spec import default_run
from paper_tables.paper.tables import Row, Table, metric_label, tables

EXCLUSIVELY_TIMED = "exclusively timed runs (nothing else ran on the machine)"
LOGARITHMIC = ("alpha", "buffer-capacity")


def convergence(index: RunIndex) -> Drawing:
    """Figure 6: validation score against training step, by loss, on fixed data."""
    table = tables(index.preset)["1"]
    selection = index.select(table)
    figure, axes = plt.subplots(figsize=(COLUMN, 2.4))
    rows: list[dict[str, object]] = []
    ends: list[Label] = []
    scored_steps: set[int] = set()
    for number, row in enumerate(table.rows):
        runs = selection.runs[row.specs["dolly"]]
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
        scored_steps.update(steps)
        rows += [
            {"loss": row.name, "step": s, "mean": m, "low": low, "high": high, "n": len(runs)}
            for s, m, low, high in zip(steps, means, lows, highs, strict=True)
        ]
    _need(rows, "table1")
    axes.set_xlabel("training step")
    axes.set_ylabel(f"validation {metric_label('dolly')}")
    label_ends(axes, ends)
    first = min(scored_steps)
    return Drawing(
        figure,
        pd.DataFrame(rows),
        [
            f"Figure 6: convergence on fixed data, mean over training seeds {selection.seed_list}; bands: all of them.",
            *([f"The first score is measured at step {first}; the init student is not scored."] if first else []),
            *_missing(table, selection, "table1", index.preset),
        ],
    )


def _validations(runs: Iterable[Run]) -> dict[int, list[float]]:
    """The validation scores of some runs by training step."""
    by_step: dict[int, list[float]] = {}
    for run in runs:
        for step, score in validation_scores(run.record).items():
            by_step.setdefault(step, []).append(score)
    return by_step


def relative_time(index: RunIndex) -> Drawing:
    """Figure 7: training time by output source, relative to the same loss on fixed data."""
    table = tables(index.preset)["2"]
    fixed = {loss: Row(loss, "fixed data", {"dolly": default_run(index.preset, loss)}) for loss in SKEWED_LOSSES}
    # one selection, so that the runs are known to be comparable
    together = Table("2", table.caption, (*table.rows, *fixed.values()), table.columns)
    selection = index.select(together)
    figure, axes = plt.subplots(figsize=(COLUMN, 2.3))
    rows: list[dict[str, object]] = []
    timed: list[Run] = []
    counts: list[int] = []
    spreads: dict[str, float] = {}
    generated = dict.fromkeys(spec.output_source for spec in table.specs)
    places = {source: place for place, source in enumerate(("dataset", *generated))}
    for number, loss in enumerate(SKEWED_LOSSES):
        by_source = {row.specs["dolly"].output_source: row for row in table.rows if row.name.startswith(f"{loss}-")}
        runs_of = {source: selection.of_row(row) for source, row in (by_source | {"dataset": fixed[loss]}).items()}
        times, _ = relative_times(runs_of, exclusively_timed(runs_of), "dataset")
        for source, cell in times.items():
            x = places[source] + 0.46 * (number - 0.5)
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
                label=METHOD_LABELS[loss] if source == "dataset" else None,
            )
            if len(each) > 1:
                axes.plot([x] * len(each), each, "o", color="black", markerfacecolor="white", markersize=2.5)
            axes.annotate(
                f"{cell.mean:.2f}", (x, max(each)), (0, 2.5), textcoords="offset points", ha="center", va="bottom"
            )
            timed += cell.runs
            counts.append(len(cell.runs))
            spread = step_spread([run.record for run in cell.runs])
            spreads |= {} if spread is None else {f"{METHOD_LABELS[loss]} {source}": spread}
            rows.append(
                {"loss": loss, "output_source": source, "relative_time": cell.mean, "sd": cell.sd, "n": len(cell.runs)}
                | {"each": " ".join(f"{one:.6g}" for one in each), "seconds": statistics.fmean(seconds)}
                | {"generation_share": statistics.fmean(run.record.time.share("generation") for run in cell.runs)}
            )
    _need([row for row in rows if row["output_source"] != "dataset"], "table2", EXCLUSIVELY_TIMED)
    names = {"dataset": "fixed\ndata", "adaptive-off-policy": "adaptive\noff-policy"}
    axes.set_xticks(range(len(places)), [names.get(source, source) for source in places])
    axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set_ylabel("training time / fixed data")
    axes.grid(axis="x", visible=False)
    axes.legend()
    dots = "; dots: each run" if max(counts) > 1 else ", so that nothing is known of their spread"
    return Drawing(
        figure,
        pd.DataFrame(rows),
        [
            "Figure 7: training time by output source, relative to the same loss on fixed data, on Dolly; of "
            f"{EXCLUSIVELY_TIMED}. n = {_range(counts)} a bar{dots}.",
            *([spread_note(spreads)] if spreads else []),
            timing_note(run.record.environment for run in timed),
            *_missing(together, selection, "table2", index.preset),
        ],
    )


def ablation(index: RunIndex, name: str) -> Drawing:
    """An ablation of the appendix, the score against the option's value; Figure 8 is that of alpha."""
    table = ablations(index.preset)[name]
    selection, seeds = _with_shared_seeds(index.select(table))
    metric = metric_label("dolly")
    series: dict[str, _Series] = {}
    for column in table.columns:
        found = [(row, selection.runs[row.specs[column.group]]) for row in table.rows]
        series[column.name] = [
            (row, cell_of([run.score(column.sets) for run in runs], runs)) for row, runs in found if runs
        ]
    rows: list[dict[str, object]] = [
        {"series": column, "value": row.name, "mean": cell.mean, "sd": cell.sd, "n": len(cell.runs)}
        for column, cells in series.items()
        for row, cell in cells
    ]
    if len({row["value"] for row in rows}) < 2:
        _need([], name if name != "alpha" else "figures")
    figure, axes = plt.subplots(figsize=(COLUMN, 2.3))
    axes.set_ylabel(f"{metric} on Dolly")
    if values := [row.value for row in table.rows if row.value is not None]:
        _lines(axes, name, table, series, values)
    else:
        _bars(axes, table, series)
        # above the bars, none of which it may cover
        figure.legend(loc="outside upper right", ncols=len(table.columns))
    title = "Figure 8: " if name == "alpha" else "Appendix: "
    return Drawing(
        figure,
        pd.DataFrame(rows),
        [
            f"{title}{table.caption}; test {metric}, mean over {seeds}; bars: standard deviation.",
            *_missing(table, selection, name, index.preset),
        ],
    )


_Series = list[tuple[Row, CellStatistics]]


def _lines(axes: Axes, name: str, table: Table, series: Mapping[str, _Series], values: Sequence[float]) -> None:
    """An ablation whose rows have values: a line a column, named at its end where there are several."""
    ends: list[Label] = []
    for number, column in enumerate(table.columns):
        if cells := series[column.name]:
            # beside each other, where several series have the same value
            aside = number - (len(table.columns) - 1) / 2
            x = [_beside(name, row.value, aside) for row, _ in cells if row.value is not None]
            means, deviations, style = *_means(cells), look(3 * number)
            axes.errorbar(x, means, yerr=deviations, capsize=2, **style)
            ends.append(Label(x[-1], means[-1], column.label, style["color"]))
    axes.set_xlabel(VALUE_LABELS[name])
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


def _bars(axes: Axes, table: Table, series: Mapping[str, _Series]) -> None:
    """An ablation whose rows have names: a bar a row and column."""
    for number, column in enumerate(table.columns):
        if cells := series[column.name]:
            means, deviations = _means(cells)
            axes.bar(
                [table.rows.index(row) + 0.38 * (number - 0.5) for row, _ in cells],
                means,
                0.36,
                yerr=deviations,
                capsize=2,
                color=look(3 * number)["color"],
                hatch=HATCHES[number],
                edgecolor="white",
                label=column.label,
            )
    axes.set_xticks(range(len(table.rows)), [row.label for row in table.rows])
    axes.grid(axis="x", visible=False)


def _means(cells: _Series) -> tuple[list[float], list[float]]:
    """Means and standard deviations, 0 of one run."""
    return [cell.mean for _, cell in cells], [cell.sd or 0.0 for _, cell in cells]


def _with_shared_seeds(selection: Selection) -> tuple[Selection, str]:
    """The runs with the training seeds that all points share, so that they can be compared, and these in words.

    All runs where the points share fewer than two seeds and have more.
    """
    own = {spec: {run.seed for run in runs} for spec, runs in selection.runs.items() if runs}
    shared = set.intersection(*own.values()) if own else set()
    every = set.union(*own.values()) if own else set()
    if len(shared) < 2 and shared != every:
        return selection, f"the training seeds {selection.seed_list}, n = {_range(map(len, own.values()))} a point"
    kept = Selection(
        {spec: tuple(run for run in runs if run.seed in shared) for spec, runs in selection.runs.items()},
        tuple(
            replace(missing, seeds=seeds)
            for missing in selection.missing
            if (seeds := tuple(seed for seed in missing.seeds if seed in shared))
        ),
    )
    left = f"; further seeds of some points are left out: {', '.join(map(str, sorted(every - shared)))}"
    return kept, f"training seeds {kept.seed_list}, which all points share" + (left if every > shared else "")


def _beside(name: str, value: float, aside: float) -> float:
    return value * 1.12**aside if name in LOGARITHMIC else value + 0.03 * aside


@dataclass
class _ParetoPoint:
    """A method's score over training seeds and its seconds: of training over exclusively timed runs, and before it."""

    method: str
    seconds: float
    before: float
    score: float
    n: int
    sd: float | None
    timed: int
    fastest: float
    slowest: float
    on_front: bool = False


def pareto(index: RunIndex) -> Drawing:
    """Quality against training time for all methods; the front holds those that none beats in both."""
    table = tables(index.preset)["main"]
    selection = index.select(table)
    methods = _timed(table, selection)
    points = []
    for label, runs in methods.items():
        cell = cell_of([mean_of_sets(run.record.scores) for run in runs.scored], runs.scored)
        points.append(
            _ParetoPoint(
                method=label,
                seconds=runs.before + runs.seconds,
                before=runs.before,
                score=cell.mean,
                n=len(cell.runs),
                sd=cell.sd,
                timed=len(runs.each),
                fastest=runs.before + min(runs.each),
                slowest=runs.before + max(runs.each),
            )
        )
    _need(points, "main", EXCLUSIVELY_TIMED)
    best = -np.inf
    front = []
    for point in sorted(points, key=lambda p: (p.seconds, -p.score)):
        point.on_front = point.score > best
        if point.on_front:
            best = point.score
            front.append(point)
    figure, axes = plt.subplots(figsize=(PAGE, 3.4))
    axes.step([p.seconds for p in front], [p.score for p in front], where="post", color=FAINT, linewidth=1)
    for number, point in enumerate(points):
        style = look(number) | {"linestyle": "none"}
        axes.errorbar(
            point.seconds,
            point.score,
            xerr=[[point.seconds - point.fastest], [point.slowest - point.seconds]],
            yerr=point.sd,
            capsize=2,
            elinewidth=0.8,
            markersize=5,
            markerfacecolor=style["color"] if point.on_front else "white",
            **style,
        )
    axes.set_xscale("log")
    axes.set_xlim(right=1.3 * max(point.slowest for point in points))  # room for the name of the slowest
    plain_log(axes.xaxis, (1, 1.5, 2, 3, 5, 7))
    axes.set_xlabel("time of training and of what comes before it (s)")
    axes.set_ylabel(f"{metric_label('dolly')}, mean of the five sets")
    # a name may cover neither a point, nor what is drawn of its spread, nor the front
    taken = [(p.seconds, p.score + (p.sd or 0) * step / 4) for p in points for step in range(-4, 5)]
    for point in points:
        taken += [(float(x), point.score) for x in np.geomspace(point.fastest, point.slowest, 20)]
    for point, after in pairwise(front):
        taken += [(float(x), point.score) for x in np.geomspace(point.seconds, after.seconds, 40)]
    names = [Label(p.seconds, p.score, p.method, look(number)["color"]) for number, p in enumerate(points)]
    label_points(axes, names, taken)
    several = any(point.timed > 1 for point in points)
    spread = "horizontal bars: the fastest to the slowest" if several else "one a method"
    return Drawing(
        figure,
        pd.DataFrame(map(asdict, points)),
        [
            "Quality against time, all methods, instruction following. Filled: on the Pareto front (no "
            f"method is both faster and better; line). Training times are of {EXCLUSIVELY_TIMED}; {spread}. Vertical "
            "bars: standard deviation over training seeds.",
            _counted_times(methods),
            timing_note(run.record.environment for runs in methods.values() for run in runs.timed),
            *_missing(table, selection, "main", index.preset),
        ],
    )


def equal_budget(index: RunIndex) -> Drawing:
    """Best validation score that each method's full-length run has reached after so much wall-clock."""
    rows: list[dict[str, object]] = []
    metric = metric_label("dolly")
    table = tables(index.preset)["main"]
    selection = index.select(table)
    methods = _timed(table, selection)
    lines: dict[str, tuple[list[float], list[float]]] = {}
    bands: dict[str, list[float]] = {}
    for label, runs in methods.items():
        curves = [curve for run in runs.scored if (curve := validation_scores(run.record))]
        if not curves:
            continue
        total = max(run.record.training.steps for run in runs.scored)
        steps = sorted(set.intersection(*map(set, curves)))
        times = [runs.before + runs.seconds * step / total for step in steps]
        reached = [[max(curve[s] for s in steps if s <= step) for curve in curves] for step in steps]
        bests = [statistics.fmean(by_run) for by_run in reached]
        lines[label] = (times, bests)
        bands[label] = [statistics.stdev(by_run) if len(by_run) > 1 else 0.0 for by_run in reached]
        rows += [
            {"method": label, "step": s, "seconds": t, "best": b, "sd": sd, "n": len(curves)}
            for s, t, b, sd in zip(steps, times, bests, bands[label], strict=True)
        ]
    _need(rows, "main", EXCLUSIVELY_TIMED)
    columns = min(5, len(lines))
    height = -(-len(lines) // columns)
    figure, panels = plt.subplots(
        height, columns, figsize=(PAGE, 0.5 + 1.1 * height), sharex=True, sharey=True, squeeze=False
    )
    for axes, (label, line) in zip(panels.flat, lines.items(), strict=False):
        for other in lines.values():
            axes.step(*other, where="post", color="#cccccc", linewidth=0.7)
        axes.step(*line, where="post", color=COLOURS[0], marker="o", markersize=3, linewidth=1.5)
        seconds, bests = line
        low, high = ([b + sign * sd for b, sd in zip(bests, bands[label], strict=True)] for sign in (-1, 1))
        axes.fill_between(seconds, low, high, step="post", color=COLOURS[0], alpha=0.25, linewidth=0)
        axes.set_title(label)
    panels.flat[0].set_xscale("log")
    plain_log(panels.flat[0].xaxis, (1, 2, 4))
    for axes in panels.flat[len(lines) :]:
        axes.set_visible(False)
    for axes in panels.flat[len(lines) - columns : len(lines)]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    figure.supxlabel("time of training and of what comes before it (s)")
    figure.supylabel(f"best validation {metric} so far")
    return Drawing(
        figure,
        pd.DataFrame(rows),
        [
            "Quality over wall-clock, all methods, instruction following: a panel a method (blue), the others in grey. "
            f"Best validation {metric} so far, mean over training seeds with a band of one standard deviation, of the "
            "intermediate validations of full-length runs: their learning rate follows the schedule of the full "
            "length, so this is not the score of runs trained to a smaller budget, which may be higher.",
            f"A method's training time, the median of {EXCLUSIVELY_TIMED}, is spread evenly over its steps.",
            _counted_times(methods),
            timing_note(run.record.environment for runs in methods.values() for run in runs.timed),
            *_missing(table, selection, "main", index.preset),
        ],
    )


@dataclass(frozen=True)
class _TimedMethod:
    """A method's runs, and those of them with exclusive timing."""

    scored: tuple[Run, ...]
    timed: list[Run]

    @property
    def each(self) -> list[float]:
        """The training times in seconds."""
        return [training_seconds(run) for run in self.timed]

    @property
    def seconds(self) -> float:
        """Their median, as in tables: one slow run does not move it."""
        return statistics.median(self.each)

    @property
    def known_before(self) -> list[float]:
        """Seconds of what each run needs before its training; empty where a record does not say it."""
        before = [run.record.seconds_before for run in self.scored]
        known = [seconds for seconds in before if seconds is not None]
        return known if len(known) == len(before) else []

    @property
    def before(self) -> float:
        """Their mean, as in tables; 0 where it is not known."""
        return statistics.fmean(self.known_before) if self.known_before else 0.0


def _counted_times(methods: Mapping[str, _TimedMethod]) -> str:
    """What a caption says of the times of methods: what they count, and how many runs they are of."""
    by_count: dict[int, list[str]] = {}
    for label, runs in methods.items():
        by_count.setdefault(len(runs.timed), []).append(label)
    counts = "; ".join(f"{count} of {', '.join(by_count[count])}" for count in sorted(by_count, reverse=True))
    told = (
        "Counted: training and what a method needs before it (init student, the teacher's responses), which was "
        f"measured once, whatever else ran then. Timed runs: {counts}."
    )
    unknown = [label for label, runs in methods.items() if not runs.known_before]
    return f"{told} Not recorded, so left out, is what comes before {', '.join(unknown)}." if unknown else told


def _timed(table: Table, selection: Selection) -> dict[str, _TimedMethod]:
    """By label, the rows of a table that have a run with exclusive timing."""
    runs_of = {row.label: selection.runs[row.specs["dolly"]] for row in table.rows}
    timed = exclusively_timed(runs_of)
    return {label: _TimedMethod(runs_of[label], list(runs)) for label, runs in timed.items() if runs}


def _need(rows: Sequence[object], suite: str, runs: str = "runs") -> None:
    """Raises NothingToDraw where there are no rows."""
    if not rows:
        raise NothingToDraw(f"no {runs}: bench suite {suite}")


def _missing(table: Table, selection: Selection, suite: str, preset: str) -> list[str]:
    """What a caption says of runs that are not recorded."""
    lost = {missing.spec: len(missing.seeds) for missing in selection.missing}
    if not lost:
        return []
    groups = {column.group: column.label for column in reversed(table.columns)}
    names = [
        f"{row.label} ({groups[group]})" if len(groups) > 1 else row.label
        for row in table.rows
        for group, spec in row.specs.items()
        if spec in lost
    ]
    missing = sum(lost.values())
    planned = missing + len(selection.records)
    command = f"bench suite {suite}" + (f" --preset {preset}" if preset != "tiny" else "")
    return [f"Missing: {missing} of {planned} runs, of {', '.join(names)}; made by: {command}"]


def _range(counts: Iterable[int]) -> str:
    found = sorted(set(counts))
    return str(found[0]) if len(found) == 1 else f"{found[0]}–{found[-1]}"
