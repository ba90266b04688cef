"""What docs/performance.md tells of the measured speed: each target, beside what the newest record of it says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from bench.perf.measure import OURS, Part
from bench.perf.record import FOLDER, PerfRecord, read
from bench.perf.targets import Target, judged, targets

BEGIN = "<!-- measured: made by `python -m paper_tables.published` -->"
END = "<!-- end of measured -->"
KINDS = {"cpu": "a CPU", "cuda": "a GPU"}


def records_of(results: Path, device: str) -> list[PerfRecord]:
    """The records of a kind of device, those with the most parts first, of these the full forms, then the newest."""
    records = [read(path) for path in (results / FOLDER).glob("*.json")]
    of_it = [record for record in records if record.environment.device == device]
    return sorted(of_it, key=lambda record: (len(record.parts), not record.quick, record.started), reverse=True)


def measured(records: Sequence[PerfRecord], device: str) -> dict[Target, tuple[float, PerfRecord]]:
    """Each target's figure, with the first of the records that has it."""
    found: dict[Target, tuple[float, PerfRecord]] = {}
    for record in records:
        for comparison in record.comparisons:
            for target, value in judged(comparison, device):
                if value is not None:
                    found.setdefault(target, (value, record))
    return found


def missed(results: Path, device: str) -> list[Target]:
    """The targets that were measured and not reached."""
    found = measured(records_of(results, device), device)
    return [target for target, (value, _) in found.items() if not target.met(value)]


def section(results: Path) -> str:
    """The section of the page.

    Args:
        results: the folder that has the folder `perf`.
    """
    return "\n".join(line for device in KINDS for line in _of(records_of(results, device), device)).strip()


def _of(records: Sequence[PerfRecord], device: str) -> Iterator[str]:
    found = measured(records, device)
    used = [record for record in records if any(its is record for _, its in found.values())]
    if not used:
        yield f"On {KINDS[device]}: no record. Its {len(targets(device))} targets have not been measured.\n"
        return
    for number, record in enumerate(used, start=1):
        yield f"{number}. {_told(record)}"
    yield ""
    yield "| work | beside | target | measured | by | |"
    yield "|---|---|--:|--:|--:|---|"
    for target in targets(device):
        value, by = None, ""
        if target in found:
            value, of = found[target]
            by = str(1 + used.index(of))
        beside = "" if target.against == OURS else target.against
        verdict = "not measured" if value is None else "" if target.met(value) else "missed"
        yield f"| {target.comparison} | {beside} | {_bound(target)} | {_figure(target, value)} | {by} | {verdict} |"
    yield ""


def _told(record: PerfRecord) -> str:
    """What was called, when and on what."""
    here = record.environment
    form = "bench perf --quick" if record.quick else "bench perf"
    if len(record.parts) < len(get_args(Part)):
        form += f" --only {','.join(record.parts)}"
    commit = f" at commit `{here.git.commit[:10]}`" if here.git else ""
    where = f"{here.hardware}, PyTorch {here.packages['torch']}"
    return f"`{form}` on {record.started:%Y-%m-%d}{commit}, {record.seconds:.0f} s, {where}"


def _bound(target: Target) -> str:
    return f"{'≥' if target.figure == 'speed' else '≤'} {_figure(target, target.bound)}"


def _figure(target: Target, value: float | None) -> str:
    if value is None:
        return ""
    form = {
        "speed": "{:.2f} × as fast",
        "memory": "{:.2f} × the memory",
        "seconds": "{:.2f} CPU s",
        "MiB": "{:,.0f} MiB",
    }
    return form[target.figure].format(value)
