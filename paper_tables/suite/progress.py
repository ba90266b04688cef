"""What a user sees of a suite: the plan before it starts, one live grid while it runs, what failed at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from paper_tables.paper.tables import LABELS, Arm
from paper_tables.suite.execute import Event, Failure
from paper_tables.suite.plan import Plan, Planned

_MARKS = {"recorded": ("✓", "dim"), "waiting": ("·", "dim"), "done": ("✓", "green"), "failed": ("✗", "red")}
_SPINNER = "◐◓◑◒"


class Grid:
    """A row for each kind of run, a column for each training seed, a mark for each run.

    Args:
        plan: the runs.
        jobs: how many at a time.
        console: where to; a line a run where it is no terminal.
    """

    def __init__(self, plan: Plan, jobs: int, console: Console) -> None:
        self.plan, self.jobs, self.console = plan, jobs, console
        self.state = {run: "waiting" if run.to_do else "recorded" for run in plan.runs}
        self.started: dict[Planned, float] = {}
        self.failures: list[Failure] = []
        self.took: list[float] = []
        self.done = 0
        self.live: Live | None = None

    @contextmanager
    def session(self) -> Iterator[None]:
        """Show the grid for the time of the block."""
        if not self.console.is_terminal:
            yield
            return
        try:
            with Live(console=self.console, get_renderable=self.render, refresh_per_second=4, transient=True) as live:
                self.live = live
                yield
        finally:
            self.live = None
            self.console.print(self.render())

    def take(self, event: Event) -> None:
        """Note what happened to a run."""
        run = event.run
        if event.seconds is None:
            self.state[run], self.started[run] = "running", time.monotonic()
            return
        self.state[run] = "failed" if event.failure else "done"
        del self.started[run]
        self.done += 1
        if event.failure:
            self.failures.append(event.failure)
        if not self.live:
            word = "failed after" if event.failure else "done in"
            left = f", about {duration(self.left())} left" if self.done < len(self.plan.to_do) else ""
            line = f"{self.done}/{len(self.plan.to_do)} {name_of(run.arm)}, seed {run.seed}: "
            self.console.print(f"{line}{word} {event.seconds:.0f} s{left}", highlight=False, soft_wrap=True)

    def left(self) -> float | None:
        """Seconds that are left, by the estimate."""
        total = 0.0
        for run in self.plan.to_do:
            seconds = self.plan.seconds[run]
            if self.state[run] not in ("waiting", "running"):
                continue
            if seconds is None:
                return None
            if run in self.started:
                seconds = max(0.0, seconds - (time.monotonic() - self.started[run]))
            total += seconds if run.alone else seconds / self.jobs
        return total

    def render(self) -> RenderableType:
        """The grid as it is now."""
        seeds = list(dict.fromkeys(run.seed for run in self.plan.runs))
        table = Table(box=None, pad_edge=False)
        table.add_column("")
        for seed in seeds:
            table.add_column(str(seed), justify="center")
        by_arm: dict[Arm, dict[int, Planned]] = {}
        for run in self.plan.runs:
            by_arm.setdefault(run.arm, {})[run.seed] = run
        for arm, runs in by_arm.items():
            table.add_row(Text(name_of(arm)), *(self._mark(runs.get(seed)) for seed in seeds))
        left = self.left()
        words = f"{self.done} of {len(self.plan.to_do)} runs done"
        words += f", {len(self.failures)} failed" if self.failures else ""
        words += f", about {duration(left)} left" if left else ""
        now = [
            Text(f"  {name_of(run.arm)}, seed {run.seed}: {duration(time.monotonic() - began)}", "cyan")
            for run, began in self.started.items()
        ]
        # a terminal that is too low for the grid shows what changes
        fits = len(by_arm) + len(now) + 3 < self.console.height
        return Group(*([table] if fits else []), Text(words, "bold"), *now)

    def _mark(self, run: Planned | None) -> Text:
        if run is None:
            return Text("")
        if self.state[run] == "running":
            return Text(_SPINNER[int(time.monotonic() * 4) % len(_SPINNER)], "bold cyan")
        return Text(*_MARKS[self.state[run]])


def name_of(arm: Arm) -> str:
    """A kind of run in a few words."""
    label = LABELS.get(arm.method, arm.method)
    return " ".join([label, arm.sgo, "on", arm.task, f"from {arm.init}", *arm.options])


def describe(plan: Plan, jobs: int) -> Iterator[str]:
    """A plan in words, with the estimate."""
    alone = sum(run.alone for run in plan.to_do)
    again = sum(run.again for run in plan.to_do)
    there = sum(run.recorded for run in plan.runs)
    yield f"{len(plan.runs)} runs, {there} recorded, {len(plan.to_do)} to do, {jobs} at a time"
    if alone:
        yield f"  {alone} of them one at a time first, since their wall-clock goes into a table or claim"
    if again:
        yield f"  {again} of them again: their recorded wall-clock was shared, or is of other hardware than most"
    if plan.elsewhere:
        yield f"  {plan.elsewhere} have no wall-clock to compare, and get none here: most were timed on another machine"
    for arm, reason in plan.impossible.items():
        yield f"  {name_of(arm)} cannot be run: {reason}"
    if plan.to_do:
        seconds = plan.estimate(jobs)
        basis = "a guess until runs are recorded" if plan.guessed else "by what is recorded"
        yield f"about {duration(seconds)} ({basis})" if seconds is not None else "duration: not known, none is recorded"


def duration(seconds: float | None) -> str:
    """A duration for readers."""
    if seconds is None:
        return "an unknown time"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
