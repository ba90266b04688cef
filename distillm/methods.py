"""The paper's own methods (arXiv:2402.03898): skew divergences; DistiLLM = skew divergence x adaptive off-policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import distillm
from distillm.interface import Divergence, Method, PlainText, check_unit_interval

if TYPE_CHECKING:
    from torch import Tensor

    from distillm.divergences import Kernel

PAPER = "Ko et al. 2024, arXiv:2402.03898"


@dataclass(frozen=True)
class _Skewed(Divergence):
    """Options shared by both skew divergences.

    Attributes:
        alpha: the skew: the share of the model's own distribution in the mixture it is compared with.
    """

    alpha: float = 0.1

    def __post_init__(self) -> None:
        check_unit_interval(alpha=self.alpha)


class SKL(_Skewed):
    """Skew KL divergence, KL(p || alpha p + (1 - alpha) q); equation 4 of the paper."""

    def divergence(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """See `Divergence`."""
        return distillm.skl(student_logits, teacher_logits, alpha=self.alpha)

    @property
    def kernel(self) -> Kernel:
        """See `Divergence`."""
        return distillm.divergences.skew_kl_kernel(self.alpha)


class SRKL(_Skewed):
    """Skew reverse KL divergence, KL(q || (1 - alpha) p + alpha q); section 3.1 of the paper."""

    def divergence(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """See `Divergence`."""
        return distillm.srkl(student_logits, teacher_logits, alpha=self.alpha)

    @property
    def kernel(self) -> Kernel:
        """See `Divergence`."""
        return distillm.divergences.skew_reverse_kl_kernel(self.alpha)


_UNSHIFTED = "first response token and EOS of student-generated outputs are trained on; the authors' code loses both"

METHODS: tuple[Method, ...] = (
    Method("skl", SKL, "dataset", "sft", PAPER, "skew KL on the reference responses"),
    Method("srkl", SRKL, "dataset", "sft", PAPER, "skew reverse KL on the reference responses"),
    Method(
        "distillm",
        SRKL,
        "adaptive-off-policy",
        "sft",
        PAPER,
        "DistiLLM: skew reverse KL, adaptive off-policy student-generated outputs",
        deviations=_UNSHIFTED,
        plain_text=PlainText(weight=1.0),
    ),
    Method(
        "distillm-skl",
        SKL,
        "adaptive-off-policy",
        "sft",
        PAPER,
        "DistiLLM with skew KL",
        deviations=_UNSHIFTED,
        plain_text=PlainText(weight=1.0),
    ),
)
