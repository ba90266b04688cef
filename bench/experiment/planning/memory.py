"""Memory of a training step and of generation: the real ones, run on tensors that have shapes and no contents.

The trainer's own backward pass, and the reader of the decode loop, run under PyTorch's `FakeTensorMode`, and every
tensor that lives is counted. So the figures follow the code: micro-batches, gradient checkpointing, the fused output
layer, what an objective keeps, what a family does. Layers are alike: two depths are run, the rest is a straight line.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from baselines.sft import CrossEntropy
from bench.config.sections import LoraConfig, TrainingConfig
from bench.experiment.planning.shapes import Shape
from bench.models.captured import CapturedDecoders, is_captured
from bench.models.decoding import Ending, Reader, choose
from bench.models.language_model import LanguageModel
from bench.models.output_head import AfterHead
from bench.models.sampling import Decoding
from bench.models.tokenizer import TokenizerAdapter
from bench.training import gradients
from bench.training.job import TrainingJob, ValidationSet
from bench.training.trainer import Trainer
from distillm import Objective, OutputSource, SourceOptions, TokenSequence, token_losses
from distillm.divergences import ENTRIES, slices
from distillm.fused import CHUNK, Projection
from distillm.methods import SRKL

_TRACED_DEPTHS = (2, 3)
_RAND = torch.rand
_SHALLOW = 4  # layers; so few are run as they are


@dataclass(frozen=True)
class Setting:
    """What determines the memory and arithmetic of a pass, beside models and objective.

    Attributes:
        device: type of the device that is planned for.
        bf16: whether passes are in bfloat16.
        sequences: at once.
        prompt, response: tokens of each.
        checkpointing: of gradients.
        accumulating: gradients are there already, of an earlier micro-batch or, with captured passes, an earlier step.
        lora: the adapters that are trained, as JSON; empty where all weights are.
    """

    device: str
    bf16: bool
    sequences: int
    prompt: int
    response: int
    checkpointing: bool = False
    accumulating: bool = False
    lora: str = ""


@dataclass(frozen=True)
class Pass:
    """What a pass takes, in bytes beside weights and optimiser, and in floating-point operations.

    Attributes:
        forward: at most on the way to the loss, output layer included; of a mixture's generation: while prompts are
            read.
        early, late: at most on the first half of the way back, where activations are many, and on the second, where
            gradients are; of a mixture's: while buffers are filled, and in a step. Each of the three is a straight
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


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, Tensor):
                self.note(one)
        return made

    def note(self, tensor: Tensor) -> None:
        """Count a tensor, until it is gone."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key, size)

    def note_all(self, *tensors: Tensor) -> int:
        """Count tensors; returns all that is alive."""
        for tensor in tensors:
            self.note(tensor)
        return self.now

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


class _Operations(FlopCounterMode):
    """Counts the whole, not each module: for these it would keep alive all that checkpointing forms again."""

    def __init__(self) -> None:
        super().__init__(display=False)
        self.mod_tracker = _NoModules()


class _NoModules(ModuleTracker):
    def __enter__(self) -> _NoModules:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def step(student: Shape, teacher: Shape | None, objective: Objective, setting: Setting) -> Pass:
    """Forward and backward pass over one micro-batch.

    Args:
        student: trained.
        teacher: None where the objective needs none.
        objective: the method's; where its code looks at values, SRKL stands for it.
        setting: the micro-batch.
    """
    name = f"{type(objective).__module__}.{type(objective).__qualname__} {vars(objective)}"
    return _by_depth(
        student,
        teacher,
        lambda one, other: _step(_Known(one), other and _Known(other), _Named(name, objective), setting),
    )


def validation(student: Shape, setting: Setting) -> Pass:
    """The forward pass without gradients that the validation loss of the setting's sequences takes."""
    return _by_depth(student, None, lambda one, _: _validation(_Known(one), setting))


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
        known = _Known(one), other and _Known(other), setting, prompts, frozen
        plain = _generation(*known, captured=False)
        # the arithmetic is counted without what rounds sizes up
        return replace(_generation(*known, captured=True), flops=plain.flops) if captured else plain

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


class _Known:
    """A shape that equals others of the same architecture, for a cache."""

    def __init__(self, shape: Shape) -> None:
        self.shape, self.key = shape, shape.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Known) and self.key == other.key


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
def _step(student: _Known, teacher: _Known | None, objective: _Named, setting: Setting) -> Pass:
    try:
        return _traced_step(student.shape, None if teacher is None else teacher.shape, objective.objective, setting)
    except DataDependentOutputException:
        stands_in = SRKL() if objective.objective.needs_teacher else CrossEntropy()
        return _traced_step(student.shape, None if teacher is None else teacher.shape, stands_in, setting)


