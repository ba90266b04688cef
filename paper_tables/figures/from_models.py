"""Figures 1, 2 and 3 and the check of the theory, drawn from measurements on the models."""

from __future__ import annotations

import textwrap
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from paper_tables.figures.drawn import Drawn
from paper_tables.figures.style import COLUMN, PAGE, look

EXAMPLES = 2  # of each kind in Figure 1
LOSSES = {"skl": "SKL", "srkl": "SRKL"}


def noisy_outputs(record: dict[str, Any]) -> Drawn:
    """Figure 1: student outputs on which the teacher's loss misleads, and how common they are.

    The examples are chosen by rule: of the quarter of outputs with the lowest ROUGE-L, those with the lowest teacher
    loss; of the quarter with the highest ROUGE-L, those with the highest teacher loss.
    """
    frame = pd.DataFrame(record["found"]).sort_values("example", kind="stable", ignore_index=True)
    low, high = frame["rouge_l"].quantile(0.25), frame["rouge_l"].quantile(0.75)
    wrong = frame[frame["rouge_l"] <= low].nsmallest(EXAMPLES, "teacher_loss")
    right = frame[frame["rouge_l"] >= high].nlargest(EXAMPLES, "teacher_loss")
    frame["shown"] = ""
    frame.loc[wrong.index, "shown"] = "wrong, yet low loss"
    frame.loc[right.index, "shown"] = "right, yet high loss"
    figure, (points, texts) = plt.subplots(1, 2, figsize=(PAGE, 2.9), width_ratios=(1, 1.6))
    points.scatter(frame["teacher_loss"], frame["rouge_l"], s=5, color="#999999", linewidths=0)
    for number, group in enumerate((wrong, right)):
        style = look(number)
        points.scatter(group["teacher_loss"], group["rouge_l"], s=28, color=style["color"], marker=style["marker"])
    points.set_xlabel("teacher's loss on the output (nats/token)")
    points.set_ylabel("ROUGE-L of the output")
    texts.axis("off")
    y = 1.0
    for number, (kind, group) in enumerate((("wrong, yet low loss", wrong), ("right, yet high loss", right))):
        style = look(number)
        texts.text(0, y, kind, color=style["color"], fontweight="bold", fontsize=7, va="top", transform=texts.transAxes)
        y -= 0.06
        for _, row in group.iterrows():
            y = _example(texts, row, y)
        y -= 0.01
    correlation = frame["teacher_loss"].corr(frame["rouge_l"], method="spearman")
    return Drawn(
        figure,
        frame,
        [
            f"Figure 1: outputs of the fine-tuned student to {len(frame)} test prompts, the teacher's loss on them and "
            f"their ROUGE-L against the reference (Spearman correlation {correlation:.2f}).",
            f"Examples by rule: of the quarter lowest in ROUGE-L the {EXAMPLES} of lowest teacher loss; of the quarter "
            f"highest in ROUGE-L the {EXAMPLES} of highest teacher loss.",
        ],
    )


def _example(axes: Any, row: pd.Series, y: float) -> float:
    prompt = " ".join(str(row["prompt"]).removesuffix("=>").split())
    parts = (("prompt", prompt), ("reference", row["reference"]), ("output", row["output"] or "(empty)"))
    lines = [f"loss {row['teacher_loss']:.2f}, ROUGE-L {row['rouge_l']:.0f}"]
    for name, text in parts:
        lines += textwrap.wrap(f"{name}: {text}", 88, max_lines=2, placeholder=" …", subsequent_indent="   ")
    axes.text(0, y, "\n".join(lines), fontsize=5.2, va="top", transform=axes.transAxes, parse_math=False)
    return y - 0.055 * len(lines) - 0.02


def cost(record: dict[str, Any]) -> Drawn:
    """Figure 2: the share of training time that generating student outputs takes, by how often and how long."""
    rows = []
    figure, axes = plt.subplots(figsize=(COLUMN, 2.3))
    shares = [i / 10 for i in range(11)]
    for number, row in enumerate(record["found"]):
        spent = [f * row["generation_seconds"] for f in shares]
        y = [100 * s / (row["step_seconds"] + s) for s in spent]
        times = [1 + s / row["step_seconds"] for s in spent]
        axes.plot(shares, y, label=f"{row['length']} tokens", markevery=2, **look(number))
        rows += [
            row | {"frequency": f, "share": a, "relative_time": t} for f, a, t in zip(shares, y, times, strict=True)
        ]
    axes.set_xlabel("share of steps whose responses are generated")
    axes.set_ylabel("generation, % of training time")
    axes.set_ylim(bottom=0)
    axes.legend(title="responses of")
    longest = record["found"][-1]
    times = 1 + longest["generation_seconds"] / longest["step_seconds"]
    share = 100 * (1 - 1 / times)
    return Drawn(
        figure,
        pd.DataFrame(rows),
        [
            "Figure 2: share of training time that generation takes, by its frequency and the length of responses; "
            "from the median times of a training step (SRKL) and of generating its batch.",
            f"On-policy, {longest['length']} tokens: {share:.0f} % of the time, {times:.1f} times that of fixed data.",
            *_shared(record),
        ],
    )


