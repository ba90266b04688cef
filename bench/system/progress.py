"""What a user sees while something works: one live table on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

PLAIN_SECONDS = 10.0  # between two plain lines of one stage
State = Literal["recorded", "waiting", "running", "done", "failed"]
_MARKS: dict[State, tuple[str, str]] = {
    "recorded": ("✓", "dim"),
    "waiting": ("·", "dim"),
    "running": ("▸", "bold cyan"),
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
}


def mark(state: State, text: str = "") -> Text:
    """The sign of a state, or a text, in the state's style."""
    sign, style = _MARKS[state]
    return Text(text or sign, style)


class LiveDisplay(ABC):
    """Something that is drawn anew a few times a second on a terminal, with plain lines where there is none.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live: Live | None = None

    @abstractmethod
    def render(self) -> RenderableType:
        """What is to be seen now."""

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draw for the time of the block; how it is at the end stays on the screen, also after an error or Ctrl-C."""
        if not self.console.is_terminal:
            yield
            return
        try:
            with Live(
                console=self.console, get_renderable=self.render, refresh_per_second=5, transient=True
            ) as self.live:
                yield
        finally:
            self.live = None
            self.console.print(self.render())

    def line(self, text: str) -> None:
        """Print a line, unless the display is being drawn and so shows it anyway."""
        if self.live is None:
            self.console.print(text, highlight=False, soft_wrap=True, markup=False)


@dataclass
class Stage:
    """One line of the display."""

    name: str
    state: State = "waiting"
    started: float = 0.0
    seconds: float = 0.0
    done: int = 0
    total: int = 0
    first_done: int = 0  # where this process began, so that a resumed run's rate is its own
    since: float = 0.0  # when the piece of work began that is counted now; a stage may have several
    figures: str = ""

    @property
    def rate(self) -> float:
        """Units per second since this process began the stage, or this piece of it."""
        return (self.done - self.first_done) / max(1e-9, time.monotonic() - self.since)

    @property
    def left(self) -> float | None:
        """Seconds left at the present rate; None before anything is done."""
        return (self.total - self.done) / self.rate if self.done > self.first_done else None


class Reporter(LiveDisplay):
    """Shows stages, their progress and notes.

    Args:
        console: where to; standard error in the CLI, so that standard output holds results only.
        quiet: show nothing; notes are kept for the record.
        title: the first line.
    """

    def __init__(self, console: Console, *, quiet: bool = False, title: str = "") -> None:
        super().__init__(console)
        self.quiet, self.title = quiet, title
        self.stages: list[Stage] = []
        self.notes: list[str] = []
        self._current: Stage | None = None
        self._printed = 0.0

    @contextmanager
    def session(self, names: list[str]) -> Iterator[None]:
        """Show these stages for the time of the block."""
        self.stages = [Stage(name) for name in names]
        if self.quiet:
            yield
            return
        if not self.console.is_terminal:
            self.line(self.title)
        with self.shown():
            yield

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Mark a stage as running, then as done or failed."""
        stage = next(s for s in self.stages if s.name == name)
        stage.state, stage.started, self._current = "running", time.monotonic(), stage
        self._printed = stage.since = stage.started
        try:
            yield
        except BaseException:
            stage.state = "failed"
            raise
        else:
            stage.state = "done"
        finally:
            stage.seconds = time.monotonic() - stage.started
            self._current = None
            if stage.state == "done":
                self.line(f"{stage.name}: done in {stage.seconds:.1f} s")

    def progress(self, done: int, total: int, figures: str = "") -> None:
        """Progress of the running stage, with figures such as the loss."""
        stage = self._current
        if stage is None:
            return
        if stage.total != total or done < stage.done:  # a new piece of work inside the stage
            stage.first_done, stage.since = done - 1, time.monotonic() if stage.total else stage.since
        stage.done, stage.total, stage.figures = done, total, figures
        if time.monotonic() - self._printed > PLAIN_SECONDS:
            self._printed = time.monotonic()
            self.line(f"{stage.name}: {self._figures(stage)}")

    def note(self, text: str) -> None:
        """Something the user should know; shown at once where lines are plain, below the table otherwise."""
        self.notes.append(text)
        self.line(f"note: {text}")

    def line(self, text: str) -> None:
        """Print a line, unless nothing is to be shown or the display is being drawn."""
        if not self.quiet:
            super().line(text)

    @staticmethod
    def _figures(stage: Stage) -> str:
        left = "" if stage.left is None else f", {stage.left:.0f} s left"
        return f"{stage.done}/{stage.total}, {stage.rate:.1f}/s{left}{', ' * bool(stage.figures)}{stage.figures}"

    def render(self) -> RenderableType:
        """The title, a line for each stage, and the notes."""
        grid = Table.grid(padding=(0, 2))
        for stage in self.stages:
            running = stage.state == "running"
            seconds = time.monotonic() - stage.started if running else stage.seconds
            bar = ProgressBar(total=stage.total, completed=stage.done, width=24) if running and stage.total else ""
            figures = self._figures(stage) if running and stage.total else stage.figures
            clock = f"{seconds:.1f} s" if stage.state != "waiting" else ""
            grid.add_row(mark(stage.state), mark(stage.state, stage.name), clock, bar, Text(figures, "dim"))
        notes = [Text(f"note: {note}", "yellow") for note in self.notes]
        return Group(Text(self.title, "bold"), grid, *notes)
