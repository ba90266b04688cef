"""KLD: minimise KL(p || q), teacher p against student q, at every token of the reference responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import distillm
from distillm import Divergence, Method

if TYPE_CHECKING:
    from torch import Tensor

    from distillm.divergences import Kernel


@dataclass(frozen=True)
class KLD(Divergence):
    """Forward KL divergence (Hinton et al. 2015, arXiv:1503.02531); no options."""

    def divergence(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """See `distillm.Divergence`."""
        return distillm.kld(student_logits, teacher_logits)

    @property
    def kernel(self) -> Kernel:
        """See `distillm.Divergence`."""
        return distillm.divergences.kl_kernel


METHOD = Method(
    "kld",
    KLD,
    "dataset",
    "pretrained",
    "Hinton et al. 2015, arXiv:1503.02531",
    "forward KL divergence on the reference responses",
)
