"""Where the stages of a run keep what runs share, and whom they tell of their progress."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bench.system.artifacts import ArtifactCache, default_root
from bench.system.processes import ALONE, Processes
from bench.system.progress import Reporter


class Workshop(NamedTuple):
    """Where stages keep what runs share, and whom they tell of their progress."""

    cache: ArtifactCache
    reporter: Reporter
    processes: Processes = ALONE

    @classmethod
    def of(cls, reporter: Reporter) -> Workshop:
        """A workshop with the user's artifact cache."""
        return cls(ArtifactCache(default_root(), reporter.note), reporter)

    def make(self, kind: str, key: dict[str, Any], build: Callable[[Path], None]) -> Path:
        """An artifact as `ArtifactCache.get` gives it, made by all processes of the run.

        The leader asks the cache, and holds its lock; the others help where there is something to make, and write
        nothing: `build` leaves that to the leader.
        """
        processes = self.processes
        if not processes.leads:
            while folder := processes.tell(""):
                build(Path(folder))
                processes.wait()
            return self.cache.place(kind, key)

        def lead(folder: Path) -> None:
            processes.tell(str(folder))
            build(folder)
            processes.wait()  # the others may still read what lies there

        made = self.cache.get(kind, key, lead)
        processes.tell("")
        return made

    def on_step(self, step: int, total: int, figures: dict[str, float]) -> None:
        """Show a training step."""
        shown = {key: f"{value:.3f}" if isinstance(value, float) else value for key, value in figures.items()}
        self.reporter.progress(step, total, ", ".join(f"{key} {value}" for key, value in shown.items()))
