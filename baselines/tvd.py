"""TVD: minimise half the L1 distance of p and q, at every token of the reference responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import distillm
from distillm import Divergence, Method

if TYPE_CHECKING:
    from torch import Tensor

    from distillm.divergences import Kernel


@dataclass(frozen=True)
class TVD(Divergence):
    """Total variation distance (Wen et al. 2023, arXiv:2307.15190); no options."""

    def divergence(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """See `distillm.Divergence`."""
        return distillm.tvd(student_logits, teacher_logits)

    @property
    def kernel(self) -> Kernel:
        """See `distillm.Divergence`."""
        return distillm.divergences.total_variation_kernel


METHOD = Method(
    "tvd",
    TVD,
    "dataset",
    "sft",
    "Wen et al. 2023, arXiv:2307.15190",
    "total variation distance on the reference responses",
)
