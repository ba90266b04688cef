"""From logits to tokens: what may be drawn, and the draw."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

_BLOCK = 256  # tokens whose probabilities are added up before one of them is looked for


@dataclass(frozen=True)
class Decoding:
    """How responses are sampled; the defaults are those of student-generated outputs in training."""

    max_new_tokens: int
    temperature: float = 1.0  # 0 = greedy
    top_p: float = 1.0
    top_k: int = 0  # 0 = off
    beams: int = 1  # more: beam search instead of sampling
    no_repeat_ngram: int = 0  # forbid repeating an n-gram of this length; 0 = off

    @property
    def greedy(self) -> bool:
        """Whether the best token is taken and no random number used."""
        return self.temperature == 0


def warp(logits: Tensor, decoding: Decoding) -> Tensor:
    """Logits (B, V) of the distribution that is drawn from: temperature, then top-k, then top-p."""
    unused = torch.empty(0, dtype=torch.long)  # the warpers take the tokens so far and do not look at them
    if decoding.temperature != 1:
        logits = TemperatureLogitsWarper(float(decoding.temperature))(unused, logits)
    if decoding.top_k:
        logits = TopKLogitsWarper(decoding.top_k)(unused, logits)
    if decoding.top_p < 1:
        logits = TopPLogitsWarper(decoding.top_p)(unused, logits)
    return logits


def draw(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """One token a row from softmax(logits), by the inverse of the cumulative distribution.

    It is searched in two levels, a block of the vocabulary and then a token in it, so that the running sums, which must
    be in float64 for rare tokens to count, are taken over a few hundred numbers and not over the vocabulary.

    Args:
        logits: (B, V) in float32.
        uniform: (B, 1) in float64, in [0, 1).

    Returns:
        The tokens (B,), and whether there was a distribution to draw from (B,): none where logits are nan or inf, or
        all -inf.
    """
    probabilities = logits.softmax(-1)
    vocabulary = logits.shape[1]
    whole = vocabulary // _BLOCK * _BLOCK
    sums = probabilities[:, :whole].unflatten(1, (-1, _BLOCK)).sum(-1)  # type: ignore[no-untyped-call]
    if whole < vocabulary:
        sums = torch.cat([sums, probabilities[:, whole:].sum(-1, keepdim=True)], dim=1)
    sums = sums.cumsum(-1, dtype=torch.float64)
    target = uniform * sums[:, -1:]
    block = torch.searchsorted(sums, target, right=True).clamp_(max=sums.shape[1] - 1)
    below = torch.where(block > 0, sums.gather(1, (block - 1).clamp_(min=0)), 0.0)
    at = block * _BLOCK + torch.arange(_BLOCK, device=logits.device)
    inside = torch.where(at < vocabulary, probabilities.gather(1, at.clamp(max=vocabulary - 1)), 0.0)
    found = torch.searchsorted(inside.cumsum(-1, dtype=torch.float64), target - below, right=True)
    # a rounding error may point behind the block's last token that can be drawn at all
    last = torch.where(inside > 0, at - block * _BLOCK, 0).amax(-1, keepdim=True)
    return (block * _BLOCK + torch.minimum(found, last)).squeeze(1), sums[:, -1].isfinite()


def forbid_repeats(logits: Tensor, history: Tensor, length: Tensor, size: int) -> Tensor:
    """Logits (B, V) with -inf at tokens that would complete an n-gram for the second time.

    Args:
        logits: for the token that follows the history.
        history: (B, T) tokens so far, -1 where a row is padded or not yet written.
        length: how many columns of the history are in use, as a tensor without dimensions.
        size: n.
    """
    if history.shape[1] < size:
        return logits
    tail_at = (length - (size - 1) + torch.arange(size - 1, device=logits.device)).clamp(min=0)
    tail = history.index_select(1, tail_at)
    grams = history.unfold(1, size, 1)  # (B, T - n + 1, n)
    repeated = (grams[..., :-1] == tail[:, None]).all(-1) & (grams >= 0).all(-1) & (length >= size)
    counts = torch.zeros_like(logits).scatter_add_(1, grams[..., -1].clamp(min=0), repeated.to(logits.dtype))
    return logits.masked_fill(counts > 0, -torch.inf)
