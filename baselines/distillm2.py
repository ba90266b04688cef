"""DistiLLM-2: skew KL on the teacher's responses, skew reverse KL on the student's. Beyond the DistiLLM paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import distillm
from distillm import Method, TokenSequence
from distillm.interface import check_unit_interval

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Contrastive:
    """2 (1 - beta) SKL at the teacher's tokens, 2 beta SRKL at the student's (Ko et al. 2025, arXiv:2503.07067).

    Attributes:
        alpha: the skew of both.
        beta: weight of the student's responses; at a half every token counts alike.
    """

    alpha: float = 0.1
    beta: float = 0.5
    needs_teacher: ClassVar[bool] = True
    per_token: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_unit_interval(alpha=self.alpha, beta=self.beta)

    def __call__(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: Tensor, batch: list[TokenSequence]
    ) -> Tensor:
        """Per-token loss (N,); see `distillm.interface.Objective`."""
        import torch

        assert teacher_logits is not None
        sampled = [s.sampled_at_step is not None for s in batch for _ in s.response]
        by_student = torch.tensor(sampled, device=tokens.device)
        return torch.where(
            by_student,
            2.0 * self.beta * distillm.srkl(student_logits, teacher_logits, alpha=self.alpha),
            2.0 * (1.0 - self.beta) * distillm.skl(student_logits, teacher_logits, alpha=self.alpha),
        )


METHOD = Method(
    "distillm2",
    Contrastive,
    "contrastive",
    "sft",
    "Ko et al. 2025, arXiv:2503.07067",
    "skew KL on the teacher's responses beside skew reverse KL on the student's",
    deviations=(
        "student responses are sampled at each step, the paper's once per epoch; alpha and beta stay constant, the "
        "paper adapts both. A batch holds a response of each kind to every prompt, twice the sequences of other "
        "methods, under one mean over all their tokens"
    ),
    beyond_paper=True,
)
