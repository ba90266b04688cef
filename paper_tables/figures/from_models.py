"""Figures 1, 2 and 3 and the check of the theory, drawn from model probes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from bench.system.manifest import Environment, Plain
from paper_tables.figures.labels import Label, label_ends, label_points
from paper_tables.figures.style import (
    COLOURS,
    COLUMN,
    FAINT,
    FONT,
    PAGE,
    Drawing,
    letter,
    look,
    plain_log,
    ticks_at,
    timing_note,
)
from paper_tables.numbers.probes import CoefficientQuantiles, Coefficients, GenerationCost, ModelProbe, NoisyOutput
from paper_tables.paper.methods import METHOD_LABELS, SKEWED_LOSSES

EXAMPLES = 2  # of each kind in Figure 1
NAMES = "ABCD"
LOW, HIGH = "low ROUGE-L, yet low loss", "high ROUGE-L, yet high loss"
LETTERS = 70  # on a line of an example: wide ones fit, too
LINE = 1.2 * FONT / 72  # inches from one line of an example to the next
NEAR_ZERO = 0.01  # skews are drawn in proportion to their logarithm from here on
SHOWN_ALPHAS = (0, 0.01, 0.02, 0.05, 0.1, 0.3, 0.9)
PLUG_IN_SIZE = 64  # tokens in each empirical distribution of Figure 3


def noisy_outputs(probe: ModelProbe[list[NoisyOutput]]) -> Drawing:
    """Figure 1: student outputs on which the teacher's loss misleads, and how common they are.

    The examples are chosen by rule: of the quarter of outputs with the lowest ROUGE-L, those with the lowest teacher
    loss; of the quarter with the highest ROUGE-L, those with the highest teacher loss.
    """
    frame = _frame(probe.found).sort_values("example", kind="stable", ignore_index=True)
    low, high = frame["rouge_l"].quantile(0.25), frame["rouge_l"].quantile(0.75)
    groups = {
        LOW: frame[frame["rouge_l"] <= low].nsmallest(EXAMPLES, "teacher_loss"),
        HIGH: frame[frame["rouge_l"] >= high].nlargest(EXAMPLES, "teacher_loss"),
    }
    frame["shown"] = ""
    for kind, group in groups.items():
        frame.loc[group.index, "shown"] = kind
    written = [line for kind, group in groups.items() for line in _examples(kind, group)]
    figure, (points, texts) = plt.subplots(1, 2, figsize=(PAGE, LINE * len(written) + 0.5), width_ratios=(1, 1.95))
    points.scatter(frame["teacher_loss"], frame["rouge_l"], s=6, color=FAINT, linewidths=0)
    for name, limit, side in (("highest\nquarter", high, "bottom"), ("lowest\nquarter", low, "top")):
        points.axhline(limit, color="black", linewidth=0.6, linestyle=":")
        points.annotate(name, (1.02, limit), xycoords=("axes fraction", "data"), va=side)
    names, labels = iter(NAMES), []
    for number, group in enumerate(groups.values()):
        style = look(number)
        points.scatter(group["teacher_loss"], group["rouge_l"], s=24, color=style["color"], marker=style["marker"])
        at = zip(group["teacher_loss"], group["rouge_l"], strict=True)
        labels += [Label(x, y, next(names), style["color"]) for x, y in at]
    points.set_xlabel("teacher's loss on the output (nats/token)")
    points.set_ylabel("ROUGE-L of the output")
    label_points(points, labels, [(label.x, label.y) for label in labels])
    texts.axis("off")
    for number, (line, weight) in enumerate(written):
        y = 1 - number / len(written)
        shown = texts.text(0, y, line, weight=weight, va="top", transform=texts.transAxes, parse_math=False)
        shown.set_in_layout(False)
    correlation = frame["teacher_loss"].corr(frame["rouge_l"], method="spearman")
    return Drawing(
        figure,
        frame,
        [
            f"Figure 1: outputs of the SFT student to {len(frame)} test prompts, the teacher's loss on them and "
            f"their ROUGE-L against the reference (Spearman correlation {correlation:.2f}).",
            f"Examples by rule: of the quarter lowest in ROUGE-L the {EXAMPLES} of lowest teacher loss; of the quarter "
            f"highest in ROUGE-L the {EXAMPLES} of highest teacher loss.",
        ],
    )


def _examples(kind: str, group: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Lines of text, with their weight."""
    names = NAMES[:EXAMPLES] if kind == LOW else NAMES[EXAMPLES:]
    yield kind, "bold"
    for name, (_, row) in zip(names, group.iterrows(), strict=False):
        yield f"{name}: loss {row['teacher_loss']:.2f}, ROUGE-L {row['rouge_l']:.0f}", "bold"
        prompt = " ".join(str(row["prompt"]).removesuffix("=>").split())
        for what, text in (("prompt", prompt), ("reference", row["reference"]), ("output", row["output"] or "(empty)")):
            for line in textwrap.wrap(
                f"{what}: {text}", LETTERS, max_lines=2, placeholder=" …", subsequent_indent="   "
            ):
                yield line, "normal"
    yield "", "normal"


