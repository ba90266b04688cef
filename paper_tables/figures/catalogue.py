"""All figures by name, and the making of their files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.system.errors import BenchError, did_you_mean
from bench.system.files import write_bytes
from bench.system.progress import Reporter
from paper_tables.figures import from_models, from_runs
from paper_tables.figures.figure import Drawn, NothingToDraw
from paper_tables.figures.model_probes import measured
from paper_tables.figures.style import paper_style, save
from paper_tables.numbers.runs import Library
from paper_tables.paper.ablations import SWEEPS

FROM_MODELS: dict[str, tuple[str, Callable[..., Drawn]]] = {
    "1": ("noisy-outputs", from_models.noisy_outputs),
    "2": ("cost", from_models.cost),
    "3": ("coefficients", from_models.gradients),
    "theory": ("coefficients", from_models.theory),
}
FROM_RUNS: dict[str, Callable[[Library], Drawn]] = {
    "6": from_runs.convergence,
    "7": from_runs.relative_time,
    "8": partial(from_runs.sweep, name="alpha"),
    "pareto": from_runs.pareto,
    "budget": from_runs.equal_budget,
    **{name: partial(from_runs.sweep, name=name) for name in SWEEPS if name != "alpha"},
}
FIGURES = ("1", "2", "3", "6", "7", "8", "pareto", "budget", "theory", *(n for n in SWEEPS if n != "alpha"))


@dataclass(frozen=True)
class Made:
    """A figure that was written, or why it was not."""

    name: str
    paths: tuple[Path, ...] = ()
    caption: tuple[str, ...] = ()
    missing: str = ""


def file_of(name: str, preset: str) -> str:
    """The beginning of a figure's file names."""
    return f"figure{name}-{preset}" if name.isdigit() else f"{name}-{preset}"


def make_figures(
    library: Callable[[], Library],
    names: Sequence[str],
    *,
    preset: str,
    seed: int,
    out: Path,
    reporter: Reporter,
    fresh: bool = False,
) -> Iterator[Made]:
    """Write figures below `OUT/figures`, one after the other; without names all of them.

    Args:
        library: gives the records; asked for when a figure of runs is made.
        names: of figures.
        preset: the scale.
        seed: training seed of the init student that measurements on the models take.
        out: the results folder.
        reporter: told what is being measured.
        fresh: measure again what is recorded.

    Raises:
        BenchError: an unknown figure, runs that cannot be compared, or a folder that cannot be written.
    """
    wanted = [name.lower().removeprefix("figure") for name in names] or list(FIGURES)
    for name in wanted:
        if name not in FIGURES:
            raise BenchError(f"unknown figure {name!r}: {did_you_mean(name, FIGURES)}")
    again = {FROM_MODELS[name][0] for name in wanted if name in FROM_MODELS} if fresh else set()
    for name in dict.fromkeys(wanted):
        with paper_style():
            try:
                if name in FROM_MODELS:
                    measurement, draw = FROM_MODELS[name]
                    record = measured(measurement, preset, seed, out, reporter, fresh=measurement in again)
                    again.discard(measurement)
                    drawn = draw(record)
                else:
                    drawn = FROM_RUNS[name](library())
            except NothingToDraw as error:
                yield Made(name, missing=str(error))
                continue
            file = file_of(name, preset)
            paths = save(drawn.figure, out / "figures", file)
        table = out / "figures" / f"{file}.csv"
        write_bytes(table, drawn.frame.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode())
        caption = out / "figures" / f"{file}.txt"
        write_bytes(caption, ("\n".join(drawn.caption) + "\n").encode())
        yield Made(name, (*paths, table, caption), tuple(drawn.caption))
