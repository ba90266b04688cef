"""Names written beside lines and points, where they cover nothing: read without going back and forth to a legend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text
from numpy.typing import NDArray

from paper_tables.figures.style import FONT

EDGE = 3  # points that a name keeps from the frame


@dataclass(frozen=True)
class Label:
    """Words for a point, in data coordinates; the colour is that of the line to it."""

    x: float
    y: float
    text: str
    colour: str


def label_ends(axes: Axes, labels: Sequence[Label]) -> None:
    """Name lines where they end, to the right of the axes: as high as they end, or as near as the other names let."""
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    point = axes.figure.dpi / 72
    ordered = sorted(labels, key=lambda label: label.y)
    ends = [axes.transData.transform((label.x, label.y))[1] / point for label in ordered]
    for label, end, at in zip(ordered, ends, _apart(ends, 1.25 * FONT), strict=True):
        axes.annotate(
            label.text,
            (label.x, label.y),
            xytext=(9, at - end),
            textcoords="offset points",
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": label.colour, "shrinkA": 0, "shrinkB": 3},
        )


def _apart(places: Sequence[float], gap: float) -> list[float]:
    """Ascending places moved so that they lie a gap apart, those that touch as a block around their middle."""
    blocks: list[list[float]] = []
    for place in places:
        blocks.append([place])
        while len(blocks) > 1 and _start(blocks[-1], gap) < _start(blocks[-2], gap) + gap * len(blocks[-2]):
            last = blocks.pop()
            blocks[-1] += last
    return [_start(block, gap) + gap * number for block in blocks for number in range(len(block))]


def _start(block: Sequence[float], gap: float) -> float:
    return sum(block) / len(block) - gap * (len(block) - 1) / 2


def label_points(axes: Axes, labels: Sequence[Label], taken: Sequence[tuple[float, float]]) -> None:
    """Name points beside them: in the nearest place that covers no other name and nothing `taken`, nearest its point.

    Args:
        axes: where the points are, drawn already and with its final limits.
        labels: of the points.
        taken: data coordinates of what no name may cover: the points themselves, their error bars.
    """
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    point = axes.figure.dpi / 72
    dots = axes.transData.transform(np.array(taken)) / point
    frame = axes.get_window_extent()
    room = (frame.x0 / point + EDGE, frame.y0 / point + EDGE, frame.x1 / point - EDGE, frame.y1 / point - EDGE)
    named = [tuple(axes.transData.transform((label.x, label.y)) / point) for label in labels]
    boxes: list[_Box] = []
    for label in sorted(labels, key=lambda one: (one.y, one.x), reverse=True):
        x, y = axes.transData.transform((label.x, label.y)) / point
        text = axes.annotate(
            label.text,
            (label.x, label.y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="left",
            va="center",
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": label.colour, "shrinkA": 1, "shrinkB": 3},
        )
        extent = Text.get_window_extent(text)  # without the line to the point
        size = (extent.width / point, extent.height / point)

        def cost(box: _Box, x: float = x, y: float = y) -> tuple[int, float]:
            own = _distance(box, x, y)
            nearer = sum(_distance(box, *other) < own for other in named)
            return _covered(box, boxes, dots, room) + 10 * nearer, own

        best = min(_places(x, y, *size), key=cost)
        boxes.append(best)
        text.set_position((best[0] - x, (best[1] + best[3]) / 2 - y))


_Box = tuple[float, float, float, float]


def _places(x: float, y: float, width: float, height: float) -> Iterator[_Box]:
    """Boxes for a name around a point, in points: to its right and left, at more and more distance."""
    for aside in (6, 14, 24, 36, 50, 66):
        for up in (0, *(sign * step * height for step in range(1, 9) for sign in (1, -1))):
            for left in (x + aside, x - aside - width):
                yield left, y + up - height / 2, left + width, y + up + height / 2


def _covered(box: _Box, boxes: Sequence[_Box], dots: NDArray[np.float64], room: _Box) -> int:
    x0, y0, x1, y1 = box
    crossed = sum(x0 < b[2] and b[0] < x1 and y0 < b[3] and b[1] < y1 for b in boxes)
    hidden = (np.abs(dots[:, 0] - (x0 + x1) / 2) < (x1 - x0) / 2 + 3) & (dots[:, 1] > y0 - 1) & (dots[:, 1] < y1 + 1)
    outside = x0 < room[0] or x1 > room[2] or y0 < room[1] or y1 > room[3]
    return 100 * (crossed + outside) + int(hidden.sum())


def _distance(box: _Box, x: float, y: float) -> float:
    aside = max(box[0] - x, x - box[2], 0)
    return aside**2 + ((box[1] + box[3]) / 2 - y) ** 2
