"""What this package did before it had an engine of its own, kept as the arm that targets are set against.

Logits were formed whole and in float32, divergences went through tensors of tokens x vocabulary, and responses were
sampled by `generate`, with one random number a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

_FLOOR = -1e5


def kld(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(p ‖ q) of each token, by the kernel of the skew divergence."""
    return _divergence(student_logits, teacher_logits, _kld)


def srkl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(q ‖ (1-α) p + α q) of each token, α = 0.1."""
    return _divergence(student_logits, teacher_logits, _srkl)


def _kld(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    floored = log_q <= _FLOOR
    ratio = log_q - log_p
    p = log_p.exp_()
    value = -ratio.clone().mul_(p).sum(-1)
    pull = p.mul_(torch.ones_like(ratio)).masked_fill_(floored, 0.0)
    return value, log_q.exp_().mul_(pull.sum(-1, keepdim=True)).sub_(pull)


def _srkl(log_p: Tensor, log_q: Tensor, alpha: float = 0.1) -> tuple[Tensor, Tensor]:
    ratio = log_p.sub_(log_q)
    q = log_q.exp_()
    shifted = ratio + math.log(1 - alpha)
    log_m_over_q = torch.logaddexp(shifted, ratio.new_full((), math.log(alpha)), out=shifted)
    value = -(q * log_m_over_q).sum(-1)
    share = (ratio + (math.log(1 - alpha) - math.log(alpha))).sigmoid_()
    weighted = share.sub_(log_m_over_q).mul_(q)
    return value, weighted.sub_(q.mul_(weighted.sum(-1, keepdim=True)))


class _Divergence(torch.autograd.Function):
    """The forward pass makes the gradient, backward scales it."""

    @staticmethod
    def forward(
        ctx: Any,
        student_logits: Tensor,
        teacher_logits: Tensor,
        kernel: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    ) -> Tensor:
        log_p, log_q = (one.log_softmax(-1).clamp_(min=_FLOOR) for one in (teacher_logits, student_logits))
        value, gradient = kernel(log_p, log_q)
        ctx.save_for_backward(gradient)
        return value.clamp_(min=0.0)

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * scale.unsqueeze(-1), None, None


def _divergence(
    student_logits: Tensor, teacher_logits: Tensor, kernel: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
) -> Tensor:
    value: Tensor = _Divergence.apply(student_logits, teacher_logits, kernel)  # type: ignore[no-untyped-call]
    return value


class DrawOne(LogitsProcessor):  # type: ignore[misc]  # transformers exports it untyped
    """Leaves one token to a row, drawn with one random number; `generate` then takes the best, which is that one."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, V) with -inf at all tokens but one."""
        cumulative = scores.softmax(-1).cumsum(-1, dtype=torch.float64)
        at = torch.rand_like(cumulative[:, :1]) * cumulative[:, -1:]
        return torch.full_like(scores, -torch.inf).scatter_(-1, torch.searchsorted(cumulative, at, right=True), 0.0)
