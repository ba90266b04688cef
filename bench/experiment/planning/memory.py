"""Memory of a training step and of generation: the real ones, run on tensors that have shapes and no contents.

The trainer's own backward pass, and the reader of the decode loop, run under PyTorch's `FakeTensorMode`, and every
tensor that lives is counted. So the figures follow the code: micro-batches, gradient checkpointing, the fused output
layer, what an objective keeps, what a family does. Layers are alike: two depths are run, the rest is a straight line.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException

from baselines.sft import CrossEntropy
from bench.experiment.planning.shapes import Shape
from bench.experiment.planning.stand_ins import Setting, job, language_model
from bench.experiment.planning.without_contents import (
    Living,
    Operations,
    OutputLayer,
    peaks_of_the_way_back,
    shapes_only,
)
from bench.models.captured import CapturedDecoders, is_captured
from bench.models.decoding import Ending, Reader, Request, choose
from bench.models.sampling import Decoding
from bench.training import gradients
from bench.training.trainer import Trainer
from distillm import Objective, token_losses
from distillm.methods import SRKL

_TRACED_DEPTHS = (2, 3)
_SHALLOW = 4  # layers; so few are run as they are


@dataclass(frozen=True)
class Pass:
    """What a pass takes, in bytes beside weights and optimiser, and in floating-point operations.

    Attributes:
        forward: at most on the way to the loss, output layer included; of generation: while prompts are read.
        early, late: at most on the first half of the way back, where activations are many, and on the second, where
            gradients are; of generation: while buffers are filled, and in a step. Each of the three is a straight
            line in the number of layers; their maximum is none.
        activations: kept for the way back, when the output layer is reached; of generation: keys and values.
        output_layer: what output layer and loss add to that.
        flops: operations of matrix products.
        stays: of generation by captured steps: buffers and a copy of the weights, which are there for the next call.
        copies: of that, the copy of the weights, which all kinds of decoding share.
    """

    forward: float
    early: float
    late: float
    activations: float
    output_layer: float
    flops: float
    stays: float = 0.0
    copies: float = 0.0

    @property
    def buffers(self) -> float:
        """What stays for this kind of decoding alone."""
        return self.stays - self.copies

    @property
    def peak(self) -> float:
        """At most, gradients included."""
        return max(self.forward, self.early, self.late)

    def to_depth(self, deeper: Pass, layers: int) -> Pass:
        """The figures of a network of so many layers, from these of two layers and others of three."""
        first, second = _TRACED_DEPTHS
        steps = (layers - first) / (second - first)
        values = zip(vars(self).values(), vars(deeper).values(), strict=True)
        return Pass(*(low + steps * (high - low) for low, high in values))


def step(student: Shape, teacher: Shape | None, objective: Objective, setting: Setting) -> Pass:
    """Forward and backward pass over one micro-batch.

    Args:
        student: trained.
        teacher: None where the objective needs none.
        objective: the method's; where its code looks at values, SRKL stands for it.
        setting: the micro-batch.
    """
    name = f"{type(objective).__module__}.{type(objective).__qualname__} {vars(objective)}"
    return _by_depth(student, teacher, lambda one, other: _step(one, other, _Named(name, objective), setting))


def validation(student: Shape, setting: Setting) -> Pass:
    """The forward pass without gradients that the validation loss of the setting's sequences takes."""
    return _by_depth(student, None, lambda one, _: _validation(one, setting))


def generation(student: Shape, teacher: Shape | None, setting: Setting, prompts: int, *, frozen: bool = False) -> Pass:
    """Reading prompts and writing the responses to them.

    Args:
        student: writes.
        teacher: of a mixture; None elsewhere.
        setting: its `sequences` are written at once.
        prompts: that are read; several responses share one where there are several decoding seeds.
        frozen: whether what writes is never trained, and its weights lie in the precision of passes.
    """
    sides = [student] if teacher is None else [student, teacher]
    captured = setting.device == "cuda" and all(is_captured(one.config) for one in sides)

    def run(one: Shape, other: Shape | None) -> Pass:
        given = one, other, setting, prompts, frozen
        plain = _generation(*given, captured=False)
        # the arithmetic is counted without what rounds sizes up
        return replace(_generation(*given, captured=True), flops=plain.flops) if captured else plain

    def beside_teacher(one: Shape, thin: Shape | None) -> Pass:
        """With all of the teacher's layers: here they keep keys and values."""
        if teacher is None:
            return run(one, thin)
        return _by_depth(teacher, None, lambda other, _: run(one, other))

    return _by_depth(student, teacher, beside_teacher)


def _by_depth(student: Shape, teacher: Shape | None, run: Callable[[Shape, Shape | None], Pass]) -> Pass:
    """A pass of networks as deep as they are, from networks of few layers."""
    depth = student.depth
    thin_teacher = teacher and _thin(teacher)
    if depth is None or depth <= _SHALLOW:
        return run(student, thin_teacher)
    found, deeper = (run(student.of_depth(layers), thin_teacher) for layers in _TRACED_DEPTHS)
    return found.to_depth(deeper, depth)