def _traced_step(student: Shape, teacher: Shape | None, objective: Objective, setting: Setting) -> Pass:
    with _shapes_only(setting):
        made = job(student, teacher, objective, setting, "cpu")
        trainer = Trainer(made)
        trainer.set_modes()
        parameters = [p for p in made.student.network.parameters() if p.requires_grad]
        with _Operations() as counter, _Living() as living:
            base = living.note_all(
                *made.student.network.parameters(), *(made.teacher.network.parameters() if made.teacher else ())
            )
            if setting.accumulating:
                for parameter in parameters:
                    parameter.grad = torch.zeros_like(parameter)
            added = living.now - base
            head = _OutputLayer(living, counter, base + added)
            peaks = _peaks_of_the_way_back(living, parameters)
            with patch.object(gradients, "token_losses", head.watched(token_losses)):
                trainer.gradient.backward(objective, list(made.train), 1.0, None)
        flops = counter.get_total_flops() + head.uncounted
        forward, early, late = (peak - base for peak in (*peaks, living.peak))
        return Pass(forward, early, late, head.reached_at, head.added, flops)


def _peaks_of_the_way_back(living: _Living, parameters: list[torch.nn.Parameter]) -> list[int]:
    """Filled with the peak until a first gradient is there, and from there until half of them are."""
    peaks: list[int] = []
    there: list[None] = []

    def arrived(_: Tensor) -> None:
        there.append(None)
        if len(there) == 1 or (len(there) >= len(parameters) / 2 and len(peaks) == 1):
            peaks.append(living.peak)
            living.peak = living.now

    for parameter in parameters:
        parameter.register_post_accumulate_grad_hook(arrived)  # type: ignore[no-untyped-call]
    return peaks


class _OutputLayer:
    """Watches the fused output layer, of which a few chunks stand for all.

    Attributes:
        reached_at: bytes of activations when it is reached.
        added: bytes that it adds to them.
        uncounted: its operations, less those that were counted.
    """

    def __init__(self, living: _Living, counter: _Operations, base: int) -> None:
        self.living, self.counter, self.base = living, counter, base
        self.reached_at = self.added = self.uncounted = 0

    def watched(self, whole: Callable[..., Any]) -> Callable[..., Any]:
        """The function that is watched, in place of itself."""

        def call(objective: Objective, student: Projection, teacher: Projection | None, *others: Any) -> Any:
            before, so_far, counted = self.living.now, self.living.peak, self.counter.get_total_flops()
            self.living.peak = before
            made = whole(objective, student, teacher, *others)
            self.reached_at, self.added = before - self.base, self.living.peak - before
            self.living.peak = max(so_far, self.living.peak)
            passes = [(student, 3), (teacher, 1)]  # the student's also makes two gradients
            of_all = sum(2 * times * len(one.hidden) * one.weight.numel() for one, times in passes if one is not None)
            self.uncounted += of_all - (self.counter.get_total_flops() - counted)
            return made

        return call


def job(
    student: Shape, teacher: Shape | None, objective: Objective, setting: Setting, device: str, seed: int = 0
) -> TrainingJob:
    """A training of random models on sequences of the setting's lengths."""
    frozen = torch.bfloat16 if setting.bf16 else torch.float32
    sequences = [
        TokenSequence(str(i), (0,) * setting.prompt, (1,) * setting.response, token_values=_columns(setting.response))
        for i in range(setting.sequences)
    ]
    given = {"steps": 2, "batch_size": setting.sequences, "learning_rate": 1e-9, "select_by": "loss"}
    config = TrainingConfig.model_validate(given | {"gradient_checkpointing": setting.checkpointing})
    trained = language_model(student, device, frozen if setting.lora else torch.float32)
    if setting.lora:
        # peft moves new adapters to where the weights are: they are there, and what has no contents cannot be moved
        with patch.object(torch.nn.Module, "to", lambda module, *_, **__: module):
            trained.add_adapter(LoraConfig.model_validate_json(setting.lora), seed)
    return TrainingJob(
        label="a plan",
        objective=objective,
        output_source=OutputSource("dataset", SourceOptions(), total_steps=2, batch_size=setting.sequences),
        student=trained,
        teacher=language_model(teacher, device, frozen) if teacher and objective.needs_teacher else None,
        train=sequences,
        validation=ValidationSet(sequences, lambda texts: 0.0, Decoding(setting.response), setting.sequences),
        config=config,
        max_response_length=setting.response,
        seed=seed,
        work=Path(os.devnull),  # nothing is saved or read
        on_step=lambda step, total, figures: None,
        note=lambda text: None,
        precision="bf16" if setting.bf16 else "fp32",
    )


def _columns(length: int) -> dict[str, tuple[float, ...]]:
    return dict.fromkeys(("student", "teacher"), (0.0,) * length)


