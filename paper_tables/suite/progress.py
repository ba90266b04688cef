"""What a user sees of a suite: the plan before it starts, one live grid while it runs, how far it is elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.record.store import FAILURE, LOCK, WORK, Store
from bench.system.artifacts import is_locked
from bench.system.progress import LiveDisplay, State, mark
from paper_tables.paper.methods import METHOD_LABELS
from paper_tables.paper.run_spec import RunSpec
from paper_tables.suite.executors import Failure, RunEvent
from paper_tables.suite.plan import PlannedRun, SuitePlan


class SuiteGrid(LiveDisplay):
    """A row for each run spec, a column for each training seed, a mark for each run.

    Args:
        plan: the runs.
        jobs: how many at a time.
        console: where to; a line a run where it is no terminal.
    """

    def __init__(self, plan: SuitePlan, jobs: int, console: Console) -> None:
        super().__init__(console)
        self.plan, self.jobs = plan, jobs
        self.names = names_of(run.spec for run in plan.runs)
        self.states: dict[PlannedRun, State] = {run: "waiting" if run.to_do else "recorded" for run in plan.runs}
        self.started: dict[PlannedRun, float] = {}
        self.failures: list[Failure] = []
        self.taken: list[float] = []
        self.done = 0

    def take(self, event: RunEvent) -> None:
        """Note what happened to a run."""
        run = event.run
        if event.elsewhere is not None:
            self.started.pop(run, None)
            made = event.elsewhere == "made"
            self.states[run] = "recorded" if made else "waiting"
            self.done += made
            word = "made" if made else "is being made"
            self.line(f"{self.name(run)}: {word} by another process")
            return
        if event.cut:
            self.states[run] = "waiting"
            self.line(f"{self.name(run)}: stopped by the time limit; goes on next time")
            return
        if event.seconds is None:
            self.states[run], self.started[run] = "running", time.monotonic()
            return
        self.states[run] = "failed" if event.failure else "done"
        del self.started[run]
        self.done += 1
        if event.failure:
            self.failures.append(event.failure)
        else:
            self.taken.append(event.seconds)
        word = "failed after" if event.failure else "done in"
        seconds = self.left() if self.done < len(self.plan.to_do) else None
        left = f", about {duration(seconds)} left" if seconds is not None else ""
        about = f"{self.done}/{len(self.plan.to_do)} {self.name(run)}"
        self.line(f"{about}: {word} {event.seconds:.0f} s{left}")

    def name(self, run: PlannedRun) -> str:
        """A run in a few words."""
        return f"{self.names[run.spec]}, seed {run.seed}"

    def left(self) -> float | None:
        """Seconds that are left, by the estimate; what has none takes as long as those that are done took."""
        total = 0.0
        so_far = fmean(self.taken) if self.taken else None
        for run in self.plan.to_do:
            if self.states[run] not in ("waiting", "running"):
                continue
            seconds = self.plan.seconds[run]
            seconds = so_far if seconds is None else seconds
            if seconds is None:
                return None
            if run in self.started:
                seconds = max(0.0, seconds - (time.monotonic() - self.started[run]))
            total += seconds if run.exclusive else seconds / self.jobs
        return total

    def table(self) -> Table:
        """A row for each run spec, with the state of its runs by seed."""
        seeds = list(dict.fromkeys(run.seed for run in self.plan.runs))
        table = Table(box=None, pad_edge=False)
        table.add_column("")
        for seed in seeds:
            table.add_column(str(seed), justify="center")
        by_spec: dict[RunSpec, dict[int, PlannedRun]] = {}
        for run in self.plan.runs:
            by_spec.setdefault(run.spec, {})[run.seed] = run
        for spec, runs in by_spec.items():
            marks = [mark(self.states[runs[seed]]) if seed in runs else "" for seed in seeds]
            table.add_row(Text(self.names[spec]), *marks)
        return table

    def render(self) -> RenderableType:
        """The grid as it is now."""
        table = self.table()
        left = self.left()
        words = f"{self.done} of {len(self.plan.to_do)} runs done"
        words += f", {len(self.failures)} failed" if self.failures else ""
        words += f", about {duration(left)} left" if left else ""
        now = [
            Text(f"  {self.name(run)}: {duration(time.monotonic() - began)}", "cyan")
            for run, began in self.started.items()
        ]
        # a terminal that is too low for the grid shows what changes
        fits = table.row_count + len(now) + 3 < self.console.height
        return Group(*([table] if fits else []), Text(words, "bold"), *now)


def names_of(specs: Iterable[RunSpec]) -> dict[RunSpec, str]:
    """Run specs in a few words, such as "SRKL mixed on dolly from sft".

    The model pair is named where others of them have another on the same task.
    """
    specs = tuple(dict.fromkeys(specs))
    pairs: dict[str, set[str]] = {}
    for spec in specs:
        pairs.setdefault(spec.task, set()).add(spec.models)
    names = {}
    for spec in specs:
        label = METHOD_LABELS.get(spec.method, spec.method)
        models = [spec.models] if len(pairs[spec.task]) > 1 else []
        words = [label, spec.output_source, "on", spec.task, f"from {spec.init_student}", *models, *spec.options]
        names[spec] = " ".join(words)
    return names


def describe(plan: SuitePlan, jobs: int) -> Iterator[str]:
    """A plan in words, with the estimate."""
    exclusive = sum(run.exclusive for run in plan.to_do)
    retimed = sum(run.retimed for run in plan.to_do)
    recorded = sum(run.recorded for run in plan.runs)
    yield f"{len(plan.runs)} runs, {recorded} recorded, {len(plan.to_do)} to do, {jobs} at a time"
    if exclusive:
        yield f"  {exclusive} of them one at a time first: their training time goes into a table or claim"
    if retimed:
        yield (
            f"  {retimed} of them again: when they were timed, the machine was shared or not the one of most runs, or "
            "they were slower than the others of their arm, or than other arms of their kind, by more than these differ"
        )
    for run_id, share in plan.slow.items():
        yield f"  slow: {run_id}, by {share:.0%}"
    if plan.timed_elsewhere:
        yield (
            f"  {plan.timed_elsewhere} have no training time that can be compared, and get none here: most runs were "
            "timed on another machine"
        )
    if plan.to_do:
        seconds = plan.estimate(jobs)
        basis = "a guess until runs are recorded" if plan.guessed else "from the recorded runs"
        yield f"about {duration(seconds)} ({basis})" if seconds is not None else "duration: unknown, none is recorded"


def status(plan: SuitePlan, store: Store) -> Iterator[str]:
    """Lines on a suite's runs, and on every run in its folder that is being made, or was begun and is not recorded."""
    recorded = sum(run.recorded for run in plan.runs)
    yield f"{recorded} of {len(plan.runs)} runs are recorded in {store.root}"
    locks = {path.parent.name: is_locked(path) for path in store.runs.glob(f"*/{LOCK}")}
    for run_id in sorted(run_id for run_id, held in locks.items() if held):
        yield f"  being made: {run_id}, {_reached(store.folder(run_id))}"
    for run_id in store.unfinished():
        held = locks.get(run_id, False)
        if held:
            continue
        if held is None:
            yield f"  being made or stopped, its lock cannot be read: {run_id}, {_reached(store.folder(run_id))}"
        elif (store.folder(run_id) / FAILURE).is_file():
            yield f"  failed: {run_id} (`bench show {run_id}` says why)"
        else:
            yield f"  stopped: {run_id}, {_reached(store.folder(run_id))}; the suite goes on with it"


def _reached(folder: Path) -> str:
    checkpoints = sorted((folder / WORK).glob("step-*"))
    if not checkpoints:
        return "no checkpoint yet"
    try:
        ago = time.time() - checkpoints[-1].stat().st_mtime
    except FileNotFoundError:  # a newer one has replaced it
        return "training"
    return f"step {int(checkpoints[-1].name.removeprefix('step-'))} {duration(max(0.0, ago))} ago"


def duration(seconds: float | None) -> str:
    """A duration for readers."""
    if seconds is None:
        return "an unknown time"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
