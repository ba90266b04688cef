"""What a figure is, and how it looks: a paper's column, fonts read there, colours that everybody can tell apart."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, LogLocator, NullFormatter, NullLocator

from bench.system.errors import BenchError
from bench.system.files import write_bytes
from bench.system.manifest import Environment

COLUMN = 3.3  # inches: a column of ICML's two
PAGE = 6.75
FONT = 7  # points, of every letter: the smallest that is still read in print
FAINT = "#999999"
FIGURE_FORMATS = ("svg", "pdf", "png")
# Okabe and Ito's palette without yellow, which fades on white; in an order in which neighbours differ in grey as well
COLOURS = ("#0072B2", "#E69F00", "#000000", "#D55E00", "#56B4E9", "#009E73", "#CC79A7")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p", "h", "d")
DASHES = ("-", "--", "-.", (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5, 1, 1.5)))
HATCHES = ("", "///", "...", "xxx")

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": FONT,
    "axes.labelsize": FONT,
    "axes.titlesize": FONT,
    "xtick.labelsize": FONT,
    "ytick.labelsize": FONT,
    "legend.fontsize": FONT,
    "legend.title_fontsize": FONT,
    "figure.labelsize": FONT,
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


@dataclass(frozen=True)
class Drawing:
    """A figure with the data it shows.

    Attributes:
        figure: to be saved.
        frame: every number in it, tidy.
        caption: what it shows and how it came about.
    """

    figure: Figure
    frame: pd.DataFrame
    caption: list[str] = field(default_factory=list)


class NothingToDraw(BenchError):
    """The runs that a figure needs are not recorded; says what makes them."""


def timing_note(environments: Iterable[Environment]) -> str:
    """The sentence on what times were measured on."""
    return f"Times measured on {'; '.join(sorted({environment.hardware for environment in environments}))}."


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw in this style within the block."""
    with plt.rc_context(_STYLE):
        yield


def look(number: int) -> dict[str, Any]:
    """Colour, marker and dash of the n-th line, which differ in each, for print in grey."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
    }


def letter(number: int, title: str) -> str:
    """The title of the n-th panel of a figure."""
    return f"({chr(ord('a') + number)}) {title}"


def plain_log(axis: Axis, subs: Sequence[float] = (1.0,)) -> None:
    """Plain numbers on an axis that is logarithmic, at `subs` times the powers of ten: exponents would be too small."""
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def ticks_at(axis: Axis, values: Sequence[float], names: Sequence[str] = ()) -> None:
    """Plain numbers, or these names, at some values of an axis and nowhere else."""
    axis.set_major_locator(FixedLocator(values))
    axis.set_major_formatter(FixedFormatter(names) if names else "{x:g}")
    axis.set_minor_locator(NullLocator())


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as SVG, PDF and PNG, without the date, so that equal figures are equal files.

    Raises:
        BenchError: the folder cannot be written.
    """
    paths = []
    for form in FIGURE_FORMATS:
        buffer = io.BytesIO()
        date = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}[form]
        figure.savefig(buffer, format=form, metadata=date)
        paths.append(folder / f"{name}.{form}")
        write_bytes(paths[-1], buffer.getvalue())
    plt.close(figure)
    return paths
