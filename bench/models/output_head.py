"""The output layer, wrapped once when a model is loaded, so that only response positions are projected.

The hidden states are gathered just before the output layer: the projection to the vocabulary, the largest part of a
small model's work, happens at response positions only, or later, in chunks, with the loss (`distillm.fused`). Whatever
a family does before the layer (scaling) stays as it is. What it does to the logits (scaling, capping, a bias) is
found out by giving it logits, so that no list of families is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bench.system.errors import BenchError


class ResponseHead(nn.Linear):
    """A linear output layer that can be told the positions to project at, as indices into B x T.

    The head shares weight and bias with the layer it stands for, so that tied embeddings stay tied and
    checkpoints keep their names. Without positions, as in generation, it is that layer.
    """

    positions: Tensor | None = None
    stand_in: Tensor | None = None
    caught: Tensor | None = None
    casts: dict[torch.dtype, Tensor] | None = None  # of the weight, while it does not change

    @classmethod
    def sharing(cls, layer: nn.Linear) -> ResponseHead:
        """A head with the parameters of a layer."""
        head = cls(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        head.weight, head.bias = layer.weight, layer.bias
        return head

    @contextmanager
    def at(self, positions: Tensor) -> Iterator[None]:
        """Project at these positions for the time of the block."""
        self.positions = positions
        try:
            yield
        finally:
            self.positions = None

    @contextmanager
    def catching(self, stand_in: Tensor) -> Iterator[None]:
        """Leave the hidden states, (B, T, H), as `caught`, and return a stand-in for logits."""
        self.stand_in = stand_in
        try:
            yield
        finally:
            self.stand_in = self.caught = None

    def weight_in(self, low: torch.dtype) -> Tensor:
        """The weight in a precision."""
        if self.casts is None or self.weight.dtype == low:
            return self.weight.to(low)
        if low not in self.casts:
            self.casts[low] = self.weight.to(low)
        return self.casts[low]

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits of (B, T, H) hidden states: (B, T, V), or (N, V) at the N chosen positions.

        Both are in float32, the first without gradients only: what is sampled from logits rounded to 8 bits is not the
        model's distribution.

        At chosen positions the projection is in float32 also under autocast and for weights in bfloat16: logits rounded
        to 8 bits bend a divergence's gradient by several per cent where teacher and student are close, while its value
        looks right.
        """
        if self.stand_in is not None:
            self.caught = hidden
            return self.stand_in
        if self.positions is None:
            low = _low_precision(hidden, self.weight)
            if low is not None and not torch.is_grad_enabled():
                return float32_logits(hidden, self, low)
            return _sliced(hidden, self) if _slices_pay(hidden, self.weight) else super().forward(hidden)
        chosen = hidden.flatten(0, -2).index_select(0, self.positions)
        with torch.autocast(hidden.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.float()
            return nn.functional.linear(chosen.float(), self.weight.float(), bias)


@dataclass(frozen=True)
class AfterHead:
    """What a family does to its output layer's logits: scale x logits + shift, or a soft cap c tanh(logits / c).

    Attributes:
        scale: 1 for most.
        shift: (V,), or None.
        softcap: c, or None.
    """

    scale: float = 1.0
    shift: Tensor | None = None
    softcap: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """What the family makes of logits (N, V)."""
        scaled = self.scale * logits if self.shift is None else self.scale * logits + self.shift
        return scaled if self.softcap is None else self.softcap * torch.tanh(scaled / self.softcap)


# Logits that tell apart what families do; the first, third and last are those it is read from.
_PROBES = (0.0, 0.1, 1.0, -1.0, 7.0, -40.0, 1e6)


def after_head(respond: Callable[[Tensor], Tensor], vocabulary: int, device: torch.device) -> AfterHead | None:
    """What a family does to logits; None where it is nothing that `AfterHead` can say.

    Args:
        respond: gives the family's logits for those of its output layer, both (N, V).
        vocabulary: V.
        device: where the logits are to be.
    """
    given = torch.tensor(_PROBES, device=device)[:, None].expand(-1, vocabulary).contiguous()
    found = respond(given)
    if found.shape != given.shape:
        return None
    at_zero, at_one, at_most = found[0], found[2, 0], found[-1]
    if at_most.abs().max() < 1e4:  # flat: a cap
        made = AfterHead(softcap=float(at_most[0]))
    else:
        made = AfterHead(float(at_one - at_zero[0]), at_zero if at_zero.any() else None)
    return made if torch.allclose(made(given), found, rtol=1e-5, atol=1e-6) else None


_SLICE = 1024  # entries of the vocabulary whose logits, for a batch of rows, stay in a core's cache
_FEW_ROWS = 12  # up to which the transposed product is the faster one


def _low_precision(hidden: Tensor, weight: Tensor) -> torch.dtype | None:
    """What a product of the two would be rounded to, where that is less than float32."""
    device = hidden.device.type
    found = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    return found if found.itemsize < 4 else None


@contextmanager
def casting_once(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Cast the weights of output layers once for the block, in which they do not change, not at every token."""
    heads = [one for network in networks for one in network.modules() if isinstance(one, ResponseHead)]
    for head in heads:
        head.casts = {}
    try:
        yield
    finally:
        for head in heads:
            head.casts = None


def float32_logits(hidden: Tensor, head: ResponseHead, low: torch.dtype) -> Tensor:
    """Logits in float32 of factors in low precision."""
    rows, weight = hidden.reshape(-1, hidden.shape[-1]).to(low), head.weight_in(low)
    with torch.autocast(hidden.device.type, enabled=False):
        if hidden.device.type == "cuda":
            logits = torch.mm(rows, weight.t(), out_dtype=torch.float32)
        else:  # a CPU has no such product
            logits = _in_slices(rows.float(), weight)
        if head.bias is not None:
            logits = logits + head.bias.float()
    return logits.reshape(*hidden.shape[:-1], -1)


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
    logits = torch.mm(head.weight, rows.t()).t() if len(rows) <= _FEW_ROWS else _in_slices(rows, head.weight)
    if head.bias is not None:
        logits = logits + head.bias
    return logits.reshape(*hidden.shape[:-1], -1)


def _in_slices(rows: Tensor, weight: Tensor) -> Tensor:
    """Rows (N, H) x weight (V, H) as (N, V) in the precision of the rows, which a slice of the weight is brought to."""
    logits = rows.new_empty(len(rows), len(weight))
    for start in range(0, len(weight), _SLICE):
        part = weight[start : start + _SLICE].to(rows.dtype)
        torch.mm(rows, part.t(), out=logits[:, start : start + _SLICE])
    return logits


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
