"""Exclusive timing: which wall-clock was measured with nothing else running, and on what hardware."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from bench.record.record import RunRecord

# of the machine's cores: what an idle system's services take stays below it, a second run does not
OTHERS_MAY_USE = 0.05


class Hardware(NamedTuple):
    """What a run's wall-clock depends on beside its configuration; `threads` are PyTorch's on the CPU, per process."""

    device: str
    cpu: str
    threads: int
    processes: int | None


def has_exclusive_timing(record: RunRecord) -> bool:
    """Whether a run's wall-clock may stand in a table: known to have been measured with nothing else running.

    False where the record does not say, and for a resumed run, whose earlier parts nobody watched.
    """
    load, cores = record.environment.other_load, record.environment.cpu_cores
    if load is None or not cores or record.training.resumes:
        return False
    return load <= OTHERS_MAY_USE * cores


def hardware(record: RunRecord) -> Hardware:
    """The hardware that a run was timed on."""
    environment = record.environment
    return Hardware(environment.device_name, environment.cpu, environment.threads, environment.processes)


def usual_hardware(records: Iterable[RunRecord]) -> Hardware | None:
    """The hardware that most exclusively timed runs share, of two as common the one used last; None without any."""
    timed = [record for record in records if has_exclusive_timing(record)]
    latest = sorted(timed, key=lambda record: record.started, reverse=True)
    common = Counter(hardware(record) for record in latest).most_common(1)
    return common[0][0] if common else None
