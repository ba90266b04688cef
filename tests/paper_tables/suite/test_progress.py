"""What a user sees of a suite while it runs, on a terminal and in a log."""

from __future__ import annotations

import time
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from paper_tables.paper.suites import arms, timed_arms
from paper_tables.suite.execute import Event, Failure
from paper_tables.suite.plan import Plan, make_plan
from paper_tables.suite.progress import Grid, describe, duration
from tests.records import make_record

ROW = {name: f"{name.upper()} dataset on dolly from init" for name in ("kld", "rkld", "jsd")}


def a_plan(records=(), *, jobs=1, seconds: float | None = 60.0) -> Plan:
    made = make_plan(
        arms("table1", "tiny"), timed_arms("tiny"), records, preset="tiny", seeds=(10, 20), jobs=jobs, only=tuple(ROW)
    )
    return replace(made, seconds=dict.fromkeys(made.runs, seconds))


def terminal(height: int = 40) -> Console:
    return Console(force_terminal=True, file=StringIO(), width=100, height=height, legacy_windows=False)


def shown(grid: Grid) -> list[str]:
    """The lines of the grid as it is now, without colours."""
    console = Console(file=StringIO(), width=100)
    console.print(grid.render())
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_grid_has_a_row_a_kind_of_run_and_a_mark_a_run():
    made = a_plan([make_record("kld", init="init")[0]])
    grid = Grid(made, 1, terminal())
    first, second, third = made.to_do[:3]
    assert (first.arm.method, second.arm.method, third.arm.method, third.seed) == ("rkld", "jsd", "kld", 20)
    with grid.session():
        grid.take(Event(first))
        grid.take(Event(first, 5.0))
        grid.take(Event(second))
        grid.take(Event(second, 2.0, Failure(second, 2, ("no",))))
        grid.take(Event(third))
        grid.started[third] -= 40
        lines = shown(grid)
    assert lines[0].split() == ["10", "20"]
    marks = {name: next(line for line in lines if line.startswith(row)).split()[-2:] for name, row in ROW.items()}
    assert marks["rkld"] == ["✓", "·"]
    assert marks["jsd"] == ["✗", "·"]
    assert marks["kld"][0] == "✓"
    assert marks["kld"][1] in "◐◓◑◒"
    # 20 s of the one that runs, and two that wait
    assert lines[-2:] == ["2 of 5 runs done, 1 failed, about 2 min left", f"  {ROW['kld']}, seed 20: 40 s"]
    assert grid.failures == [Failure(second, 2, ("no",))]


def test_on_a_terminal_the_grid_is_live_and_stays_at_the_end_also_of_an_interrupted_suite():
    made = a_plan()
    console = terminal()
    grid = Grid(made, 1, console)

    def interrupted():
        with grid.session():
            assert grid.live is not None
            grid.take(Event(made.runs[0]))
            grid.live.refresh()
            time.sleep(0.3)
            grid.take(Event(made.runs[0], 5.0))
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
    grid = Grid(made, 1, terminal(height=6))
    grid.take(Event(made.runs[0]))
    lines = shown(grid)
    assert lines == ["0 of 6 runs done, about 6 min left", f"  {ROW['kld']}, seed 10: 0 s"]


def test_in_a_log_there_is_a_line_a_run():
    made = a_plan()
    console = Console(file=StringIO(), width=40)
    grid = Grid(made, 1, console)
    with grid.session():
        for number, run in enumerate(made.runs):
            grid.take(Event(run))
            failure = Failure(run, 1, ()) if number == 1 else None
            grid.take(Event(run, 7.4, failure))
    lines = console.file.getvalue().splitlines()
    assert lines[0] == f"1/6 {ROW['kld']}, seed 10: done in 7 s, about 5 min left"
    assert lines[1] == f"2/6 {ROW['rkld']}, seed 10: failed after 7 s, about 4 min left"
    assert lines[-1] == f"6/6 {ROW['jsd']}, seed 20: done in 7 s"
    assert len(lines) == 6


def test_what_is_left_counts_the_runs_that_are_alone_one_by_one():
    made = a_plan(jobs=2)
    alone = sum(run.alone for run in made.runs)
    assert alone == 4  # kld at both seeds, the others at the first
    grid = Grid(made, 2, terminal())
    assert grid.left() == pytest.approx(60 * alone + 60 * 2 / 2)
    assert Grid(a_plan(seconds=None), 1, terminal()).left() is None


def test_the_plan_says_what_is_timed_and_what_is_made_again():
    shared, _ = make_record("kld", init="init", other_load=1.0)
    assert list(describe(a_plan([shared], jobs=2), 2)) == [
        "6 runs, 1 recorded, 6 to do, 2 at a time",
        "  4 of them one at a time first, since their wall-clock goes into a table or claim",
        "  1 of them again: their recorded wall-clock was shared, or is of other hardware than most",
        "about 5 min (by what is recorded)",
    ]
    assert list(describe(a_plan(seconds=None), 1))[-1] == "duration: not known, none is recorded"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "an unknown time"), (99.4, "99 s"), (100, "2 min"), (99 * 60, "99 min"), (7260, "2 h 01 min")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words
