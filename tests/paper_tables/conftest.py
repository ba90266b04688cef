"""The command as an installed package would have it, a folder with runs for table 1, and how figures are looked at."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from click.testing import Result
from matplotlib.figure import Figure
from matplotlib.text import Text

import bench.cli.plugins
from paper_tables.figures.style import paper_style
from tests.conftest import invoke
from tests.records import write_record

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
DECLARED = PROJECT["entry-points"][bench.cli.plugins.ENTRY_POINTS]
MEANS = {"kld": 30.0, "rkld": 31.0, "jsd": 24.0, "skl": 33.0}


@pytest.fixture
def command(monkeypatch) -> Callable[..., Result]:
    """`bench ARGUMENTS` with the commands that pyproject.toml declares, installed anew or not."""
    return declared(monkeypatch)


def declared(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The same for as long as a patch lasts."""
    points = [EntryPoint(name, value, bench.cli.plugins.ENTRY_POINTS) for name, value in DECLARED.items()]
    monkeypatch.setattr(bench.cli.plugins, "entry_points", lambda group: points)

    def run(*arguments: object) -> Result:
        return invoke(*(str(argument) for argument in arguments))

    return run


@pytest.fixture
def out(tmp_path) -> Path:
    """Three training seeds of four of table 1's five losses; srkl is missing."""
    return write_table_1(tmp_path / "out")


def write_table_1(folder: Path) -> Path:
    """Write these records below a folder."""
    for method, mean in MEANS.items():
        for seed in (10, 20, 30):
            write_record(folder, method, seed=seed, mean=mean, init="sft")
    return folder


@pytest.fixture
def style() -> Iterator[None]:
    """Figures as `write_figures` has them drawn; none is left open."""
    with paper_style():
        yield
    plt.close("all")


@pytest.fixture
def check_legible(monkeypatch) -> Callable[[Figure], None]:
    """No letter of a figure is smaller than can be read, cut at an edge, or on top of another."""
    drawn = []
    draw = Text.draw
    monkeypatch.setattr(Text, "draw", lambda text, renderer: (drawn.append(text), draw(text, renderer)))

    def check(figure):
        drawn.clear()
        figure.canvas.draw()
        page = figure.bbox
        boxes = []
        for text in drawn:
            if not text.get_visible() or not text.get_text().strip():
                continue
            assert text.get_fontsize() >= 7, text
            assert not text.get_parse_math() or "$" not in text.get_text(), f"exponents would be smaller: {text}"
            box = Text.get_window_extent(text)
            assert all(page.padded(1).contains(*corner) for corner in box.corners()), f"cut: {text}"
            boxes.append((text, box.padded(-1, -2)))  # lines of text are set closer than their boxes are high
        assert len(boxes) > 5
        for (one, box), (other, its_box) in combinations(boxes, 2):
            assert not box.overlaps(its_box), (one, other)

    return check