def cost(probe: ModelProbe[list[GenerationCost]]) -> Drawing:
    """Figure 2: the share of training time that generating student outputs takes, by how often and how long."""
    rows = []
    figure, axes = plt.subplots(figsize=(COLUMN, 2.3))
    shares = [i / 10 for i in range(11)]
    ends = []
    for number, row in enumerate(probe.found):
        spent = [f * row.generation_seconds for f in shares]
        y = [100 * s / (row.step_seconds + s) for s in spent]
        times = [1 + s / row.step_seconds for s in spent]
        style = look(number)
        axes.plot(shares, y, markevery=2, **style)
        ends.append(Label(1, y[-1], f"{row.length} tokens", style["color"]))
        rows += [
            row.model_dump() | {"frequency": f, "share": a, "relative_time": t}
            for f, a, t in zip(shares, y, times, strict=True)
        ]
    axes.set_xlabel("share of steps whose responses are generated")
    axes.set_ylabel("generation, % of training time")
    axes.set_ylim(bottom=0)
    label_ends(axes, ends)
    longest = probe.found[-1]
    relative = 1 + longest.generation_seconds / longest.step_seconds
    share = 100 * (1 - 1 / relative)
    return Drawing(
        figure,
        pd.DataFrame(rows),
        [
            "Figure 2: share of training time that generation takes, by its frequency and the length of responses; "
            "from the median times of a training step (SRKL) and of generating its batch.",
            f"On-policy, {longest.length} tokens: {share:.0f} % of the time, {relative:.1f} times that of fixed data.",
            timing_note([probe.environment]),
            *_other_load(probe.environment),
        ],
    )


def gradients(probe: ModelProbe[Coefficients]) -> Drawing:
    """Figure 3: gradient coefficients of SKL and SRKL by skew, and the normalised error of their estimates."""
    found = probe.found
    figure, panels = plt.subplots(2, 2, figsize=(PAGE, 4.4))
    panels[1, 1].sharex(panels[1, 0])
    for number, loss in enumerate(SKEWED_LOSSES):
        axes = panels[0, number]
        _coefficients(axes, [row for row in found.coefficients if row.loss == loss])
        axes.set_title(letter(number, f"{METHOD_LABELS[loss]}: gradient coefficients"))
    panels[0, 0].set_yscale("log")
    plain_log(panels[0, 0].yaxis)
    panels[0, 1].set_yscale("symlog", linthresh=0.1)
    ticks_at(panels[0, 1].yaxis, (-10, -1, -0.1, 0, 0.1, 1, 10))
    one_token = _frame([row for row in found.errors if row.n == 1])
    plug_in = _frame([row for row in found.plug_in if row.n == PLUG_IN_SIZE])
    errors = {
        "one token from p (SKL) or q (SRKL), p and q known": one_token,
        f"plug-in, {PLUG_IN_SIZE} tokens from p and from q": plug_in,
    }
    best = []
    for axes, number, (title, rows) in zip(panels[1], (2, 3), errors.items(), strict=True):
        ends = []
        for series, loss in enumerate(SKEWED_LOSSES):
            label = METHOD_LABELS[loss]
            own = _over_students(rows[rows["loss"] == loss], "alpha", "normalised")
            style = look(2 * series)
            axes.plot(own.index, own["mean"], **style)
            axes.vlines(own.index, own["min"], own["max"], colors=style["color"])
            ends.append(Label(own.index[-1], own["mean"].iloc[-1], label, style["color"]))
            best.append(f"({chr(ord('a') + number)}) {label} at α = {own['mean'].idxmin():g}")
        axes.set_xscale("symlog", linthresh=NEAR_ZERO, linscale=0.4)
        ticks_at(axes.xaxis, SHOWN_ALPHAS)
        axes.set_yscale("log")
        plain_log(axes.yaxis, (1, 3))
        axes.set_xlabel("skew α")
        axes.set_ylabel("squared error / squared divergence")
        axes.set_title(letter(number, title))
        label_ends(axes, ends)
    frame = pd.concat(
        [
            _frame(found.coefficients).assign(what="coefficient"),
            one_token.assign(what="error"),
            plug_in.assign(what="plug-in"),
        ]
    )
    return Drawing(
        figure,
        frame,
        [
            f"Figure 3: (a, b) coefficients of the gradient at sampled tokens of {found.positions} response "
            f"positions, teacher against {_students(found)}. Boxes: quartiles; whiskers: 5 % and 95 %; circle: the "
            "largest; bar: the bound, (1-α)/α for SKL and -log α for SRKL, none at α = 0.",
            "(c) Expected squared error of the divergence estimated from one sampled token with both distributions "
            f"known, over the squared divergence. (d) The same of D(p_n, q_n) with the empirical distributions of "
            f"n = {PLUG_IN_SIZE} tokens from the teacher and as many from the student; none at α = 0, where it is "
            "infinite. Which of the two the paper plots we do not know; we presume (d) (low confidence).",
            "Lines of (c, d): the mean over the students; bars: their range. "
            f"Lowest mean of those shown: {'; '.join(best)}.",
        ],
    )


