"""The command `bench perf`."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from bench.cli.options import OUT, messages, output
from bench.system.errors import BenchError, did_you_mean
from bench.system.paths import check_folder

if TYPE_CHECKING:  # PyTorch takes seconds to import, and --help needs none
    from rich.table import Table

    from bench.perf.measure import Comparison, Part
    from bench.perf.workload import Workload


@click.command()
@click.option("--quick", is_flag=True, help="Fewer sizes and rounds: about four minutes.")
@click.option(
    "--only", metavar="PARTS", help="Some of head, step, generation, evaluation, commands, with commas.  [default: all]"
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@OUT
def perf(quick: bool, only: str | None, device: str, out: Path) -> None:
    """Measure how fast the engine is, beside other ways to do the same work.

    Arms take turns in one process, and the medians of their rounds are compared: ours; the plain formulation, as the
    authors write it; transformers' `generate`; and, where the extra `perf` is installed, TRL and Liger. Models have
    random weights, so nothing is downloaded. A part is one of:

    \b
    head         output layer and divergence, forward and backward
    step         a training step, by method
    generation   sampling, by family of models
    evaluation   scoring texts, responses for several decoding seeds
    commands     CPU seconds of the commands that read runs

    All samples go into OUT/perf/HARDWARE-DATE.json. The machine should have nothing else to do.
    """
    from bench.models.loading import quiet_libraries
    from bench.perf import installed, record
    from bench.perf.measure import Part
    from bench.perf.workload import Workload
    from bench.system.environment import choose_kernels, describe, pick_device

    check_folder(out / "perf", "--out", write=True)
    parts = _parts(only, get_args(Part))
    chosen = pick_device(device)
    choose_kernels(chosen)
    if chosen.type not in ("cpu", "cuda"):
        raise BenchError(f"--device {chosen.type}: measured are cpu and cuda; write --device cpu")
    workload = Workload.on(chosen, quick=quick)
    quiet_libraries()
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    environment = describe(workload.device)
    comparisons = []
    with messages().status("") as status:
        for part in parts:
            status.update(part)
            for found in _measured(part)(workload):
                comparisons.append(found)
                status.update(f"{part}: after {found.name}")
    made = record.PerfRecord(
        started=started,
        seconds=round(time.perf_counter() - clock, 1),
        quick=quick,
        parts=parts,
        environment=environment,
        libraries=installed.versions(),
        comparisons=comparisons,
    )
    path = record.write(made, out)
    console = output()
    console.print(table(comparisons, workload.device.type))
    absent = {f"{arm}: {reason}": None for found in comparisons for arm, reason in found.absent.items()}
    for reason in absent:
        console.print(f"not measured: {reason}", soft_wrap=True)
    console.print(f"{environment.hardware}, {made.seconds:.0f} s; record: {path}", soft_wrap=True)


def _parts(only: str | None, known: tuple[Part, ...]) -> list[Part]:
    """The parts that `--only` names, in their own order.

    Raises:
        BenchError: one is unknown.
    """
    if only is None:
        return list(known)
    names = [name.strip() for name in only.split(",")]
    for name in names:
        if name not in known:
            raise BenchError(f"--only {only}: there is no part {name!r}: {did_you_mean(name, known)}")
    return [part for part in known if part in names]


def _measured(part: Part) -> Callable[[Workload], Iterator[Comparison]]:
    from bench.perf import commands, evaluation, generation, head, step

    modules = {"head": head, "step": step, "generation": generation, "evaluation": evaluation, "commands": commands}
    measure: Callable[[Workload], Iterator[Comparison]] = modules[part].measure
    return measure


def table(comparisons: list[Comparison], device: str) -> Table:
    """A row for each arm: seconds a unit of work, peak memory, its time as a multiple of ours, and the target."""
    from rich import box
    from rich.table import Table

    from bench.perf.measure import OURS
    from bench.perf.targets import judged, told

    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    made.add_column("time of a")
    for heading in ("CPU", "clock", "MiB", "x ours"):
        made.add_column(heading, justify="right", no_wrap=True, min_width=6)
    made.add_column("target", no_wrap=True, min_width=16)
    for found in comparisons:
        made.add_row(f"{found.unit}: {found.name}", style="bold")
        for arm, timing in found.arms.items():
            memory, speed = timing.memory_mib, found.speed(arm)
            bounds = [
                told(target, value)
                for target, value in judged(found, device)
                if target.against == arm and value is not None
            ]
            made.add_row(
                f"  {arm}",
                _seconds(timing.seconds("cpu")),
                _seconds(timing.seconds("wall")),
                "" if memory is None else f"{memory:,.0f}",
                "" if arm == OURS or speed is None else f"{speed:.2f}",
                "; ".join(bounds),
            )
    return made


def _seconds(value: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"
