"""Wall-clock by phase, with the device synchronised, kept across a resume."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

Phase = Literal["data", "generation", "teacher", "student", "optimiser", "validation", "checkpoint"]
PHASES: tuple[Phase, ...] = get_args(Phase)


class PhaseTimer:
    """Seconds spent in each phase of a training.

    Phases do not nest. `student` is forward and backward; `generation` is the sampling of student outputs for
    training; `validation` holds the generation it needs itself.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Time a block; an accelerator's queue is drained before and after."""
        self._synchronise()
        start = time.perf_counter()
        try:
            yield
        finally:
            self._synchronise()
            self.seconds[name] += time.perf_counter() - start

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()