def _frame(rows: Sequence[Plain]) -> pd.DataFrame:
    """Rows of a probe, in the names of its file."""
    return pd.DataFrame([row.model_dump(by_alias=True) for row in rows])


def _over_students(rows: pd.DataFrame, by: str, value: str) -> pd.DataFrame:
    """Mean, min and max of a value over the students, by `by`."""
    return rows.groupby(by)[value].agg(["mean", "min", "max"])


def _students(found: Coefficients) -> str:
    *others, last = map(str, found.students)
    return f"the init students of training seeds {', '.join(others)} and {last}"


def _coefficients(axes: Axes, rows: list[CoefficientQuantiles]) -> None:
    boxes = [
        {
            "whislo": row.percentile_5,
            "q1": row.lower_quartile,
            "med": row.median,
            "q3": row.upper_quartile,
            "whishi": row.percentile_95,
            "label": f"{row.alpha:g}",
        }
        for row in rows
    ]
    places = range(1, len(rows) + 1)
    axes.bxp(boxes, showfliers=False, medianprops={"color": COLOURS[3]}, widths=0.5)
    bounds = [(place, row.bound) for place, row in zip(places, rows, strict=True) if row.bound is not None]
    axes.plot(*zip(*bounds, strict=True), "_", markersize=19, markeredgewidth=1.2, color="black", label="bound")
    # hollow, so that the bound it all but reaches is seen through it
    axes.plot(
        places,
        [row.largest for row in rows],
        "o",
        color=COLOURS[0],
        markerfacecolor="none",
        markersize=5,
        label="largest",
    )
    axes.grid(axis="x", visible=False)
    axes.set_xlabel("skew α")
    axes.set_ylabel("gradient coefficient")
    axes.legend()


def theory(probe: ModelProbe[Coefficients]) -> Drawing:
    """Errors of two estimates of the divergence against sample size, a panel a skew, and the bound of one of them."""
    found = probe.found
    estimates = {"mean": _frame(found.errors), "plug-in": _frame(found.plug_in)}
    alphas = sorted({row.alpha for row in found.errors})
    figure, panels = plt.subplots(3, -(-len(alphas) // 3), figsize=(PAGE, 5.2), sharex=True, sharey=True)
    kinds = {"mean": ("mean of log-ratios, p and q known", "-"), "plug-in": ("plug-in", "--")}
    for number, (axes, alpha) in enumerate(zip(panels.flat, alphas, strict=False)):
        for kind, (name, dash) in kinds.items():
            rows = estimates[kind]
            for series, loss in enumerate(SKEWED_LOSSES):
                means = _over_students(rows[(rows["loss"] == loss) & (rows["alpha"] == alpha)], "n", "sampled")["mean"]
                style = look(2 * series + (kind == "plug-in")) | {"linestyle": dash}
                axes.plot(means.index, means, label=f"{METHOD_LABELS[loss]}, {name}", **style)
        bounds = {row.n: row.bound for row in found.errors if row.alpha == alpha and row.bound}
        axes.plot(list(bounds), list(bounds.values()), ":", color="black", label="bound of the mean")
        axes.set_title(letter(number, f"α = {alpha:g}" + ("" if alpha else " (no bound, no plug-in)")))
    first = panels.flat[0]
    first.set_xscale("log")
    ticks_at(first.xaxis, sorted({row.n for row in found.errors}))
    first.set_yscale("log")
    plain_log(first.yaxis)
    for axes in panels[-1]:
        axes.set_xlabel("sampled tokens n")
    figure.supylabel("mean squared error of the estimate (nats²)")
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    kept = all(row.sampled <= row.bound for row in found.errors if row.bound is not None)
    bounded = all(row.largest <= row.bound * (1 + 1e-9) for row in found.coefficients if row.bound is not None)
    return Drawing(
        figure,
        pd.concat(rows.assign(estimate=kind) for kind, rows in estimates.items()),
        [
            "Estimation error of SKL and SRKL by sample size n and skew α, at "
            f"{found.positions} positions of real responses: mean squared error of two estimates, mean over "
            f"{_students(found)}.",
            "Solid: the mean of log-ratios over n sampled tokens with p and q known (Monte Carlo). Its bound (dotted), "
            "(log² α + 4/e²)/n for α > 0, is an elementary one of our own; like the error itself it decays as 1/n by "
            "construction. It is not the bound of the paper's appendix B, whose text we do not have.",
            "Dashed: plug-in, the divergence of the empirical distributions p_n, q_n of n tokens from the teacher and "
            "n from the student. We presume this to be the setting of appendix B (low confidence); no bound is shown.",
            f"Every Monte-Carlo error lies below its bound: {'yes' if kept else 'NO'}. Every gradient coefficient lies "
            f"below its bound for α > 0: {'yes' if bounded else 'NO'}.",
        ],
    )


def _other_load(environment: Environment) -> list[str]:
    load = environment.other_load or 0.0
    return [f"Measured while other processes kept {load:.1f} cores busy."] if load > 0.1 else []
