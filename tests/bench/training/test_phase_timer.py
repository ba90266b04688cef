"""Seconds by phase: what a phase holds when the host runs ahead of the device."""

import time

import pytest
import torch

from bench.training.phase_timer import PhaseTimer
from tests.tiny import CPU


class Stream:
    """A device beside a host: work is queued by the host and done in order; both clocks in seconds."""

    def __init__(self) -> None:
        self.host, self.device = 0.0, 0.0

    def compute(self, *, host: float = 0.0, device: float = 0.0) -> None:
        """The host takes its time, then what it queued begins as soon as the device is free."""
        self.host += host
        self.device = max(self.device, self.host) + device

    def mark(self) -> "StreamMark":
        return StreamMark(self)


class StreamMark:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def record(self) -> None:
        self.at = max(self.stream.device, self.stream.host)
        self.stream.device = self.at

    def synchronize(self) -> None:
        self.stream.host = max(self.stream.host, self.at)

    def elapsed_time(self, end_event: "StreamMark") -> float:
        return (end_event.at - self.at) * 1000


@pytest.mark.parametrize("host", [0.25, 4.0], ids=["the device is behind", "the host is behind"])
def test_phases_of_a_stream_add_up_to_its_time(host):
    stream = Stream()
    timer = PhaseTimer(CPU, stream.mark)
    for _ in range(3):
        with timer.phase("data"):
            stream.compute(host=0.5)
        with timer.phase("teacher"):
            stream.compute(host=host, device=1.0)
        with timer.phase("student"):
            stream.compute(host=host, device=2.0)
    seconds = timer.read()
    assert stream.host == stream.device == pytest.approx(sum(seconds.values()))
    if host < 1:  # its work is hidden, but for the first: nothing ran yet
        assert (seconds["data"], seconds["teacher"], seconds["student"]) == (0.5, 3.25, 6.0)
    else:  # the device waits for it
        assert seconds["teacher"] + seconds["data"] + seconds["student"] == pytest.approx(3 * (0.5 + 4 + 4) + 2)


def test_boundaries_do_not_wait_for_the_device():
    stream = Stream()
    timer = PhaseTimer(CPU, stream.mark)
    for _ in range(4):
        with timer.phase("student"):
            stream.compute(host=0.5, device=8.0)
    assert stream.host == 2.0
    assert timer.read()["student"] == 4 * 8 + 0.5
    assert stream.host == 32.5


def test_seconds_are_read_once_and_go_on():
    timer = PhaseTimer(CPU)
    timer.seconds["student"] = 100.0  # of a training that is resumed
    for _ in range(2):
        with timer.phase("student"):
            time.sleep(0.02)
        assert timer.read() == timer.read()
    assert 100.04 <= timer.read()["student"] < 101
    assert timer.read()["teacher"] == 0.0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_phases_on_cuda_add_up_to_the_wall_clock_without_waiting():
    factor = torch.randn(4096, 4096, device="cuda")

    def work() -> None:
        for _ in range(20):
            factor @ factor

    work()
    torch.cuda.synchronize()
    timer = PhaseTimer(torch.device("cuda"))
    start = time.perf_counter()
    for _ in range(3):
        with timer.phase("teacher"):
            work()
        with timer.phase("student"):
            work()
            work()
    queued = time.perf_counter() - start
    seconds = timer.read()
    wall = time.perf_counter() - start
    assert queued < wall / 2
    assert sum(seconds.values()) == pytest.approx(wall, rel=0.05)
    assert seconds["student"] == pytest.approx(2 * seconds["teacher"], rel=0.2)


def test_steps_are_told_apart_by_kind_and_leave_validation_out():
    stream = Stream()
    timer = PhaseTimer(CPU, stream.mark)
    for number, kind in enumerate(("dataset", "generate", "dataset"), start=1):
        if kind == "generate":
            with timer.phase("generation"):
                stream.compute(device=8.0)
        with timer.phase("student"):
            stream.compute(device=number)
        timer.end_step(kind)
        with timer.phase("validation"):
            stream.compute(device=100.0)
        if number == 2:
            timer.read()
    assert timer.read()["validation"] == 300.0
    assert timer.steps == {"dataset": [1.0, 3.0], "generate": [10.0]}
