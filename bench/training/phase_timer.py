"""Seconds by phase of a training, kept across a resume, and of each step by what it trained on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

Phase = Literal["data", "generation", "teacher", "student", "optimiser", "validation", "checkpoint"]
PHASES: tuple[Phase, ...] = get_args(Phase)
NOT_TRAINING: tuple[Phase, ...] = ("validation", "checkpoint")
"""What the training time leaves out."""


class HostMark:
    """What a `torch.cuda.Event` is on CUDA, by the host's clock; an MPS device then has nothing left to do."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.at = device, 0.0

    def record(self) -> None:
        """Put the mark here."""
        if self.device.type == "mps":
            torch.mps.synchronize()
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        """Nothing is left to wait for."""

    def elapsed_time(self, end_event: HostMark) -> float:
        """Milliseconds from here to a later mark."""
        return (end_event.at - self.at) * 1000


Mark = torch.cuda.Event | HostMark
"""A point in time, known once the device has reached it."""


class PhaseTimer:
    """Seconds spent in each phase of a training.

    Phases do not nest. `student` is forward and backward; `generation` is the sampling of student outputs for
    training; `validation` holds the generation it needs itself.

    On a CPU a phase lasts from where the host begins it to where it ends it. On CUDA it lasts from where the stream
    reaches its beginning to where it reaches its end: nothing waits at the boundaries, so that the host may prepare
    work while the device is busy. What it prepares then costs no time and is in no phase; where the device waits for
    it, the wait is in the phase. Either way phases add up to the training's wall-clock, but for the little that lies
    between them.

    Args:
        device: what the training runs on.
        mark: makes a mark; by default what fits the device.

    Attributes:
        seconds: by phase, as of the last `read`.
        steps: seconds of each step that this process took, without validation and checkpoints, by its kind.
    """

    def __init__(self, device: torch.device, mark: Callable[[], Mark] | None = None) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self.steps: dict[str, list[float]] = {}
        self._open: list[tuple[Phase, Mark, Mark] | str] = []
        self._step = 0.0
        if mark is None and device.type == "cuda":
            self._mark: Callable[[], Mark] = lambda: torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        else:
            self._mark = mark or (lambda: HostMark(device))

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Time a block."""
        start, end = self._mark(), self._mark()
        start.record()
        try:
            yield
        finally:
            end.record()
            self._open.append((name, start, end))

    def end_step(self, kind: str) -> None:
        """Say that the phases since the last step were one step, and of which kind."""
        self._open.append(kind)

    def read(self) -> dict[str, float]:
        """Seconds of each phase so far; waits for the device to reach the end of the last one."""
        for one in self._open:
            if isinstance(one, str):
                self.steps.setdefault(one, []).append(self._step)
                self._step = 0.0
                continue
            name, start, end = one
            end.synchronize()
            took = start.elapsed_time(end) / 1000  # type: ignore[arg-type]  # both are of one kind
            self.seconds[name] += took
            self._step += 0.0 if name in NOT_TRAINING else took
        self._open.clear()
        return dict(self.seconds)
