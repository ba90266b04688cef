"""TVD: minimise half the L1 distance of p and q, at every token of the reference responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distillm import Method, TokenSequence, tvd


@dataclass(frozen=True)
class TVD:
    """Total variation distance (Wen et al. 2023, arXiv:2307.15190); no options."""

    needs_teacher: ClassVar[bool] = True

    def __call__(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: Tensor, batch: list[TokenSequence]
    ) -> Tensor:
        """Per-token loss (N,); see `distillm.method.Objective`."""
        assert teacher_logits is not None
        return tvd(student_logits, teacher_logits)


METHOD = Method(
    "tvd",
    TVD,
    "dataset",
    "sft",
    "Wen et al. 2023, arXiv:2307.15190",
    "total variation distance on the reference responses",
)
