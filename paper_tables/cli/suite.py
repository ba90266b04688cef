"""`bench suite`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from bench.cli.options import OUT, messages, output, warn
from bench.system.errors import BenchError
from bench.system.paths import check_folder
from bench.system.terminal import say
from paper_tables.cli.options import parse_seeds


def _could_show(suite: str, preset: str, seeds: int, out: Path) -> Iterator[str]:
    """By table of a suite, which differences so many seeds would show, as far as recorded runs tell."""
    from bench.record.store import Store
    from paper_tables.numbers.cells import visible_differences
    from paper_tables.numbers.runs import RunIndex
    from paper_tables.paper.ablations import find_table
    from paper_tables.paper.suites import tables_of

    try:
        index = RunIndex(Store(out), preset)
    except BenchError:
        yield f"nothing is recorded in {out} of the noise of seeds: what {seeds} of them could show is not known"
        return
    if seeds < 2:
        yield "one training seed tells nothing of others: no difference between methods could be shown"
        return
    yield f"{seeds} seeds would show these differences to the best (80 % power, by the noise of recorded runs):"
    for name in tables_of(suite):
        table = find_table(name, preset)
        try:
            found = visible_differences(table, index.select(table), seeds)
        except BenchError:
            found = {}
        shown = ", ".join(f"{label} {value:.2f}" for label, value in found.items())
        yield f"  {table.file}: {shown or 'not known, no two methods with two comparable seeds are recorded'}"


@click.command()
@click.argument("name", metavar="SUITE")
@click.option(
    "--preset",
    default="tiny",
    show_default=True,
    metavar="NAME_OR_FILE",
    help="The scale: tiny, small, paper, or a file of yours.",
)
@click.option("--seeds", default="10,20,30", show_default=True, metavar="LIST", help="Training seeds.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs at a time.")
@click.option("--only", multiple=True, metavar="METHOD", help="Runs of this method only; repeatable.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="For every run, as in `bench run`.")
@click.option(
    "--times/--no-times", default=True, help="Run what is timed with nothing else on the machine (default), or do not."
)
@click.option("--dry-run", is_flag=True, help="Print the plan, what its seeds could show, and its commands.")
@OUT
def suite(
    name: str,
    preset: str,
    seeds: str,
    jobs: int,
    only: tuple[str, ...],
    settings: tuple[str, ...],
    times: bool,
    dry_run: bool,
    out: Path,
) -> None:
    """Make all runs that a table or figure needs, and skip those that are recorded.

    SUITE is table1 to table5, main, figures, appendix (or one of its ablations: alpha, sgo-ratio, init-student,
    buffer-capacity), or paper: all of these. Runs that several tables share are made once. A failed run does not
    stop the others; it is reported at the end (exit code 1). After Ctrl-C or a crash, the same command goes on.
    Several commands on one folder share the runs out among them.

    Training times in tables and claims come only from runs that had the machine to themselves, all on the same
    hardware. With --jobs above 1, the runs whose time is shown are therefore made first, one at a time: those of the
    main table and Table 2 at the first seed, those that a claim rests on at every seed. Recorded runs whose time does
    not count are made again.

    \b
    bench suite table1 --seeds 10
    bench suite paper --jobs 2
    bench suite main --preset small --only distillm --only gkd --dry-run
    """
    from bench.record.store import Store
    from bench.system.environment import this_machine
    from paper_tables.paper.suites import run_specs, timed_specs
    from paper_tables.suite.executors import run_locally
    from paper_tables.suite.plan import make_plan
    from paper_tables.suite.progress import SuiteGrid, describe

    wanted = parse_seeds(seeds)
    check_folder(out / "runs", "--out", write=not dry_run)
    with messages().status("reading runs"):
        records = list(Store(out, warn).all())
    plan = make_plan(
        run_specs(name, preset),
        timed_specs(preset),
        records,
        preset=preset,
        seeds=wanted,
        jobs=jobs,
        only=only,
        settings=settings,
        times=times,
        here=this_machine(),
    )
    for line in describe(plan, jobs):
        output().print(line)
    if dry_run:
        with messages().status("what the seeds could show"):
            told = list(_could_show(name, preset, len(wanted), out))
        for line in told:
            output().print(line)
        for run in plan.to_do:
            say(run.spec.command(preset, run.seed))
        return
    grid = SuiteGrid(plan, jobs, messages())
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs would ignore
    with grid.shown():
        for event in run_locally(plan, out, jobs):
            grid.take(event)
    for failure in grid.failures:
        say(f"failed with exit code {failure.code}: {failure.run.spec.command(preset, failure.run.seed)}", err=True)
        for line in failure.lines:
            say(f"  {line}", err=True)
    if grid.failures:
        say(f"{len(grid.failures)} of {len(plan.to_do)} runs failed; the same command tries them again", err=True)
        sys.exit(1)
    say(f"all {len(plan.runs)} runs are recorded in {out}; next: bench tables --out {out}")