def _thin(teacher: Shape) -> Shape:
    """A teacher without most of its layers: none of them keeps anything."""
    return teacher if teacher.depth is None else teacher.of_depth(min(teacher.depth, _TRACED_DEPTHS[0]))


@dataclass(frozen=True)
class _Named:
    """An objective with what tells it from others."""

    name: str
    objective: Objective

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Named) and self.name == other.name


@functools.lru_cache(maxsize=512)
def _step(student: Shape, teacher: Shape | None, objective: _Named, setting: Setting) -> Pass:
    try:
        return _traced_step(student, teacher, objective.objective, setting)
    except DataDependentOutputException:
        stands_in = SRKL() if objective.objective.needs_teacher else CrossEntropy()
        return _traced_step(student, teacher, stands_in, setting)


def _traced_step(student: Shape, teacher: Shape | None, objective: Objective, setting: Setting) -> Pass:
    with shapes_only(setting.device):
        made = job(student, teacher, objective, setting, "cpu")
        trainer = Trainer(made)
        trainer.set_modes()
        parameters = [p for p in made.student.network.parameters() if p.requires_grad]
        with Operations() as counter, Living() as living:
            base = living.note_all(
                *made.student.network.parameters(), *(made.teacher.network.parameters() if made.teacher else ())
            )
            if setting.accumulating:
                for parameter in parameters:
                    parameter.grad = torch.zeros_like(parameter)
            added = living.now - base
            head = OutputLayer(living, counter, base + added)
            peaks = peaks_of_the_way_back(living, parameters)
            with patch.object(gradients, "token_losses", head.watched(token_losses)):
                trainer.gradient.backward(objective, list(made.train), 1.0, None)
        flops = counter.get_total_flops() + head.uncounted
        forward, early, late = (peak - base for peak in (*peaks, living.peak))
        return Pass(forward, early, late, head.reached_at, head.added, flops)


@functools.lru_cache(maxsize=512)
def _validation(student: Shape, setting: Setting) -> Pass:
    with shapes_only(setting.device), torch.no_grad():
        made = job(student, None, CrossEntropy(), setting, "cpu")
        made.student.network.eval()
        with Operations() as counter, Living() as living:
            weights = living.note_all(*made.student.network.parameters())
            with made.autocast():
                made.student.log_probs(made.student.batch(made.train))
        peak = living.peak - weights
        return Pass(peak, peak, peak, 0.0, 0.0, counter.get_total_flops())


@functools.lru_cache(maxsize=512)
def _generation(
    student: Shape, teacher: Shape | None, setting: Setting, prompts: int, frozen: bool, *, captured: bool
) -> Pass:
    low = torch.bfloat16 if setting.bf16 else torch.float32
    with shapes_only(setting.device), torch.inference_mode():
        sides = [language_model(student, "cpu", low if frozen else torch.float32)]
        if teacher is not None:
            sides.append(language_model(teacher, "cpu", low))
        ids = torch.zeros(prompts, setting.prompt, dtype=torch.long)
        mask = torch.ones_like(ids)
        rows = torch.arange(prompts).repeat_interleave(math.ceil(setting.sequences / prompts))
        uniform = torch.zeros(len(rows), setting.response, dtype=torch.float64)
        for side in sides:
            side.network.eval()
        with Operations() as flops, Living() as living:
            weights = living.note_all(*(weight for side in sides for weight in side.network.parameters()))
            with torch.autocast("cpu", torch.bfloat16, enabled=setting.bf16):
                readers = [Reader(side.network, 0 if side.kind == "seq2seq" else None) for side in sides]
                for reader in readers:
                    reader.prefill(ids, mask)
                reading, living.peak = living.peak, living.now
                decoding, ending = Decoding(setting.response), Ending(torch.tensor([1]))
                request = Request(ids, mask, uniform, decoding, ending, teacher_mix=0.5)
                copies = 0
                if captured:
                    decoder, size = CapturedDecoders().decoder(readers, request)
                    decoder.fill(readers, request)
                    copies = sum(one.nbytes for reader in decoder.readers for one in reader.weights.values())
                    before, kept, filling = flops.get_total_flops(), living.now, living.peak
                    living.peak = kept
                    decoder.step(size)
                else:
                    for reader in readers:
                        reader.spread(rows, setting.response - 1)
                    before, kept, filling = flops.get_total_flops(), living.now, living.peak
                    living.peak = kept
                    logits = [reader.step(rows) for reader in readers]
                    choose(logits[0], uniform[:, :1], 0, decoding, ending)
        written = (flops.get_total_flops() - before) * setting.response
        stays = kept - weights if captured else 0
        read, filled, wrote = (peak - weights for peak in (reading, filling, living.peak))
        return Pass(read, filled, wrote, kept - weights, living.peak - kept, before + written, stays, copies)
