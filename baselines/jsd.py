"""JSD: the generalised Jensen-Shannon divergence of teacher and student (the loss of GKD) on the reference responses.

Peers disagree on what the weight means. Here beta is GKD's and TRL's:
the teacher's weight in the mixture m.

    this beta   GKD / TRL   the DistiLLM authors' code (weight of the student)
    0.1         0.1         0.9  <- what they run as "jsd"
    0.5         0.5         0.5
    0.9         0.9         0.1
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import distillm
from distillm import Divergence, Method
from distillm.interface import check_unit_interval

if TYPE_CHECKING:
    from torch import Tensor

    from distillm.divergences import Kernel


@dataclass(frozen=True)
class JSD(Divergence):
    """beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q (arXiv:2306.13649, equation 1).

    Attributes:
        beta: the teacher's weight. It also scales the gradient, so a fair comparison tunes the learning rate with it.
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        check_unit_interval(beta=self.beta)

    def divergence(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """See `distillm.Divergence`."""
        return distillm.jsd(student_logits, teacher_logits, beta=self.beta)

    @property
    def kernel(self) -> Kernel:
        """See `distillm.Divergence`."""
        return distillm.divergences.jensen_shannon_kernel(self.beta)


METHOD = Method(
    "jsd",
    JSD,
    "dataset",
    "sft",
    "Agarwal et al. 2024, arXiv:2306.13649",
    "generalised Jensen-Shannon divergence on the reference responses",
)
