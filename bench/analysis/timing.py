"""Exclusive timing: which wall-clock was measured with nothing else running, and on what hardware."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
REPEATS_WITHIN = 0.03
"""What the median steps of an arm's runs should lie within."""


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
    return common_hardware(record for record in records if has_exclusive_timing(record))


def common_hardware(records: Iterable[RunRecord]) -> Hardware | None:
    """The hardware that most runs share, of two as common the one used last; None without runs."""
    latest = sorted(records, key=lambda record: record.started, reverse=True)
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
    slow: dict[str, float] = {}
    for record in known:
        others = [other for other in known if other is not record]
        usual = _usual_steps([_steps(other) for other in others])
        by = _slower(_over_usual(record, usual), [_over_usual(other, usual) for other in others])
        slow |= {} if by is None else {record.run_id: by}
    return slow


def slow_few(arms: Iterable[Sequence[RunRecord]]) -> Mapping[str, float]:
    """Of arms with too few runs to tell, on one hardware, those whose steps take longer than other arms' of their kind.

    Of one kind are arms with the same output source that ask the teacher for logits in training, or do not. Compared
    are median steps, each kind of step by its number, by the rule of `slow_runs` over arms in place of runs. That an
    arm is slower than three others may lie in its method; with so few runs nobody knows.

    Returns:
        by run id, how much slower than the others' median, as a share.
    """
    known = [found for arm in arms if (found := [record for record in arm if record.time.steps])]
    slow: dict[str, float] = {}
    for few in known:
        others = [_pooled_steps(arm) for arm in known if arm is not few and _kind(arm[0]) == _kind(few[0])]
        if len(few) >= ENOUGH_RUNS or len(others) < ENOUGH_RUNS:
            continue
        usual = _usual_steps(others)
        for record in few:
            by = _slower(_steps_over(_steps(record), usual), [_steps_over(other, usual) for other in others])
            slow |= {} if by is None else {record.run_id: by}
    return slow


def step_spread(records: Sequence[RunRecord]) -> float | None:
    """The range of an arm's median steps over their median, each kind of step by its number; None of a single run."""
    known = [_steps(record) for record in records if record.time.steps]
    if len(known) < 2:
        return None
    usual = _usual_steps(known)
    ratios = [_steps_over(one, usual) for one in known]
    return (max(ratios) - min(ratios)) / median(ratios)


_Steps = Mapping[str, tuple[float, float]]
"""By kind of step, how many and their median."""


def _kind(record: RunRecord) -> tuple[str, bool]:
    return record.config.sgo.source, record.time.phases.get("teacher", 0.0) > 0


def _steps(record: RunRecord) -> _Steps:
    return {kind: (one.count, one.median) for kind, one in record.time.steps.items()}


def _pooled_steps(arm: Sequence[RunRecord]) -> _Steps:
    """Of an arm's runs, by kind of step, the mean number and the median of the medians."""
    return dict(_pooled(list(map(_steps, arm))))


def _pooled(runs: Sequence[_Steps]) -> Iterator[tuple[str, tuple[float, float]]]:
    for kind in dict.fromkeys(kind for run in runs for kind in run):
        there = [run[kind] for run in runs if kind in run]
        yield kind, (sum(count for count, _ in there) / len(runs), median(seconds for _, seconds in there))


def _usual_steps(runs: Sequence[_Steps]) -> Mapping[str, float]:
    return {kind: seconds for kind, (_, seconds) in _pooled(runs)}


def _usually(steps: _Steps, usual: Mapping[str, float]) -> float:
    """Seconds of so many steps where each takes what its kind usually does."""
    return sum(count * usual.get(kind, seconds) for kind, (count, seconds) in steps.items())


def _steps_over(steps: _Steps, usual: Mapping[str, float]) -> float:
    return sum(count * seconds for count, seconds in steps.values()) / _usually(steps, usual)


def _slower(ratio: float, others: Sequence[float]) -> float | None:
    """By how much a ratio is above those of others, as a share, where it is so by more than they differ."""
    middle = median(others)
    deviation = 1.4826 * median(abs(other - middle) for other in others)  # of normal times, the standard deviation
    return ratio / middle - 1 if ratio > middle + max(DEVIATIONS * deviation, SLOWER * middle) else None


def _over_usual(record: RunRecord, usual: Mapping[str, float]) -> float:
    return record.time.training_seconds / _usually(_steps(record), usual)
