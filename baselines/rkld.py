"""RKLD: minimise KL(q || p), student q against teacher p, at every token of the reference responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distillm import Method, TokenSequence, rkld


@dataclass(frozen=True)
class RKLD:
    """Reverse KL divergence (Gu et al. 2024, arXiv:2306.08543); no options."""

    needs_teacher: ClassVar[bool] = True

    def __call__(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: Tensor, batch: list[TokenSequence]
    ) -> Tensor:
        """Per-token loss (N,); see `distillm.method.Objective`."""
        assert teacher_logits is not None
        return rkld(student_logits, teacher_logits)


METHOD = Method(
    "rkld",
    RKLD,
    "dataset",
    "sft",
    "Gu et al. 2024, arXiv:2306.08543",
    "reverse KL divergence on the reference responses",
)
