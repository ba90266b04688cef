"""Which wall-clock may be shown: measured with nothing else running, on one hardware."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

# of the machine's cores: what an idle system's services take stays below it, a second run does not
OTHERS_MAY_USE = 0.05


def had_machine_to_itself(record: Mapping[str, Any]) -> bool:
    """Whether a run's wall-clock may stand in a table: known to have been measured with nothing else running.

    False where the record does not say, and for a resumed run, whose earlier parts nobody watched.
    """
    environment = record["environment"]
    load, cores = environment.get("other_load"), environment.get("cpu_cores")
    if load is None or not cores or record["training"]["resumes"]:
        return False
    return bool(load <= OTHERS_MAY_USE * cores)


def hardware(record: Mapping[str, Any]) -> tuple[object, ...]:
    """What a run's wall-clock depends on beside its configuration: device, processor and number of threads."""
    return tuple(record["environment"].get(key) for key in ("device_name", "cpu", "threads"))


def threads_of(found: tuple[object, ...]) -> int | None:
    """The number of threads in what `hardware` gives; None where the record does not say."""
    threads = found[-1]
    return threads if isinstance(threads, int) else None


def usual_hardware(records: Iterable[Mapping[str, Any]]) -> tuple[object, ...] | None:
    """The hardware that most runs with the machine to themselves share, of two as common the one used last; or None."""
    alone = [record for record in records if had_machine_to_itself(record)]
    latest = sorted(alone, key=lambda record: str(record["started"]), reverse=True)
    common = Counter(hardware(record) for record in latest).most_common(1)
    return common[0][0] if common else None
