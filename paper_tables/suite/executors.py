"""Runs of a plan as processes on this machine, so many at a time, going on past a failure."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from bench.analysis.timing import CORES_LEFT
from bench.cli.run import BUSY
from bench.record.store import Store
from paper_tables.suite.plan import Newcomers, PlannedRun, SuitePlan
from paper_tables.suite.time_limit import TimeLimit

POLL_SECONDS = 0.2
STOP_SECONDS = 15.0  # within STOPPING of a time limit; an interrupted run writes what it has; one that hangs is ended
SHOWN_LINES = 6


@dataclass(frozen=True)
class Failure:
    """A run that ended with an error: its exit code, and the last lines it wrote."""

    run: PlannedRun
    code: int
    lines: tuple[str, ...]


@dataclass(eq=False)
class _Process:
    run: PlannedRun
    slot: int
    popen: subprocess.Popen[bytes]
    log: IO[bytes]


def last_lines(log: IO[bytes]) -> tuple[str, ...]:
    """The last that a run wrote to its messages."""
    log.seek(0)
    lines = log.read().decode(errors="replace").splitlines()
    return tuple(line for line in lines if line.strip())[-SHOWN_LINES:]


def words_of(run: PlannedRun, preset: str, out: Path, *, wait: bool) -> list[str]:
    """What stands behind `bench` to make a run; without `wait` it ends with BUSY where another process makes it."""
    words = [*shlex.split(run.spec.command(preset, run.seed))[1:], "--out", str(out), "--quiet"]
    return [*words, *["--no-wait"] * (not wait), *["--fresh"] * run.retimed]


@dataclass(frozen=True)
class RunEvent:
    """A run has started, or ended after so many seconds, perhaps in failure, or is another process's: made or begun.

    `cut` says that the time limit ended it.
    """

    run: PlannedRun
    seconds: float | None = None
    failure: Failure | None = None
    elsewhere: Literal["made", "begun"] | None = None
    cut: bool = False


def run_locally(
    plan: SuitePlan, out: Path, jobs: int, limit: TimeLimit | None = None
) -> Generator[RunEvent, None, None]:
    """Make the runs left, telling of each start and end.

    Exclusive runs come first, one at a time. Every run is a `bench run` of its own, which resumes if it was begun
    before. What another process makes at the same time, on this machine or another, is left to it: its runs come last
    here, from the other end, so that the two seldom meet.

    Args:
        plan: what to run.
        out: folder of the records.
        jobs: processes at a time.
        limit: no run is begun that would take longer, as far as is known, and what runs at its end is stopped as by
            Ctrl-C. Runs that are made again only for their training time come last.

    Raises:
        KeyboardInterrupt: after every process has been told to stop, and has.
    """
    waiting, begun_elsewhere = list(plan.to_do), list[PlannedRun]()
    if limit is not None:
        waiting.sort(key=lambda run: run.retimed)
    running: dict[_Process, float] = {}
    given = {**os.environ, **visible_gpus(os.environ)}
    newcomers = Newcomers(Store(out), plan.preset)
    try:
        while waiting or begun_elsewhere or running:
            if limit is not None and len(running) < jobs:
                waiting, begun_elsewhere = limit.fitting(waiting), limit.fitting(begun_elsewhere)
            if limit is not None and limit.left <= 0:
                _stop(list(running))
                for process, began in running.items():
                    # one may have been over just then, or recorded and not yet over
                    over = process.popen.returncode == 0 or process.run in newcomers
                    yield RunEvent(process.run, time.monotonic() - began, cut=not over)
                running.clear()
                return
            while (queue := waiting or begun_elsewhere) and _may_start(queue[0], running, jobs):
                run = queue.pop(0)
                if run in newcomers:
                    yield RunEvent(run, elsewhere="made")
                    continue
                slot = min(set(range(jobs)) - {process.slot for process in running})
                variables = environment(given, slot, jobs, run.threads)
                process = _start(run, plan.preset, out, slot, variables, wait=queue is begun_elsewhere)
                running[process] = time.monotonic()
                yield RunEvent(process.run)
            time.sleep(POLL_SECONDS)
            for process in [p for p in running if p.popen.poll() is not None]:
                seconds = time.monotonic() - running.pop(process)
                code = process.popen.returncode
                if code == BUSY:
                    begun_elsewhere.append(process.run)
                    waiting.reverse()
                    process.log.close()
                    yield RunEvent(process.run, elsewhere="begun")
                    continue
                failure = Failure(process.run, code, last_lines(process.log)) if code else None
                if limit is not None and failure is None:
                    limit.took(process.run, seconds)
                process.log.close()
                yield RunEvent(process.run, seconds, failure)
    finally:
        _stop(list(running))


def _may_start(run: PlannedRun, running: Mapping[_Process, float], jobs: int) -> bool:
    exclusive = run.exclusive or any(process.run.exclusive for process in running)
    return not running if exclusive else len(running) < jobs


def _start(run: PlannedRun, preset: str, out: Path, slot: int, variables: Mapping[str, str], *, wait: bool) -> _Process:
    command = [sys.executable, "-m", "bench.cli.main", *words_of(run, preset, out, wait=wait)]
    log = tempfile.TemporaryFile()  # noqa: SIM115  closed when the process has ended
    # in a session of its own, so that Ctrl-C reaches it once, from here
    popen = subprocess.Popen(
        command,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=log,
        start_new_session=True,
    )
    return _Process(run, slot, popen, log)


def usable_cores() -> int:
    """CPU cores that this process may use: of a job on a cluster's node, those it was given."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def visible_gpus(given: Mapping[str, str]) -> dict[str, str]:
    """The variable that names the GPUs of this machine, for runs to share out; none where it is set or one GPU does."""
    if "CUDA_VISIBLE_DEVICES" in given:
        return {}
    from torch.cuda import device_count

    count = device_count()
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(count)))} if count > 1 else {}


def has_gpu_each(jobs: int) -> bool:
    """Whether each of so many runs at a time gets a GPU of its own, and enough cores beside it to be timed."""
    from torch.cuda import device_count

    return device_count() >= jobs and usable_cores() >= CORES_LEFT * jobs


def environment(given: Mapping[str, str], slot: int, jobs: int, threads: int | None = None) -> dict[str, str]:
    """Environment of the process in one of `jobs` slots: its threads, by default its share of the cores, and its GPU.

    A thread count that the user has set stays; where several GPUs are named, the slots share them out.
    """
    own = dict(given)
    own.setdefault("OMP_NUM_THREADS", str(threads or max(1, usable_cores() // jobs)))
    named = [part for part in given.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    if len(named) > 1:
        own["CUDA_VISIBLE_DEVICES"] = named[slot % len(named)].strip()
    return own


def _stop(processes: Sequence[_Process]) -> None:
    for process in processes:
        process.popen.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        try:
            process.popen.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.popen.kill()
            process.popen.wait()
        process.log.close()
