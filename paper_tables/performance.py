"""What docs/performance.md tells of the measured speed: each target, beside what the newest record of it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from bench.perf.measure import OURS, Part
from bench.perf.record import FOLDER, PerfRecord, read
from bench.perf.targets import Target, judged, targets

BEGIN = "<!-- measured: made by `python -m paper_tables.published` -->"
END = "<!-- end of measured -->"
KINDS = {"cpu": "a CPU", "cuda": "a GPU"}


def newest(results: Path, device: str) -> PerfRecord | None:
    """The record to tell of a kind of device: of those with the most parts the newest, best of the full form.

    None if there is no record.
    """
    records = [read(path) for path in (results / FOLDER).glob("*.json")]
    of_it = [record for record in records if record.environment.device == device]
    return max(of_it, key=lambda record: (len(record.parts), not record.quick, record.started), default=None)


def missed(record: PerfRecord) -> list[Target]:
    """The targets that were measured and not reached."""
    device = record.environment.device
    pairs = [pair for found in record.comparisons for pair in judged(found, device)]
    return [target for target, value in pairs if value is not None and not target.met(value)]


def section(results: Path) -> str:
    """The section of the page.

    Args:
        results: the folder that has the folder `perf`.
    """
    return "\n".join(line for device in KINDS for line in _of(newest(results, device), device)).strip()


def _of(record: PerfRecord | None, device: str) -> Iterator[str]:
    if record is None:
        yield f"On {KINDS[device]}: no record. Its {len(targets(device))} targets have not been measured.\n"
        return
    here = record.environment
    form = "bench perf --quick" if record.quick else "bench perf"
    if len(record.parts) < len(get_args(Part)):
        form += f" --only {','.join(record.parts)}"
    commit = f" at commit `{here.git.commit[:10]}`" if here.git else ""
    yield f"On {here.hardware}, PyTorch {here.packages['torch']}, by `{form}` on {record.started:%Y-%m-%d}{commit}"
    yield f"({record.seconds:.0f} s):\n"
    yield "| work | beside | target | measured | |"
    yield "|---|---|--:|--:|---|"
    measured = {target: value for found in record.comparisons for target, value in judged(found, device)}
    for target in targets(device):
        value = measured.get(target)
        beside = "" if target.against == OURS else target.against
        verdict = "not measured" if value is None else "" if target.met(value) else "missed"
        yield f"| {target.comparison} | {beside} | {_bound(target)} | {_figure(target, value)} | {verdict} |"
    yield ""


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
