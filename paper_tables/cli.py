"""The commands that this package adds to `bench`."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import click
from rich.console import Console

from bench.cli.options import JSON, OUT, warn
from bench.record.store import Store
from bench.system.errors import BenchError


@click.command()
@click.argument("names", nargs=-1, metavar="[1|2|3|4|5|main|SWEEP]...")
@click.option(
    "--format", "formats", default="csv,latex,markdown", show_default=True, metavar="LIST", help="Any of the three."
)
@click.option("--preset", default="tiny", show_default=True, help="Take the runs of this preset: tiny, small or paper.")
@click.option("--seeds", metavar="LIST", help="Take these training seeds only, and miss those that are not there.")
@click.option(
    "--key", "keys", multiple=True, metavar="KEY", help="Among runs that differ in more, take those of this key."
)
@click.option(
    "--resamples", type=click.IntRange(min=100), default=10_000, show_default=True, help="Bootstrap resamples."
)
@OUT
def tables(
    names: tuple[str, ...],
    formats: str,
    preset: str,
    seeds: str | None,
    keys: tuple[str, ...],
    resamples: int,
    out: Path,
) -> None:
    """Make the paper's tables from recorded runs: as measured, as published, side by side.

    Writes OUT/tables/TABLE-PRESET-measured, TABLE-published and TABLE-PRESET-side-by-side (.csv, .tex, .md): .tex is to
    be \\input with booktabs (and longtable) loaded; .csv is tidy, in full precision. Without a name, all tables of the
    paper. The sweeps of the appendix, as measured only: alpha, sgo-ratio, init, buffer-capacity.

    Bold is the best of a column; a dagger marks what is not significantly different from it. A cell without a run
    is left empty, and the command that makes the run is printed. Runs that differ in more than method, output source,
    start and training seed never stand in one table.

    \b
    bench tables 1 main
    bench tables 3 --preset small --format latex --seeds 10,20,30
    """
    from bench.record.export import parse_formats
    from paper_tables.tables.make import make_tables, parse_seeds
    from paper_tables.tables.render import FORMATS

    made = make_tables(
        Store(out, warn),
        names,
        forms=parse_formats(formats, tuple(FORMATS)),
        preset=preset,
        seeds=parse_seeds(seeds),
        keys=keys,
        resamples=resamples,
        warn=warn,
    )
    with Console(stderr=True).status("reading runs") as status:
        for result in made:
            status.stop()
            for line in result.lines:
                click.echo(line)
            status.start()
            status.update("comparing runs")


@click.command()
@click.argument("name", metavar="SUITE")
@click.option("--preset", default="tiny", show_default=True, help="The scale: tiny, small or paper.")
@click.option("--seeds", default="10,20,30", show_default=True, metavar="LIST", help="Training seeds.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs at a time.")
@click.option("--only", multiple=True, metavar="METHOD", help="Runs of this method only; repeatable.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="For every run, as in `bench run`.")
@click.option("--times/--no-times", default=True, help="See to it that what is timed has the machine to itself.")
@click.option("--dry-run", is_flag=True, help="Print the plan and the commands of its runs, and stop.")
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
    """Make all runs that a table or figure needs, skipping those that are recorded.

    SUITE is table1 to table5, main, figures, appendix (or one of its sweeps: alpha, sgo-ratio, init,
    buffer-capacity), or paper: all of these. Shared runs are made once. A failed run does not stop the
    others; it is reported at the end (exit code 1). After Ctrl-C or a crash the same command goes on.

    Wall-clock in tables and claims comes only from runs that had the machine to themselves, on one hardware. With
    --jobs above 1, runs whose time is shown (main table, Table 2: the first seed; where a claim rests on it: every
    seed) are therefore made first, one at a time. Recorded ones that do not count are made again.

    \b
    bench suite table1 --seeds 10
    bench suite paper --jobs 2
    bench suite main --preset small --only distillm --only gkd --dry-run
    """
    from bench.system.environment import this_machine
    from paper_tables.paper.suites import arms, timed_arms
    from paper_tables.suite.execute import execute
    from paper_tables.suite.plan import make_plan
    from paper_tables.suite.progress import Grid, describe
    from paper_tables.tables.make import parse_seeds

    wanted = parse_seeds(seeds)
    if not wanted:
        raise BenchError("--seeds: at least one training seed is needed, such as 10,20,30")
    with Console(stderr=True).status("reading runs"):
        records = list(Store(out, warn).all())
    plan = make_plan(
        arms(name, preset),
        timed_arms(preset),
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
        click.echo(line)
    if dry_run:
        for run in plan.to_do:
            click.echo(run.arm.command(preset, run.seed))
        return
    grid = Grid(plan, jobs, Console(stderr=True))
    # a terminal that is closed or a job that is ended stops the runs as Ctrl-C does, which a shell's background jobs,
    # and with them the runs, would ignore
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    with grid.session():
        for event in execute(plan, out, jobs):
            grid.take(event)
    for failure in grid.failures:
        click.echo(
            f"failed with exit code {failure.code}: {failure.run.arm.command(preset, failure.run.seed)}", err=True
        )
        for line in failure.lines:
            click.echo(f"  {line}", err=True)
    if grid.failures:
        click.echo(
            f"{len(grid.failures)} of {len(plan.to_do)} runs failed; the same command tries them again", err=True
        )
        sys.exit(1)
    click.echo(f"all {len(plan.runs)} runs are recorded in {out}; next: bench tables --out {out}")


@click.command()
@click.argument("names", nargs=-1, metavar="[1|2|3|6|7|8|NAME]...")
@click.option("--preset", default="tiny", show_default=True, help="Take the runs of this preset: tiny, small or paper.")
@click.option("--seeds", metavar="LIST", help="Take these training seeds only.")
@click.option("--key", "keys", multiple=True, metavar="KEY", help="Among runs that differ in more, take those of KEY.")
@click.option("--fresh", is_flag=True, help="Measure again what figures 1, 2, 3 and theory show.")
@OUT
def figures(
    names: tuple[str, ...], preset: str, seeds: str | None, keys: tuple[str, ...], fresh: bool, out: Path
) -> None:
    """Make the paper's figures, and some that it lacks, as SVG, PDF and PNG with their data as CSV.

    \b
    1 noisy outputs of the student     6 convergence            pareto   quality against training time
    2 cost of generation               7 time by output source  budget   quality at equal wall-clock
    3 gradients and estimation error   8 skew alpha             theory   the estimator's error beside its bound
    sgo-ratio, init, buffer-capacity   the appendix

    Figures 6 and up are drawn from recorded runs (`bench suite figures`, `bench suite appendix`). Figures 1, 2, 3 and
    theory are measured on the teacher and init students, within a minute at the tiny preset, and recorded in
    OUT/measurements. Files go to OUT/figures.
    """
    from functools import cache

    from bench.models.loading import quiet_libraries
    from bench.system.progress import Reporter
    from paper_tables.figures.catalogue import make_figures
    from paper_tables.numbers.runs import Library
    from paper_tables.tables.make import parse_seeds

    quiet_libraries()

    @cache
    def library() -> Library:
        return Library(Store(out, warn), preset, parse_seeds(seeds), keys, warn)

    reporter = Reporter(Console(stderr=True))
    written = 0
    for made in make_figures(library, names, preset=preset, seed=10, out=out, reporter=reporter, fresh=fresh):
        if made.missing:
            click.echo(f"{made.name}: not made: {made.missing}", err=True)
            continue
        written += 1
        stem = made.paths[0].with_suffix("")
        click.echo(f"{stem} ({', '.join(path.suffix for path in made.paths)})")
        for line in made.caption:
            click.echo(f"  {line}")
    if not written:
        raise BenchError("no figure could be made")


@click.command()
@click.argument("ids", nargs=-1, metavar="[CLAIM]...")
@click.option("--preset", default="tiny", show_default=True, help="Take the runs of this preset: tiny, small or paper.")
@click.option("--seeds", metavar="LIST", help="Take these training seeds only.")
@click.option("--key", "keys", multiple=True, metavar="KEY", help="Among runs that differ in more, take those of KEY.")
@click.option(
    "--resamples", type=click.IntRange(min=100), default=10_000, show_default=True, help="Bootstrap resamples."
)
@click.option("--markdown", is_flag=True, help="Print Markdown, with every comparison.")
@JSON
@OUT
def claims(
    ids: tuple[str, ...],
    preset: str,
    seeds: str | None,
    keys: tuple[str, ...],
    resamples: int,
    markdown: bool,
    as_json: bool,
    out: Path,
) -> None:
    """Give each claim of the paper a verdict from recorded runs.

    A claim is reproduced when every comparison it makes holds with its whole confidence interval (95 % for all of a
    claim together, over training seeds and examples), and not reproduced when the whole interval of one falls short of
    the claim. Anything else is not enough evidence, fewer than three training seeds included, or fewer than two runs
    that had the machine to themselves where it is about time. The exit code is 0 whatever the verdicts.

    \b
    bench claims
    bench claims skew-beats-kl --markdown
    """
    from paper_tables.claims.format import as_markdown, as_table
    from paper_tables.claims.verdicts import judge
    from paper_tables.numbers.runs import Library
    from paper_tables.tables.make import parse_seeds

    library = Library(Store(out, warn), preset, parse_seeds(seeds), keys, warn)
    with Console(stderr=True).status("comparing runs"):
        judged = list(judge(library, out, ids, resamples))
    if as_json:
        click.echo(json.dumps([one.as_dict() for one in judged], indent=1, ensure_ascii=False))
    elif markdown:
        click.echo(as_markdown(judged, preset))
    else:
        Console(highlight=False).print(as_table(judged, preset))


@click.command()
@click.option("--preset", default="tiny", show_default=True, help="Take the runs of this preset: tiny, small or paper.")
@click.option("--seeds", metavar="LIST", help="Take these training seeds only.")
@click.option("--key", "keys", multiple=True, metavar="KEY", help="Among runs that differ in more, take those of KEY.")
@click.option(
    "--resamples", type=click.IntRange(min=100), default=10_000, show_default=True, help="Bootstrap resamples."
)
@click.option("--to", type=click.Path(path_type=Path), metavar="FILE", help="[default: OUT/report-PRESET.html]")
@OUT
def report(preset: str, seeds: str | None, keys: tuple[str, ...], resamples: int, to: Path | None, out: Path) -> None:
    """Write one HTML file with all there is: verdicts, tables, figures, every run with its curves.

    It needs no network and nothing beside it. Figures are those in OUT/figures: make them first.

    \b
    bench figures && bench report
    """
    from paper_tables.numbers.runs import Library
    from paper_tables.report.write import write_report
    from paper_tables.tables.make import parse_seeds

    library = Library(Store(out, warn), preset, parse_seeds(seeds), keys, warn)
    console = Console(stderr=True)
    with console.status("report") as status:
        path = write_report(library, out, to or out / f"report-{preset}.html", resamples, status.update)
    click.echo(str(path))
