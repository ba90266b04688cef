"""`bench report`."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli.options import FILE, OUT, messages, prepare_to_read
from bench.system.paths import check_file
from bench.system.terminal import say
from paper_tables.cli.options import ChosenRuns, of_a_task, selects_runs


@click.command()
@selects_runs
@of_a_task
@click.option("--to", type=FILE, metavar="FILE", help="[default: OUT/report-PRESET.html; chosen runs are in its name]")
@OUT
def report(runs: ChosenRuns, to: Path | None) -> None:
    """Write one HTML file with everything: verdicts, tables, figures, every run with its curves.

    The file needs no network and no other file. It takes the figures from OUT/figures, so make them first.

    \b
    bench figures && bench report
    """
    prepare_to_read()
    from paper_tables.report.write import write_report

    check_file(to or runs.out / "report", "--to" if to else "--out", write=True)
    with messages().status("reading runs") as status:
        index = runs.index()
        path = write_report(index, to or runs.out / f"report-{index.preset_name}{index.chosen}.html", status.update)
    say(str(path))
