"""All figures by name, and the making of their files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.config.presets import read_preset
from bench.system.cells import as_csv
from bench.system.errors import BenchError, did_you_mean
from bench.system.files import write_bytes
from bench.system.progress import Reporter
from paper_tables.figures import from_models, from_runs
from paper_tables.figures.names import FIGURES, file_of
from paper_tables.figures.style import Drawing, NothingToDraw, paper_style, save
from paper_tables.numbers.probes import COEFFICIENTS, GENERATION_COST, NOISY_OUTPUTS, ModelProbe, ProbeKind
from paper_tables.numbers.runs import RunIndex
from paper_tables.paper.ablations import ABLATIONS

FROM_MODELS: dict[str, tuple[ProbeKind[Any], Callable[[ModelProbe[Any]], Drawing]]] = {
    "1": (NOISY_OUTPUTS, from_models.noisy_outputs),
    "2": (GENERATION_COST, from_models.cost),
    "3": (COEFFICIENTS, from_models.gradients),
    "theory": (COEFFICIENTS, from_models.theory),
}
FROM_RUNS: dict[str, Callable[[RunIndex], Drawing]] = {
    "6": from_runs.convergence,
    "7": from_runs.relative_time,
    "8": partial(from_runs.ablation, name="alpha"),
    "pareto": from_runs.pareto,
    "budget": from_runs.equal_budget,
    **{name: partial(from_runs.ablation, name=name) for name in ABLATIONS if name != "alpha"},
}


@dataclass(frozen=True)
class WrittenFigure:
    """A figure that was written: its files; or, without files, why it was not."""

    name: str
    paths: tuple[Path, ...] = ()
    caption: tuple[str, ...] = ()
    missing: str = ""


def write_figures(
    index: Callable[[], RunIndex],
    names: Sequence[str],
    *,
    preset: str,
    out: Path,
    reporter: Reporter,
    fresh: bool = False,
) -> Iterator[WrittenFigure]:
    """Write figures below `OUT/figures`, one after the other; without names all of them.

    Those of chosen runs have the choice in their names, and leave the figures of all runs as they are.

    Args:
        index: gives the runs; asked for when a figure of runs is drawn.
        names: of figures.
        preset: the scale: a shipped preset's name, or a user's file.
        out: the results folder.
        reporter: told what is being probed.
        fresh: make recorded probes again.

    Raises:
        BenchError: an unknown figure, runs that cannot be compared, or a folder that cannot be written.
    """
    from paper_tables.figures.model_probes import probe  # here: it brings torch, which data of figures does not need

    wanted = [name.lower().removeprefix("figure") for name in names] or list(FIGURES)
    for name in wanted:
        if name not in FIGURES:
            raise BenchError(f"unknown figure {name!r}: {did_you_mean(name, FIGURES)}")
    again = {FROM_MODELS[name][0] for name in wanted if name in FROM_MODELS} if fresh else set()
    for name in dict.fromkeys(wanted):
        with paper_style():
            chosen = ""
            try:
                if name in FROM_MODELS:
                    kind, draw = FROM_MODELS[name]
                    drawing = draw(probe(kind, preset, out, reporter, fresh=kind in again))
                    again.discard(kind)
                else:
                    runs = index()
                    drawing, chosen = FROM_RUNS[name](runs), runs.chosen
            except NothingToDraw as error:
                yield WrittenFigure(name, missing=str(error))
                continue
            file = file_of(name, read_preset(preset).name) + chosen
            paths = save(drawing.figure, out / "figures", file)
        table = out / "figures" / f"{file}.csv"
        write_bytes(table, as_csv(drawing.frame, "%.6g"))
        caption = out / "figures" / f"{file}.txt"
        write_bytes(caption, ("\n".join(drawing.caption) + "\n").encode())
        yield WrittenFigure(name, (*paths, table, caption), tuple(drawing.caption))
