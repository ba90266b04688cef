"""How figures look: a paper's column, fonts that are read there, colours that everybody can tell apart."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bench.files import write_bytes

COLUMN = 3.3  # inches: a column of ICML's two
PAGE = 6.75
FORMATS = ("svg", "pdf", "png")
# Okabe and Ito's palette without yellow, which fades on white; lines differ in marker and dash too, for print in grey
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p", "h", "d")
DASHES = ("-", "--", "-.", ":")
HATCHES = ("", "///", "...", "xxx")

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7,
    "axes.labelsize": 7,
    "axes.titlesize": 7.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "hatch.linewidth": 0.5,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "distillm-bench",
}


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw in this style within the block."""
    with plt.rc_context(_STYLE):
        yield


def look(number: int) -> dict[str, Any]:
    """Colour, marker and dash of the n-th line."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
    }


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as SVG, PDF and PNG, without the date, so that equal figures are equal files.

    Raises:
        BenchError: the folder cannot be written.
    """
    paths = []
    for form in FORMATS:
        buffer = io.BytesIO()
        date = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}[form]
        figure.savefig(buffer, format=form, metadata=date)
        paths.append(folder / f"{name}.{form}")
        write_bytes(paths[-1], buffer.getvalue())
    plt.close(figure)
    return paths
