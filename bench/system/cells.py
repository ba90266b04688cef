"""What users, tasks and files call things, in CSV and Markdown: shown as it is, and never run or taken for markup."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # half a second to import, and those who have a frame have it
    import pandas as pd

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


_BEGINS_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
# what starts HTML, an entity, a link, code or emphasis; an underscore inside a word, as names have it, starts nothing
_MARKUP = re.compile(r"[\\|`*]|\](?=[(\[:])|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<!\w)_|_(?!\w)")
_BREAKS = re.compile(r"\s*[\r\n\v\f\x85\u2028\u2029]\s*")


def escape_markdown(text: str) -> str:
    """Text within a line of Markdown or a cell of a table."""
    return _MARKUP.sub(r"\\\g<0>", _BREAKS.sub(" ", text))


def as_text(cell: object) -> object:
    """The cell; a text that a spreadsheet would take for a formula gets an apostrophe in front, which it does not show.

    Numbers stay as they are, also those written as a text. So does all that is no text. A carriage return becomes a
    line feed: alone it would end the row, as it is not quoted.
    """
    if not isinstance(cell, str) or _NUMBER.fullmatch(cell):
        return cell
    return ("'" if cell.startswith(_BEGINS_FORMULA) else "") + cell.replace("\r\n", "\n").replace("\r", "\n")


def as_csv(frame: pd.DataFrame, float_format: str | None = None) -> bytes:
    """A frame as CSV, the same bytes for the same frame: no index, lines that end in a line feed, UTF-8."""
    shown = frame.map(as_text).rename(columns=as_text)
    return shown.to_csv(index=False, float_format=float_format, lineterminator="\n").encode()
