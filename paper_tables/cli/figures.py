"""`bench figures`."""

from __future__ import annotations

from functools import cache

import click

from bench.cli.options import OUT, messages
from bench.system.errors import BenchError
from bench.system.paths import check_folder
from bench.system.terminal import say
from paper_tables.cli.options import ChosenRuns, selects_runs


@click.command()
@click.argument("names", nargs=-1, metavar="[1|2|3|6|7|8|NAME]...")
@selects_runs
@click.option("--fresh", is_flag=True, help="Probe the models again for figures 1, 2, 3 and theory.")
@OUT
def figures(names: tuple[str, ...], runs: ChosenRuns, fresh: bool) -> None:
    """Make the paper's figures, and some that it lacks, as SVG, PDF and PNG with their data as CSV.

    \b
    1 noisy outputs of the student     6 convergence            pareto   quality against training time
    2 cost of generation               7 time by output source  budget   quality at equal wall-clock
    3 gradients and estimation error   8 skew alpha             theory   the estimator's error beside its bound
    sgo-ratio, init-student, buffer-capacity: the appendix

    Figures 6 to 8, pareto, budget and the appendix are drawn from recorded runs (`bench suite figures`, `bench suite
    appendix`). Figures 1, 2, 3 and theory come from probes of the teacher and the init students; at the tiny preset
    these take a minute, and they are recorded in OUT/model-probes. Files go to OUT/figures.
    """
    from bench.models.loading import quiet_libraries
    from bench.system.progress import Reporter
    from paper_tables.figures.catalogue import write_figures

    for name in ("figures", "model-probes"):
        check_folder(runs.out / name, "--out", write=True)
    quiet_libraries()
    reporter = Reporter(messages())
    written = 0
    for figure in write_figures(
        cache(runs.index), names, preset=runs.preset, out=runs.out, reporter=reporter, fresh=fresh
    ):
        if figure.missing:
            say(f"{figure.name}: not made: {figure.missing}", err=True)
            continue
        written += 1
        stem = figure.paths[0].with_suffix("")
        say(f"{stem} ({', '.join(path.suffix for path in figure.paths)})")
        for line in figure.caption:
            say(f"  {line}")
    if not written:
        raise BenchError("no figure could be made")
