"""AKL: forward and reverse KL weighted by where student and teacher differ, head or tail. Beyond the DistiLLM paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import distillm
from distillm import Divergence, Method
from distillm.interface import check_unit_interval

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class AKL(Divergence):
    """g_head KL(p || q) + g_tail KL(q || p), the weights summing to 1 (Wu et al. 2024, arXiv:2404.02657).

    The head is the fewest most probable tokens of the teacher that hold at least `mu` of its mass; g_head and g_tail
    are the shares of sum |p - q| that fall into head and tail. No gradient flows through the weights.

    Attributes:
        mu: the head's mass.
    """

    mu: float = 0.5

    def __post_init__(self) -> None:
        check_unit_interval(mu=self.mu)

    def divergence(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """See `distillm.Divergence`."""
        share = self.head_share(student_logits.detach(), teacher_logits)
        return share * distillm.kld(student_logits, teacher_logits) + (1.0 - share) * distillm.rkld(
            student_logits, teacher_logits
        )

    def head_share(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """g_head / (g_head + g_tail) of (..., V) logits, (...); a half where p = q."""
        p, order = teacher_logits.float().softmax(-1).sort(dim=-1, descending=True)
        q = student_logits.float().softmax(-1).gather(-1, order)
        gap = (p - q).abs()
        in_head = p.cumsum(-1) - p < self.mu
        tiny = 1e-12
        return ((gap * in_head).sum(-1) + tiny) / (gap.sum(-1) + 2 * tiny)


METHOD = Method(
    "akl",
    AKL,
    "dataset",
    "sft",
    "Wu et al. 2024, arXiv:2404.02657",
    "forward KL on the head, reverse KL on the tail, as the gap asks",
    beyond_paper=True,
)
