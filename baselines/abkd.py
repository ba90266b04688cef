"""ABKD: the alpha-beta divergence of teacher and student. Beyond the DistiLLM paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from distillm import Divergence, Method

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 0.01
"""Of alpha and beta: closer to 0 the terms, divided by their product, cancel to less than float32 holds."""


@dataclass(frozen=True)
class ABKD(Divergence):
    """-1/(ab) sum(p^a q^b - a/(a+b) p^(a+b) - b/(a+b) q^(a+b)) (Wang et al. 2025, arXiv:2505.04560).

    a = 1, b -> 0 is KL(p || q); a -> 0, b = 1 is KL(q || p); a = b = 1 is half the squared distance; a = b = 1/2 is
    four times the squared Hellinger distance.

    Attributes:
        alpha: a, at least `SMALLEST`.
        beta: b, at least `SMALLEST`. The defaults are the paper's for instruction following.
    """

    alpha: float = 0.2
    beta: float = 0.7

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            if getattr(self, name) < SMALLEST:
                given = getattr(self, name)
                raise ValueError(f"{name} must be at least {SMALLEST}, got {given}; kld and rkld are its limits at 0")

    def divergence(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """See `distillm.Divergence`."""
        a, b, both = self.alpha, self.beta, self.alpha + self.beta
        # finite logarithms, so that a token masked in one model gives 0 and not 0 x inf
        log_p = teacher_logits.float().log_softmax(-1).clamp(min=-1e4)
        log_q = student_logits.float().log_softmax(-1).clamp(min=-1e4)
        terms = a / both * (both * log_p).exp() + b / both * (both * log_q).exp() - (a * log_p + b * log_q).exp()
        return terms.sum(-1) / (a * b)


METHOD = Method(
    "abkd",
    ABKD,
    "dataset",
    "sft",
    "Wang et al. 2025, arXiv:2505.04560",
    "alpha-beta divergence on the reference responses",
    beyond_paper=True,
)
