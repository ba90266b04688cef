"""Tensors that have shapes and no contents: PyTorch's `FakeTensorMode`, with what is counted on them.

`shapes_only` makes them, and has done on them what CUDA's kernels do. `Living` counts bytes, `Operations` the
arithmetic of matrix products; `OutputLayer` and `peaks_of_the_way_back` say at which point of a training step.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from distillm import Objective
from distillm.divergences import ENTRIES, slices
from distillm.fused import CHUNK, Projection

_RAND = torch.rand


@contextmanager
def shapes_only(device: str) -> Iterator[None]:
    """Tensors without contents; on them, what is otherwise on CUDA is done as there.

    Args:
        device: type of the device that is stood for, cpu or cuda.
    """
    quiet = logging.getLogger("transformers")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    cuda = device == "cuda"
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


class Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
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


class Operations(FlopCounterMode):
    """Counts the whole, not each module: for these it would keep alive all that checkpointing forms again."""

    def __init__(self) -> None:
        super().__init__(display=False)
        self.mod_tracker = _NoModules()


class _NoModules(ModuleTracker):
    def __enter__(self) -> _NoModules:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def peaks_of_the_way_back(living: Living, parameters: list[torch.nn.Parameter]) -> list[int]:
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


class OutputLayer:
    """Watches the fused output layer, of which a few chunks stand for all.

    Attributes:
        reached_at: bytes of activations when it is reached.
        added: bytes that it adds to them.
        uncounted: its operations, less those that were counted.
    """

    def __init__(self, living: Living, counter: Operations, base: int) -> None:
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
