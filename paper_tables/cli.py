"""The commands that this package adds to `bench`."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli import OUT, warn


@click.command()
@click.argument("names", nargs=-1, metavar="[1|2|3|4|5|main]...")
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
    be \\input with booktabs (and longtable) loaded; .csv is tidy, in full precision. Without a name, all tables.

    Bold is the best of a column; a dagger marks what is not significantly different from it. A cell without a run
    is left empty, and the command that makes the run is printed. Runs that differ in more than method, output source,
    start and training seed never stand in one table.

    \b
    bench tables 1 main
    bench tables 3 --preset small --format latex --seeds 10,20,30
    """
    from bench.export import parse_formats
    from bench.store import Store
    from paper_tables.make import make_tables, parse_seeds
    from paper_tables.render import FORMATS

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
    for result in made:
        for line in result.lines:
            click.echo(line)