def gradients(record: dict[str, Any]) -> Drawn:
    """Figure 3: gradient coefficients of SKL and SRKL by skew, and the normalised error of their estimates."""
    found = record["found"]
    figure, panels = plt.subplots(1, 3, figsize=(PAGE, 2.2))
    for axes, loss in zip(panels, LOSSES, strict=False):
        rows = [row for row in found["coefficients"] if row["loss"] == loss]
        boxes = [
            {
                "whislo": row["q0.05"],
                "q1": row["q0.25"],
                "med": row["q0.5"],
                "q3": row["q0.75"],
                "whishi": row["q0.95"],
                "label": f"{row['alpha']:g}",
            }
            for row in rows
        ]
        axes.bxp(boxes, showfliers=False, medianprops={"color": look(1)["color"]}, widths=0.6)
        bounds = [(i + 1, row["bound"]) for i, row in enumerate(rows) if row["bound"] is not None]
        axes.plot(*zip(*bounds, strict=True), linestyle="none", marker="_", markersize=12, color="black", label="bound")
        axes.plot(range(1, len(rows) + 1), [r["q1"] for r in rows], "x", color=look(0)["color"], label="largest")
        axes.set_yscale("log" if loss == "skl" else "linear")
        axes.set_xlabel("skew α")
        axes.set_ylabel("gradient coefficient")
        axes.set_title(LOSSES[loss])
        axes.legend()
    for number, (loss, label) in enumerate(LOSSES.items()):
        rows = [row for row in found["errors"] if row["loss"] == loss and row["n"] == 1]
        panels[2].plot([r["alpha"] for r in rows], [r["normalised"] for r in rows], label=label, **look(number))
    panels[2].set_yscale("log")
    panels[2].set_xlabel("skew α")
    panels[2].set_ylabel("normalised L2 error")
    panels[2].set_title("estimate from one sample")
    panels[2].legend()
    frame = pd.concat(
        [
            pd.DataFrame(found["coefficients"]).assign(what="coefficient"),
            pd.DataFrame([row for row in found["errors"] if row["n"] == 1]).assign(what="error"),
        ]
    )
    best = {
        label: min((r for r in found["errors"] if r["loss"] == loss and r["n"] == 1), key=lambda r: r["normalised"])
        for loss, label in LOSSES.items()
    }
    return Drawn(
        figure,
        frame,
        [
            f"Figure 3: coefficients of the gradient at sampled tokens of {found['positions']} response positions, "
            "teacher against init student (boxes: quartiles; whiskers: 5 % and 95 %; largest of all; bound: (1-α)/α "
            "for SKL, -log α for SRKL, none at α = 0); and the expected squared error of the divergence estimated from "
            "one sampled token, over the squared divergence. Lowest error at "
            + ", ".join(f"α = {row['alpha']:g} ({label})" for label, row in best.items())
            + f" of {len({row['alpha'] for row in found['errors']})} values.",
        ],
    )


def theory(record: dict[str, Any]) -> Drawn:
    """The numerical check of appendix B: the error of the estimate against sample size, beside its bound."""
    found = record["found"]
    figure, panels = plt.subplots(1, 2, figsize=(PAGE, 2.4), sharey=True)
    for axes, (loss, label) in zip(panels, LOSSES.items(), strict=True):
        for number, alpha in enumerate(sorted({row["alpha"] for row in found["errors"]})):
            rows = [row for row in found["errors"] if (row["loss"], row["alpha"]) == (loss, alpha)]
            style = look(number)
            n = [row["n"] for row in rows]
            axes.plot(n, [r["sampled"] for r in rows], label=f"{alpha:g}", **style)
            if rows[0]["bound"] is not None:
                axes.plot(n, [r["bound"] for r in rows], color=style["color"], linestyle=":", linewidth=0.8)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("sampled tokens n")
        axes.set_title(label)
    panels[0].set_ylabel("squared error of the estimate")
    panels[1].legend(title="skew α", ncols=2)
    kept = all(row["sampled"] <= row["bound"] for row in found["errors"] if row["bound"] is not None)
    largest = all(row["q1"] <= row["bound"] * (1 + 1e-9) for row in found["coefficients"] if row["bound"] is not None)
    return Drawn(
        figure,
        pd.DataFrame(found["errors"]),
        [
            "Appendix B, numerically: mean squared error of the divergence estimated from n sampled tokens, at "
            f"{found['positions']} positions of real responses (lines), and the bound (log² α + 4/e²)/n (dotted; an "
            "elementary one of this project, for α > 0).",
            f"Every error lies below its bound: {'yes' if kept else 'NO'}. Every gradient coefficient lies below its "
            f"bound for α > 0: {'yes' if largest else 'NO'}.",
        ],
    )


def _shared(record: dict[str, Any]) -> list[str]:
    load = record["environment"]["other_load"]
    return [f"Measured while other processes kept {load:.1f} cores busy."] if load > 0.1 else []
