"""`bench suite`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click

from bench.cli.options import OUT, messages, output, warn
from bench.cli.plan import planning_options, report
from bench.system.paths import check_folder
from bench.system.terminal import say
from paper_tables.cli.options import parse_seeds


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
@click.option("--dry-run", is_flag=True, help="Print the plan and the commands of its runs, and stop.")
@click.option(
    "--plan", "plan_runs", is_flag=True, help="Print what the runs left take, as `bench plan` does, and stop."
)
@planning_options
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
    plan_runs: bool,
    device: str | None,
    memory_gib: float | None,
    price: float | None,
    calibrate: bool | None,
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
    bench suite table1 --preset paper --plan --memory-gib 40
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
    if plan_runs:
        runs = {run.spec: run.spec.config(preset, run.seed) for run in plan.to_do}
        named = {" ".join((s.method, s.output_source, s.models, *s.options)): one for s, one in runs.items()}
        report(named, device, memory_gib, price, calibrate, as_json=False)
        return
    for line in describe(plan, jobs):
        output().print(line)
    if dry_run:
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
