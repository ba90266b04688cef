"""Reading commands: CPU seconds of a process that lists runs, or makes tables, verdicts and a report of them."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from bench.perf.measure import Arm, Comparison, Sample, compare, peak_mib
from bench.perf.workload import Workload
from bench.record.store import PREDICTIONS, RECORD, Store
from bench.system.files import write_sealed_json

PUBLISHED = Path(__file__).resolve().parents[2] / "results" / "paper-tiny"
"""The runs in the checkout that commands read; an installed package has none."""
READERS = (("list", "runs"), ("tables",), ("claims",))
MANY = {2_000: READERS[1:], 5_000: (("report",),)}
"""Runs as a team's folder has them after months, and what reads them there."""


def measure(workload: Workload) -> Iterator[Comparison]:
    """Commands without runs; where the published runs are at hand, those that read them, and not quickly, many more."""
    yield _compare(workload, "--help")
    yield _compare(workload, "list", "methods")
    if not PUBLISHED.is_dir():
        return
    with tempfile.TemporaryDirectory() as folder:  # tables are written beside the runs
        (Path(folder) / "runs").symlink_to(PUBLISHED / "runs")
        _add_presets(Path(folder))
        for command in READERS:
            yield _compare(workload, *command, "--out", folder, of="the published runs")
    if workload.quick:
        return
    for count, commands in MANY.items():
        with tempfile.TemporaryDirectory() as folder:
            copies(Store(PUBLISHED), Store(Path(folder)), count)
            _add_presets(Path(folder))
            for command in commands:
                yield _compare(workload, *command, "--out", folder, of=f"{count:,} runs")


def _add_presets(folder: Path) -> None:
    """Put the presets of tuned rates and of equal time beside runs: a report tells of those, too."""
    for path in (*PUBLISHED.glob("*.yaml"), *PUBLISHED.glob("tuning/*.yaml")):
        to = folder / path.relative_to(PUBLISHED)
        to.parent.mkdir(exist_ok=True)
        to.symlink_to(path)


def copies(of: Store, to: Store, count: int) -> None:
    """Write as many records as asked for: those of a store, then the same under other seeds."""
    records = list(of.all())
    for number, record in enumerate(itertools.islice(itertools.cycle(records), count)):
        again = number // len(records)
        run_id = f"{record.run_id}-{again}" if again else record.run_id
        config = record.config.model_copy(update={"seed": record.seed + 1000 * again})
        folder = to.folder(run_id)
        folder.mkdir(parents=True)
        (folder / PREDICTIONS).symlink_to((of.folder(record.run_id) / PREDICTIONS).resolve())
        write_sealed_json(folder / RECORD, record.model_copy(update={"run_id": run_id, "config": config}).plain())


def _compare(workload: Workload, *arguments: str, of: str = "") -> Comparison:
    ours = _process("-m", "bench.cli", *arguments)
    what = f"{' '.join(arguments[:-2])} of {of}" if of else " ".join(arguments)
    return compare("commands", what, "command", torch.device("cpu"), workload.pace, ours, {})


def _process(*arguments: str) -> Arm:
    """An arm that runs Python in a process of its own; its memory is that process's peak."""

    def arm() -> Sample:
        start, peak, ended = time.perf_counter(), None, False
        with tempfile.TemporaryFile() as told:
            process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=told)
            while not ended:
                # the peak that `wait4` gives is of this process, if that is larger: the child begins as its copy
                peak = peak_mib(process.pid) or peak
                time.sleep(0.005)
                number, status, used = os.wait4(process.pid, os.WNOHANG)
                ended = number != 0
            wall = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                told.seek(0)
                words = told.read().decode(errors="replace").strip()
                raise RuntimeError(f"python {' '.join(arguments)} failed: {words}")
        return Sample(work=1.0, cpu_seconds=used.ru_utime + used.ru_stime, wall_seconds=wall, memory_mib=peak)

    return arm
