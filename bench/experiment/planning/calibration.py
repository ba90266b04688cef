"""How fast the device at hand is: a few steps of real layers, in about a minute."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from baselines.sft import CrossEntropy
from bench.experiment.planning.memory import step
from bench.experiment.planning.shapes import Shape
from bench.experiment.planning.stand_ins import Setting, job, language_model
from bench.models.sampling import Decoding
from bench.system.environment import autocast
from bench.training.trainer import Trainer
from distillm import TokenSequence

_DEPTHS = (1, 2)
_TOKENS = {"cpu": 256, "cuda": 4096}  # of a step that is measured
_DECODED = 8  # tokens of a row
_TIMES = 3


@dataclass(frozen=True)
class SideSpeed:
    """A model's speed.

    Attributes:
        training: operations a second of forward and backward pass.
        decode_step: seconds in which every row of a batch gets a token.
        measured: on how many layers.
    """

    training: float
    decode_step: float
    measured: str


@dataclass(frozen=True)
class Speed:
    """Speeds by architecture, as measured on a device."""

    device: str
    sides: Mapping[Shape, SideSpeed]

    def of(self, shape: Shape) -> SideSpeed:
        """A model's."""
        return self.sides[shape]


def calibrate(
    shapes: Mapping[str, Shape],
    device: torch.device,
    *,
    bf16: bool,
    rows: int,
    prompt: int,
    response: int,
    told: Callable[[str], None] = lambda what: None,
) -> Speed:
    """Measure training and decoding of some models, each on one and on two of its layers, and once in a process.

    Args:
        shapes: what to measure, by name.
        device: where.
        bf16: whether passes are in bfloat16.
        rows: written at once.
        prompt, response: mean lengths.
        told: what is being measured.
    """
    sides = {}
    for name, shape in shapes.items():
        told(name)
        sides[shape] = _measured(shape, device, bf16, rows, prompt, response)
    return Speed(device.type, sides)


@functools.lru_cache(maxsize=512)
def _measured(shape: Shape, device: torch.device, bf16: bool, rows: int, prompt: int, response: int) -> SideSpeed:
    depth = shape.depth
    parts = {1: shape} if depth is None or depth <= _DEPTHS[1] else {n: shape.of_depth(n) for n in _DEPTHS}
    sequences = max(1, _TOKENS.get(device.type, _TOKENS["cpu"]) // (prompt + response))
    setting = Setting(device.type, bf16, sequences, prompt, response)
    few = min(rows, rows if device.type == "cuda" else 16)
    seconds: dict[int, float] = {}
    decoding: dict[int, float] = {}
    for layers, part in parts.items():
        seconds[layers] = _time_of_step(part, setting, device)
        decoding[layers] = _time_of_decoding(part, few, prompt, device, bf16) * (rows / few)
    whole = step(shape, None, CrossEntropy(), setting).flops
    return SideSpeed(
        training=whole / _at_depth(seconds, depth),
        decode_step=_at_depth(decoding, depth),
        measured=f"{' and '.join(map(str, parts))} of {depth} layers" if len(parts) > 1 else "the whole model",
    )


def _time_of_step(shape: Shape, setting: Setting, device: torch.device) -> float:
    trainer = Trainer(job(shape, None, CrossEntropy(), setting, device.type))
    batch = list(trainer.job.train)
    return _time(device, lambda: trainer.gradient.backward(CrossEntropy(), batch, 1.0, None))


def _time_of_decoding(shape: Shape, rows: int, prompt: int, device: torch.device, bf16: bool) -> float:
    """Seconds of one token for each row."""
    model = language_model(shape, device.type, torch.float32)
    asked = [TokenSequence(str(row), (0,) * prompt, (1,)) for row in range(rows)]

    def write() -> None:
        with autocast(device, "bf16" if bf16 else "fp32"):
            model.sample(asked, Decoding(_DECODED), 0, lengths=[_DECODED] * rows)

    return _time(device, write) / _DECODED


def _at_depth(seconds: dict[int, float], depth: int | None) -> float:
    if len(seconds) == 1 or depth is None:
        return next(iter(seconds.values()))
    one, two = (seconds[n] for n in _DEPTHS)
    return one + max(0.0, two - one) * (depth - 1)


def _time(device: torch.device, work: Callable[[], object]) -> float:
    """The least seconds of a few times, after one that does not count."""
    found = []
    for _ in range(1 + _TIMES):
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - begun)
    return min(found[1:])
