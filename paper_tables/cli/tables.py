"""`bench tables`."""

from __future__ import annotations

import click

from bench.cli.options import OUT, messages, prepare_to_read
from bench.system.paths import check_folder
from bench.system.terminal import say
from paper_tables.cli.options import ChosenRuns, of_a_task, selects_runs


@click.command()
@click.argument("names", nargs=-1, metavar="[1|2|3|4|5|main|ABLATION]...")
@click.option(
    "--format", "formats", default="csv,latex,markdown", show_default=True, metavar="LIST", help="Any of the three."
)
@selects_runs
@of_a_task
@OUT
def tables(names: tuple[str, ...], formats: str, runs: ChosenRuns) -> None:
    """Make the paper's tables from recorded runs: as measured, as published, side by side.

    Writes OUT/tables/TABLE-PRESET-measured, TABLE-published and TABLE-PRESET-side-by-side (.csv, .tex, .md). The .tex
    files are for \\input, with the package booktabs (and longtable) loaded. The .csv files are tidy and in full
    precision. Without a name, it makes all tables of the paper. The appendix has ablations, as measured only: alpha,
    sgo-ratio, init-student, buffer-capacity. With --seeds or --key, the measured tables' names say so, as in
    table1-tiny-seeds-10-20-measured: those of all runs stay as they are.

    Bold is the best of a column. A dagger marks what is not significantly different from it, a question mark what is
    too noisy to tell: compared by one method's own variance. A cell without a run is left empty, and the command that
    makes the run is printed. Runs that differ in more than method, output source, init student and training seed never
    stand in one table.

    \b
    bench tables 1 main
    bench tables 1 main --task my.yaml
    bench tables 3 --preset small --format latex --seeds 10,20,30
    """
    prepare_to_read()
    from bench.record.export import parse_formats
    from paper_tables.tables.make import write_tables
    from paper_tables.tables.render import TABLE_FORMATS

    check_folder(runs.out / "tables", "--out", write=True)
    chosen = parse_formats(formats, tuple(TABLE_FORMATS))
    with messages().status("reading runs") as status:
        for lines in write_tables(runs.index(), names, chosen):
            status.stop()
            for line in lines:
                say(line)
            status.start()
            status.update("comparing runs")
