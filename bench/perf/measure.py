"""Arms measured in turns, so that the noise of a shared machine falls on all of them alike."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from bench.system.environment import resident
from bench.system.manifest import Plain

Part = Literal["head", "step", "generation", "evaluation", "commands"]
OURS = "ours"


class Sample(Plain):
    """One call of an arm.

    Attributes:
        work: how much useful work it did, in the comparison's unit.
        cpu_seconds: of all threads of the process.
        wall_seconds: with an accelerator's queue drained before and after.
        memory_mib: the peak of memory above what was held before: on CUDA as PyTorch allocates it, elsewhere of the
            process's resident set; None where the system does not tell.
    """

    work: float
    cpu_seconds: float
    wall_seconds: float
    memory_mib: float | None = None


Arm = Callable[[], Sample]


class Timing(Plain):
    """All samples of one arm of a comparison, in the order in which they were taken."""

    samples: list[Sample]

    def seconds(self, clock: Literal["cpu", "wall"]) -> float:
        """Median over the samples of the seconds that a unit of work took."""
        return statistics.median(
            (one.cpu_seconds if clock == "cpu" else one.wall_seconds) / one.work for one in self.samples
        )

    @property
    def memory_mib(self) -> float | None:
        """The median peak of memory; None where it was not measured."""
        known = [one.memory_mib for one in self.samples if one.memory_mib is not None]
        return statistics.median(known) if known else None


class Comparison(Plain):
    """One piece of work, done by several arms.

    Attributes:
        part: the part of `bench perf` it belongs to.
        name: what is done, with its size.
        unit: what work is counted in.
        clock: the seconds that ratios are taken of: the CPU's where it does the work, wall-clock on an accelerator.
        arms: what was measured, the engine of this package as `ours`.
        absent: why an arm was not measured.
        order: the arms as they took turns.
    """

    part: Part
    name: str
    unit: str
    clock: Literal["cpu", "wall"]
    arms: dict[str, Timing]
    absent: dict[str, str]
    order: list[str]

    def speed(self, against: str) -> float | None:
        """How many times as fast as another arm ours is; None where that arm is absent."""
        if against not in self.arms:
            return None
        return self.arms[against].seconds(self.clock) / self.arms[OURS].seconds(self.clock)

    def memory(self, against: str) -> float | None:
        """Our peak memory as a share of another arm's; None where one is not known."""
        ours, theirs = self.arms[OURS].memory_mib, self.arms[against].memory_mib if against in self.arms else None
        return ours / theirs if ours is not None and theirs else None


@dataclass(frozen=True)
class Pace:
    """How many rounds: at least `least`, then more until `seconds` have passed, at most `most`.

    A first round is made before and not counted where `warm_up` is set.
    """

    least: int
    most: int
    seconds: float
    warm_up: bool = True


class Meter:
    """Measures from the moment it is made: time, and the peak of memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._held = self._start_memory()
        self._synchronise()
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def sample(self, work: float) -> Sample:
        """What was measured until now, for so much work."""
        self._synchronise()
        cpu, wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
        return Sample(work=work, cpu_seconds=cpu, wall_seconds=wall, memory_mib=self._memory())

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _start_memory(self) -> float | None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return torch.cuda.memory_allocated(self.device) / 2**20
        try:
            ctypes.CDLL(None).malloc_trim(0)  # else what is used again would not count
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins again at what is held now
        except (OSError, AttributeError):
            return None
        return _resident("VmRSS")

    def _memory(self) -> float | None:
        if self._held is None:
            return None
        cuda = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self.device) / 2**20 if cuda else _resident("VmHWM")
        return max(0.0, peak - self._held)


def _resident(field: str, process: int | Literal["self"] = "self") -> float:
    """A field of a process's status in MiB."""
    return resident(field, process) / 2**20


def peak_mib(process: int) -> float | None:
    """The largest resident set that a process has had; None if it is over or the system does not tell."""
    try:
        return _resident("VmHWM", process)
    except OSError:
        return None


def timed(device: torch.device, function: Callable[[], float]) -> Arm:
    """An arm of a function that returns how much work it did."""

    def arm() -> Sample:
        meter = Meter(device)
        return meter.sample(function())

    return arm


def compare(
    part: Part,
    name: str,
    unit: str,
    device: torch.device,
    pace: Pace,
    ours: Arm,
    others: Mapping[str, Arm | str],
) -> Comparison:
    """Measure ours and the other arms in turns, each second round in reverse order.

    Args:
        part, name, unit: see `Comparison`.
        device: decides the clock.
        pace: how many rounds.
        ours: this package's engine; what it raises is raised.
        others: arms by name, or the reason why one is absent. An arm that fails is absent as well.
    """
    arms: dict[str, Arm] = {OURS: ours} | {key: arm for key, arm in others.items() if not isinstance(arm, str)}
    absent = {key: reason for key, reason in others.items() if isinstance(reason, str)}
    samples: dict[str, list[Sample]] = {key: [] for key in arms}
    order: list[str] = []
    started, made = time.perf_counter(), -int(pace.warm_up)
    while made < pace.least or (made < pace.most and time.perf_counter() - started < pace.seconds):
        for key in list(arms) if made % 2 == 0 else list(reversed(arms)):
            try:
                sample = arms[key]()
            except Exception as error:
                if key == OURS:
                    raise
                absent[key] = f"failed: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
                del arms[key], samples[key]
                continue
            if made >= 0:
                samples[key].append(sample)
                order.append(key)
        made += 1
        if made == 0:
            started = time.perf_counter()
    return Comparison(
        part=part,
        name=name,
        unit=unit,
        clock="wall" if device.type == "cuda" else "cpu",
        arms={key: Timing(samples=list(taken)) for key, taken in samples.items()},
        absent=absent,
        order=order,
    )
