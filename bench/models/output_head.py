"""The output layer, wrapped once when a model is loaded, so that only response positions are projected.

The hidden states are gathered just before the output layer: the projection to the vocabulary, the largest part of a
small model's work, happens at response positions only, and whatever a family does around it (scaling, capping) stays as
it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bench.system.errors import BenchError


class ResponseHead(nn.Linear):
    """A linear output layer that can be told the positions to project at.

    It shares weight and bias with the layer it stands for, so that tied embeddings stay tied and checkpoints keep their
    names. Without positions, as in generation, it is that layer.
    """

    positions: Tensor | None = None

    @classmethod
    def sharing(cls, layer: nn.Linear) -> ResponseHead:
        """A head with the parameters of a layer."""
        head = cls(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        head.weight, head.bias = layer.weight, layer.bias
        return head

    @contextmanager
    def at(self, positions: Tensor) -> Iterator[None]:
        """Project at these positions, a (B, T) mask, for the time of the block."""
        self.positions = positions
        try:
            yield
        finally:
            self.positions = None

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits of (B, T, H) hidden states: (B, T, V), or (N, V) in float32 at the N chosen positions.

        At chosen positions the projection is in float32 also under autocast and for weights in bfloat16: logits rounded
        to 8 bits bend a divergence's gradient by several per cent where teacher and student are close, while its value
        looks right.
        """
        if self.positions is None:
            return _sliced(hidden, self) if _slices_pay(hidden, self.weight) else super().forward(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.float()
            return nn.functional.linear(hidden[self.positions].float(), self.weight.float(), bias)


_SLICE = 1024  # entries of the vocabulary whose logits, for a batch of rows, stay in a core's cache
_FEW_ROWS = 12  # up to which the transposed product is the faster one


def _slices_pay(hidden: Tensor, weight: Tensor) -> bool:
    return (
        hidden.device.type == "cpu"
        and hidden.dtype == weight.dtype == torch.float32
        and len(weight) > 4 * _SLICE
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


def _sliced(hidden: Tensor, head: nn.Linear) -> Tensor:
    """Logits of a decoding step on a CPU in 0.5 to 0.9 of the time that one product over a large vocabulary takes."""
    rows = hidden.reshape(-1, hidden.shape[-1])
    if len(rows) <= _FEW_ROWS:
        logits = torch.mm(head.weight, rows.t()).t()
    else:
        logits = rows.new_empty(len(rows), len(head.weight))
        for start in range(0, len(head.weight), _SLICE):
            torch.mm(rows, head.weight[start : start + _SLICE].t(), out=logits[:, start : start + _SLICE])
    if head.bias is not None:
        logits = logits + head.bias
    return logits.reshape(*hidden.shape[:-1], -1)


def wrap_output_head(network: PreTrainedModel, name: str) -> ResponseHead:
    """Put a `ResponseHead` in the place of a network's output layer.

    Raises:
        BenchError: the output layer is no plain linear one.
    """
    layer = network.get_output_embeddings()
    if isinstance(layer, ResponseHead):
        return layer
    if not isinstance(layer, nn.Linear) or type(layer).forward is not nn.Linear.forward:
        kind = "none" if layer is None else f"a {type(layer).__module__}.{type(layer).__qualname__}"
        raise BenchError(
            f"{name}: its output layer is {kind}; only a plain linear layer can be projected at response positions. "
            "Merge an adapter into the model first (merge_and_unload), or choose another model"
        )
    head = ResponseHead.sharing(layer)
    (path,) = [path for path, module in network.named_modules() if module is layer]
    network.set_submodule(path, head)
    return head