def language_model(shape: Shape, device: str, dtype: torch.dtype) -> LanguageModel:
    """A model of a shape, with a tokenizer that only knows its special ids, and a plain output layer."""
    tokenizer = SimpleNamespace(kind=shape.kind, pad_id=0, eos_id=1, size=shape.config.get_text_config().vocab_size)
    network = shape.network(device, dtype)
    network.config.decoder_start_token_id = 0
    model = LanguageModel(network, cast(TokenizerAdapter, tokenizer), shape.name)
    vars(model)["after_head"] = AfterHead()  # finding it out needs numbers
    return model


@functools.lru_cache(maxsize=512)
def _validation(student: _Known, setting: Setting) -> Pass:
    with _shapes_only(setting), torch.no_grad():
        made = job(student.shape, None, CrossEntropy(), setting, "cpu")
        made.student.network.eval()
        with _Operations() as counter, _Living() as living:
            weights = living.note_all(*made.student.network.parameters())
            with made.autocast():
                made.student.log_probs(made.student.batch(made.train))
        peak = living.peak - weights
        return Pass(peak, peak, peak, 0.0, 0.0, counter.get_total_flops())


@functools.lru_cache(maxsize=512)
def _generation(
    student: _Known, teacher: _Known | None, setting: Setting, prompts: int, frozen: bool, *, captured: bool
) -> Pass:
    low = torch.bfloat16 if setting.bf16 else torch.float32
    with _shapes_only(setting), torch.inference_mode():
        sides = [language_model(student.shape, "cpu", low if frozen else torch.float32)]
        if teacher is not None:
            sides.append(language_model(teacher.shape, "cpu", low))
        ids = torch.zeros(prompts, setting.prompt, dtype=torch.long)
        mask = torch.ones_like(ids)
        rows = torch.arange(prompts).repeat_interleave(math.ceil(setting.sequences / prompts))
        uniform = torch.zeros(len(rows), setting.response, dtype=torch.float64)
        for side in sides:
            side.network.eval()
        with _Operations() as flops, _Living() as living:
            weights = living.note_all(*(weight for side in sides for weight in side.network.parameters()))
            with torch.autocast("cpu", torch.bfloat16, enabled=setting.bf16):
                readers = [Reader(side.network, 0 if side.kind == "seq2seq" else None) for side in sides]
                for reader in readers:
                    reader.prefill(ids, mask)
                reading, living.peak = living.peak, living.now
                decoding, ending = Decoding(setting.response), Ending(torch.tensor([1]))
                copies = 0
                if captured:
                    decoder, size = CapturedDecoders().decoder(readers, decoding, ending, 0.5, ids.shape, len(rows))
                    decoder.fill(readers, ids, mask, len(rows) // prompts, uniform, ending)
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
        if teacher is None:  # one line for all three, which is too low for networks of many layers
            read = filled = wrote = max(read, filled, wrote)
        return Pass(read, filled, wrote, kept - weights, living.peak - kept, before + written, stays, copies)


@contextmanager
def _shapes_only(setting: Setting) -> Iterator[None]:
    """Tensors without contents; on them, what is otherwise on CUDA is done as there."""
    quiet = logging.getLogger("transformers")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    cuda = setting.device == "cuda"
    sizes = {"cpu": CHUNK["cuda"]}, {"cpu": ENTRIES.get("cuda", ENTRIES["cpu"])}
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        patch.dict(CHUNK, sizes[0]) if cuda else nullcontext(),
        patch.dict(ENTRIES, sizes[1]) if cuda else nullcontext(),
        patch("torch.nn.functional.scaled_dot_product_attention", _efficient) if cuda else nullcontext(),
        patch("bench.models.output_head.float32_logits", _logits) if cuda else nullcontext(),
        patch("distillm.fused.slices", _few),
        patch("torch.rand", _rand),
    ):
        try:
            yield
        finally:
            quiet.setLevel(level)


def _few(total: int, size: int) -> Iterator[slice]:
    """The first and the last of the slices: the others take what these take."""
    found = list(slices(total, size))
    return iter([*found[:1], *found[1:][-1:]])


def _rand(*size: Any, **options: Any) -> Any:
    """A number that leaves no layer out, where a family draws one to leave out layers by."""
    return 1.0 if size == ([],) else _RAND(*size, **options)


def _logits(hidden: Tensor, head: torch.nn.Linear, low: torch.dtype) -> Tensor:
    """What the product with results in float32 takes on CUDA."""
    return torch.nn.functional.linear(hidden, head.weight, head.bias).float()


def _efficient(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **_: Any,
) -> Tensor:
    """Attention as the kernels on CUDA do it: nothing of query x key is kept."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    bias = None if attn_mask is None else attn_mask.to(query.dtype).expand(*query.shape[:3], key.shape[2])
    needs = torch.is_grad_enabled() and query.requires_grad
    made = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, needs, dropout_p, is_causal, scale=scale
    )
    out: Tensor = made[0]
    return out
