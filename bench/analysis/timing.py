"""Exclusive timing: which wall-clock was measured with nothing else running, and on what hardware."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from bench.record.record import RunRecord

# of the machine's cores: what an idle system's services take stays below it, a second run does not
OTHERS_MAY_USE = 0.05
CORES_LEFT = 2
"""What a process that computes on a GPU keeps busy at most: Python, and the threads that launch kernels."""
SLOWER = 0.05
"""A run is not slow within this."""
DEVIATIONS, ENOUGH_RUNS = 5, 3


class Hardware(NamedTuple):
    """What a run's wall-clock depends on beside its configuration; `threads` are PyTorch's on the CPU, per process."""

    device: str
    cpu: str
    threads: int
    processes: int | None
    sharded: bool


def has_exclusive_timing(record: RunRecord) -> bool:
    """Whether a run's wall-clock may stand in a table: known to have been measured with nothing else running.

    On a GPU that means: nothing else on this GPU, and `CORES_LEFT` of the machine's cores free for each process of the
    run. On a CPU, on a machine without so many cores, and where nobody can say who else used the GPU: nothing else on
    the machine. False where the record does not say, and for a resumed run, whose earlier parts nobody watched.
    """
    environment = record.environment
    load, cores = environment.other_load, environment.cpu_cores
    if load is None or not cores or record.training.resumes:
        return False
    if environment.other_gpu_processes is not None:
        spare = cores - CORES_LEFT * (environment.processes or 1)
        return environment.other_gpu_processes == 0 and load <= max(spare, OTHERS_MAY_USE * cores)
    return load <= OTHERS_MAY_USE * cores


def hardware(record: RunRecord) -> Hardware:
    """The hardware that a run was timed on."""
    environment = record.environment
    sharded = bool(environment.sharded)  # not every version says no
    return Hardware(environment.device_name, environment.cpu, environment.threads, environment.processes, sharded)


def usual_hardware(records: Iterable[RunRecord]) -> Hardware | None:
    """The hardware that most exclusively timed runs share, of two as common the one used last; None without any."""
    timed = [record for record in records if has_exclusive_timing(record)]
    latest = sorted(timed, key=lambda record: record.started, reverse=True)
    common = Counter(hardware(record) for record in latest).most_common(1)
    return common[0][0] if common else None


def slow_runs(records: Sequence[RunRecord]) -> Mapping[str, float]:
    """Of runs of one arm on one hardware, those slower than the others by more than the others differ.

    Seeds may differ in how many batches they generate, so what is compared is a run's training time over that which
    its steps take elsewhere: of each kind its number, times the median over the others of their median step. A run is
    slow where this ratio is above the others' median by more than five standard deviations, as their median absolute
    deviation gives them, and by more than 5 %. So two slow runs of five do not hide each other. Of arms whose runs
    differ by chance alone, with a deviation of 2 %, 3 % have a slow one, of three runs as of five; with 1 %, none.

    Returns:
        by run id, how much slower than the others' median, as a share; nothing of fewer than three runs.
    """
    known = [record for record in records if record.time.steps]
    if len(known) < ENOUGH_RUNS:
        return {}
    slow = {}
    for record in known:
        others = [other for other in known if other is not record]
        usual = {
            kind: median(other.time.steps[kind].median for other in others if kind in other.time.steps)
            for kind in {kind for other in others for kind in other.time.steps}
        }
        theirs = [_over_usual(other, usual) for other in others]
        ratio, middle = _over_usual(record, usual), median(theirs)
        deviation = 1.4826 * median(abs(other - middle) for other in theirs)  # of normal times, the standard deviation
        if ratio > middle + max(DEVIATIONS * deviation, SLOWER * middle):
            slow[record.run_id] = ratio / middle - 1
    return slow


def _over_usual(record: RunRecord, usual: Mapping[str, float]) -> float:
    steps = record.time.steps
    return record.time.training_seconds / sum(one.count * usual.get(kind, one.median) for kind, one in steps.items())
