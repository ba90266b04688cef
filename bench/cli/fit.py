"""Tables that fit a terminal without a word cut in the middle."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table

from bench.system.terminal import say

_COMMAND = re.compile(r"(?:^|: )((?:bench|pip) [^;]+)")  # what follows a semicolon is prose again
_NAME = 16  # so much wider than others the first column may be


class Fitted:
    """A table in the width there is.

    Texts wrap between words. Where that does not do, columns are left out, and then words cut, with an ellipsis.

    Args:
        table: its cells are texts.
        droppable: headings of columns that may be left out, the least important first.
        otherwise: what is shown in its place where it does not fit.
    """

    def __init__(self, table: Table, droppable: Sequence[str] = (), otherwise: Table | None = None) -> None:
        self.table, self.droppable, self.otherwise = table, droppable, otherwise

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, fitted."""
        table = self.table
        if self.otherwise is not None and _needed(table) > options.max_width:
            table = self.otherwise
        for heading in self.droppable:
            if _needed(table) > options.max_width:
                table.columns = [column for column in table.columns if str(column.header) != heading]
        _set_widths(table, options.max_width)
        yield table


def plain_table(headings: Sequence[str], whole: Container[int] = (), **options: Any) -> Table:
    """An empty table for numbers beside names, the first column: no lines but one below the headings.

    Args:
        headings: of its columns.
        whole: places of the columns that do not wrap.
        options: of `rich.table.Table`.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), **options)  # narrow, so that 80 columns show all
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", no_wrap=place in whole)
    return table


def say_commands(cells: Iterable[str]) -> None:
    """Print in one piece, below a table, the commands that its cells name, since a cell may break them."""
    found = (_COMMAND.search(cell) for cell in cells)
    for command in dict.fromkeys(one.group(1) for one in found if one):
        say(command)


def _set_widths(table: Table, width: int) -> None:
    """Give every column at least its longest word, and the rest to those whose texts are longest."""
    room = width - _frame(table)
    wanted = [_longest(column, whole=True) for column in table.columns]
    if sum(wanted) <= room:
        return
    widths = [_longest(column) for column in table.columns]
    while sum(widths) > room and max(widths) > 1:
        # the first column has names, which are copied: it gives way last
        widest = max(range(len(widths)), key=lambda i: widths[i] - (_NAME if i == 0 else 0))
        widths[widest] -= 1
    while sum(widths) < room:
        lack = [text - given for text, given in zip(wanted, widths, strict=True)]
        widths[lack.index(max(lack))] += 1
    for column, given in zip(table.columns, widths, strict=True):
        column.width, column.no_wrap, column.overflow = given, False, "ellipsis"


def _needed(table: Table) -> int:
    """The least width without a cut word."""
    return _frame(table) + sum(_longest(column) for column in table.columns)


def _frame(table: Table) -> int:
    """Columns of a terminal that lines and padding take."""
    count = len(table.columns)
    left, right = table.padding[3], table.padding[1]
    lines = 0 if table.box is None else count - 1 + 2 * table.show_edge
    return count * (left + right) + lines


def _longest(column: Column, *, whole: bool = False) -> int:
    """Width of a column's longest word, or line."""
    texts = [str(column.header), *map(str, column.cells)]
    parts = (part for text in texts for part in (text.splitlines() if whole or column.no_wrap else text.split()))
    return max(map(cell_len, parts), default=0)
