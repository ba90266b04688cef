"""Reading commands: CPU seconds of a process that lists runs, or makes tables and verdicts of them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from bench.perf.measure import Arm, Comparison, Sample, compare
from bench.perf.workload import Workload

PUBLISHED = Path(__file__).resolve().parents[2] / "results" / "paper-tiny" / "runs"
"""The runs in the checkout that commands read; an installed package has none."""


def measure(workload: Workload) -> Iterator[Comparison]:
    """Commands without runs, and, where the published runs are at hand, those that read them all."""
    yield _compare(workload, "--help")
    yield _compare(workload, "list", "methods")
    if not PUBLISHED.is_dir():
        return
    count = len(list(PUBLISHED.iterdir()))
    with tempfile.TemporaryDirectory() as folder:  # tables are written beside the runs
        (Path(folder) / "runs").symlink_to(PUBLISHED)
        for command in (("list", "runs"), ("tables",), ("claims",)):
            yield _compare(workload, *command, "--out", folder, name=f"{' '.join(command)} on {count} runs")


def _compare(workload: Workload, *arguments: str, name: str = "") -> Comparison:
    ours = _process("-m", "bench.cli", *arguments)
    what = name or " ".join(arguments)
    return compare("commands", what, "command", torch.device("cpu"), workload.pace, ours, {})


def _process(*arguments: str) -> Arm:
    """An arm that runs Python in a process of its own."""

    def arm() -> Sample:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        told = process.stderr.read().decode(errors="replace")
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stderr.close()
        if process.returncode:
            raise RuntimeError(f"python {' '.join(arguments)} failed: {told.strip()}")
        cpu = used.ru_utime + used.ru_stime
        return Sample(work=1.0, cpu_seconds=cpu, wall_seconds=wall)

    return arm
