"""RKLD: minimise KL(q || p), student q against teacher p, at every token of the reference responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import distillm
from distillm import Divergence, Method

if TYPE_CHECKING:
    from torch import Tensor

    from distillm.divergences import Kernel


@dataclass(frozen=True)
class RKLD(Divergence):
    """Reverse KL divergence (Gu et al. 2024, arXiv:2306.08543); no options."""

    def divergence(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """See `distillm.Divergence`."""
        return distillm.rkld(student_logits, teacher_logits)

    @property
    def kernel(self) -> Kernel:
        """See `distillm.Divergence`."""
        return distillm.divergences.reverse_kl_kernel


METHOD = Method(
    "rkld",
    RKLD,
    "dataset",
    "sft",
    "Gu et al. 2024, arXiv:2306.08543",
    "reverse KL divergence on the reference responses",
)
