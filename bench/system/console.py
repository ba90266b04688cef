"""A rich console that takes nothing for markup, and shows control characters in place of sending them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from bench.system.terminal import Stream, printable


class DataConsole(Console):
    """Standard output, or standard error; styles come from `Text` and `style=` only."""

    def __init__(self, *, err: bool = False) -> None:
        super().__init__(file=Stream(err=err), markup=False, emoji=False, highlight=False)  # type: ignore[arg-type]

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; a text with a command in it is the terminal's to wrap, so that the command can be copied."""
        if any(isinstance(one, str) and "bench " in one for one in objects):
            options.setdefault("soft_wrap", True)
        super().print(*objects, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A text as it is."""
        return super().render_str(printable(text), **options | {"markup": False, "emoji": False})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of anything; all that is no control code of rich's own is made printable."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)

    def status(self, status: RenderableType, **options: Any) -> Status:
        """A status line; rich itself would read a text as markup."""
        return _DataStatus(_text(status), console=self, **options)


class _DataStatus(Status):
    def update(self, status: RenderableType | None = None, **options: Any) -> None:
        super().update(None if status is None else _text(status), **options)


def _text(status: RenderableType) -> RenderableType:
    return Text(status) if isinstance(status, str) else status
