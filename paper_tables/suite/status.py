"""How far a suite is, wherever its runs are made: what is recorded, what is being made, what stopped or failed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from bench.record.store import FAILURE, LOCK, WORK, Store
from bench.system.artifacts import is_locked
from paper_tables.suite.plan import Plan
from paper_tables.suite.progress import duration


def status(plan: Plan, store: Store) -> Iterator[str]:
    """Lines on a suite's runs, and on every run in its folder that is being made, or was begun and is not recorded."""
    recorded = sum(run.recorded for run in plan.runs)
    yield f"{recorded} of {len(plan.runs)} runs are recorded in {store.root}"
    locks = {path.parent.name: is_locked(path) for path in store.runs.glob(f"*/{LOCK}")}
    for run_id in sorted(run_id for run_id, held in locks.items() if held):
        yield f"  being made: {run_id}, {_reached(store.folder(run_id))}"
    for run_id in store.unfinished():
        held = locks.get(run_id, False)
        if held:
            continue
        if held is None:
            yield f"  being made or stopped, its lock cannot be read: {run_id}, {_reached(store.folder(run_id))}"
        elif (store.folder(run_id) / FAILURE).is_file():
            yield f"  failed: {run_id} (`bench show {run_id}` says why)"
        else:
            yield f"  stopped: {run_id}, {_reached(store.folder(run_id))}; the suite goes on with it"


def _reached(folder: Path) -> str:
    checkpoints = sorted((folder / WORK).glob("step-*"))
    if not checkpoints:
        return "no checkpoint yet"
    try:
        ago = time.time() - checkpoints[-1].stat().st_mtime
    except FileNotFoundError:  # a newer one has replaced it
        return "training"
    return f"step {int(checkpoints[-1].name.removeprefix('step-'))} {duration(max(0.0, ago))} ago"
