"""A suite within a time limit: which runs still fit, by what runs like them took."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from bench.record.record import RunRecord
from bench.record.store import RECORD, Store
from paper_tables.suite.plan import PlannedRun, kinds_of_record, kinds_of_run

STOPPING = 20.0
"""Seconds kept for a run that is stopped to end, and for packing."""
OVERHEAD = 10.0
"""Seconds that a process takes to start, until one was seen."""
SHARED_STAGES = ("teacher", "init student")
"""Stages of a run whose results other runs find made."""


class TimeLimit:
    """When a suite has to be over.

    Args:
        minutes: from `began` on.
        store: of the records that estimates are made from.
        preset: name of the runs' scale.
        began: by the clock `time.monotonic`.
    """

    def __init__(self, minutes: float, store: Store, preset: str, began: float) -> None:
        self.minutes, self.store, self.preset = minutes, store, preset
        # of a limit of seconds, as tests have, most is for runs
        self.overhead = OVERHEAD
        self._read: list[RunRecord] = []
        self._files: set[Path] = set()
        self.stop_at = began + 60.0 * minutes - min(STOPPING, 60.0 * minutes / 10)

    @property
    def left(self) -> float:
        """Seconds for runs that are left."""
        return self.stop_at - time.monotonic()

    def records(self) -> list[RunRecord]:
        """What the estimates are made from, read again when there are others."""
        files = set(self.store.runs.glob(f"*/{RECORD}"))
        if files != self._files:
            records = (record for record in self.store.all() if record.evaluated is None)
            self._files, self._read = files, [one for one in records if one.config.preset == self.preset]
        return self._read

    def fitting(self, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
        """Those of some runs that can be over in time as far as is known; of which nothing is known may."""
        records = self.records()
        seconds = {run: estimate(run, records) for run in runs}
        return [run for run in runs if (one := seconds[run]) is None or one + self.overhead < self.left]

    def took(self, run: PlannedRun, seconds: float) -> None:
        """Learn from a run that was just made: its process takes longer than its record says."""
        kind = (kinds_of_run(run)[0], run.seed)
        made = [record for record in self.records() if (kinds_of_record(record)[0], record.seed) == kind]
        if made:
            self.overhead = max(0.0, seconds - max(made, key=lambda one: one.started).seconds)


def estimate(run: PlannedRun, records: Iterable[RunRecord]) -> float | None:
    """Seconds of a run: its own stages as runs like it had them, and what it has to make first for others.

    The teacher counts where its task and pair have no run yet, the init student where they have none of the training
    seed. None without a record.
    """
    records = list(records)
    if not records:
        return None
    kinds = kinds_of_run(run)
    of_kind = ([record for record in records if kind in kinds_of_record(record)] for kind in kinds)
    own = fmean(map(_own_seconds, next(found for found in of_kind if found)))
    of_pair = [record for record in records if kinds[2] in kinds_of_record(record)]
    if not of_pair:
        own += max(record.time.stages.get("teacher", 0.0) for record in records)
    if not any(record.seed == run.seed for record in of_pair):
        costs: dict[tuple[str, str, int], float] = {}  # of each init student, by the run that made it
        for record in of_pair or records:
            made = (record.task, record.config.models.name, record.seed)
            costs[made] = max(costs.get(made, 0.0), record.time.stages.get("init student", 0.0))
        own += min(costs.values(), default=0.0)
    return own


def _own_seconds(record: RunRecord) -> float:
    """Of a run that was resumed, what it trained before is not in the seconds of its last process."""
    before = max(0.0, record.time.training_seconds - record.time.stages.get("training", record.time.training_seconds))
    return before + record.seconds - sum(record.time.stages.get(stage, 0.0) for stage in SHARED_STAGES)
