"""What a user sees of a suite while it runs, on a terminal and in a log."""

from __future__ import annotations

import time
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from paper_tables.paper.suites import run_specs, timed_specs
from paper_tables.suite.executors import Failure, RunEvent
from paper_tables.suite.plan import SuitePlan, make_plan
from paper_tables.suite.progress import SuiteGrid, describe, duration
from tests.records import make_record

ROW = {name: f"{name.upper()} dataset on dolly from sft" for name in ("kld", "rkld", "jsd")}


def a_plan(records=(), *, jobs=1, seconds: float | None = 60.0) -> SuitePlan:
    specs, timed = run_specs("table1", "tiny"), timed_specs("tiny")
    made = make_plan(specs, timed, records, preset="tiny", seeds=(10, 20), jobs=jobs, only=tuple(ROW))
    return replace(made, seconds=dict.fromkeys(made.runs, seconds))


def terminal(height: int = 40) -> Console:
    return Console(force_terminal=True, file=StringIO(), width=100, height=height, legacy_windows=False)


def shown(grid: SuiteGrid) -> list[str]:
    """The lines of the grid as it is now, without colours."""
    console = Console(file=StringIO(), width=100)
    console.print(grid.render())
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_grid_has_a_row_a_run_spec_and_a_mark_a_run():
    made = a_plan([make_record("kld", init="sft")[0]])
    grid = SuiteGrid(made, 1, terminal())
    first, second, third = made.to_do[:3]
    assert (first.spec.method, second.spec.method, third.spec.method, third.seed) == ("rkld", "jsd", "kld", 20)
    with grid.shown():
        grid.take(RunEvent(first))
        grid.take(RunEvent(first, 5.0))
        grid.take(RunEvent(second))
        grid.take(RunEvent(second, 2.0, Failure(second, 2, ("no",))))
        grid.take(RunEvent(third))
        grid.started[third] -= 40
        lines = shown(grid)
    assert lines[0].split() == ["10", "20"]
    marks = {name: next(line for line in lines if line.startswith(row)).split()[-2:] for name, row in ROW.items()}
    assert marks["rkld"] == ["✓", "·"]
    assert marks["jsd"] == ["✗", "·"]
    assert marks["kld"][0] == "✓"
    assert marks["kld"][1] == "▸"
    # 20 s of the one that runs, and two that wait
    assert lines[-2:] == ["2 of 5 runs done, 1 failed, about 2 min left", f"  {ROW['kld']}, seed 20: 40 s"]
    assert grid.failures == [Failure(second, 2, ("no",))]


def test_on_a_terminal_the_grid_is_live_and_stays_at_the_end_also_of_an_interrupted_suite():
    made = a_plan()
    console = terminal()
    grid = SuiteGrid(made, 1, console)

    def interrupted():
        with grid.shown():
            assert grid.live is not None
            grid.take(RunEvent(made.runs[0]))
            grid.live.refresh()
            time.sleep(0.3)
            grid.take(RunEvent(made.runs[0], 5.0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    text = console.file.getvalue()
    assert "\x1b[?25l" in text  # the cursor was hidden
    assert text.index("\x1b[?25l") < text.rindex("\x1b[?25h")  # and is there again
    assert "seed 10: 0 s" in text
    assert "done in" not in text  # no line a run beside the grid
    last = text[text.rindex("\x1b[?25h") :]
    assert "1 of 6 runs done" in last
    assert ROW["jsd"] in last
    assert grid.live is None


def test_a_low_terminal_shows_what_changes():
    made = a_plan()
    grid = SuiteGrid(made, 1, terminal(height=6))
    grid.take(RunEvent(made.runs[0]))
    lines = shown(grid)
    assert lines == ["0 of 6 runs done, about 6 min left", f"  {ROW['kld']}, seed 10: 0 s"]


def test_in_a_log_there_is_a_line_a_run():
    made = a_plan()
    console = Console(file=StringIO(), width=40)
    grid = SuiteGrid(made, 1, console)
    with grid.shown():
        for number, run in enumerate(made.runs):
            grid.take(RunEvent(run))
            failure = Failure(run, 1, ()) if number == 1 else None
            grid.take(RunEvent(run, 7.4, failure))
    lines = console.file.getvalue().splitlines()
    assert lines[0] == f"1/6 {ROW['kld']}, seed 10: done in 7 s, about 5 min left"
    assert lines[1] == f"2/6 {ROW['rkld']}, seed 10: failed after 7 s, about 4 min left"
    assert lines[-1] == f"6/6 {ROW['jsd']}, seed 20: done in 7 s"
    assert len(lines) == 6


def test_what_is_left_counts_exclusive_runs_one_by_one():
    made = a_plan(jobs=2)
    exclusive = sum(run.exclusive for run in made.runs)
    assert exclusive == 4  # kld at both seeds, the others at the first
    grid = SuiteGrid(made, 2, terminal())
    assert grid.left() == pytest.approx(60 * exclusive + 60 * 2 / 2)


def test_what_nobody_knows_is_told_by_the_runs_that_are_done():
    made = a_plan(seconds=None)
    console = Console(file=StringIO(), width=200)
    grid = SuiteGrid(made, 1, console)
    assert grid.left() is None
    first, second, *others = made.to_do
    with grid.shown():
        for run, seconds, failure in ((first, 3.0, Failure(first, 1, ("no",))), (second, 50.0, None)):
            grid.take(RunEvent(run))
            grid.take(RunEvent(run, seconds, failure))
    assert grid.left() == pytest.approx(50 * len(others))
    assert console.file.getvalue().splitlines() == [
        f"1/6 {ROW['kld']}, seed 10: failed after 3 s",
        f"2/6 {ROW['rkld']}, seed 10: done in 50 s, about 3 min left",
    ]


def test_the_plan_says_what_is_timed_and_what_is_timed_again():
    shared, _ = make_record("kld", init="sft", other_load=1.0)
    assert list(describe(a_plan([shared], jobs=2), 2)) == [
        "6 runs, 1 recorded, 6 to do, 2 at a time",
        "  4 of them one at a time first: their training time goes into a table or claim",
        "  1 of them again: when they were timed, the machine was shared or not the one of most runs, or they were "
        "slower than the others of their arm, or than other arms of their kind, by more than these differ",
        "about 5 min (from the recorded runs)",
    ]
    assert list(describe(a_plan(seconds=None), 1))[-1] == "duration: unknown, none is recorded"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "an unknown time"), (99.4, "99 s"), (100, "2 min"), (99 * 60, "99 min"), (7260, "2 h 01 min")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words
