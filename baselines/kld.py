"""KLD: minimise KL(p || q), teacher p against student q, at every token of the reference responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distillm import Method, TokenSequence, kld


@dataclass(frozen=True)
class KLD:
    """Forward KL divergence (Hinton et al. 2015, arXiv:1503.02531); no options."""

    needs_teacher: ClassVar[bool] = True

    def __call__(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: Tensor, batch: list[TokenSequence]
    ) -> Tensor:
        """Per-token loss (N,); see `distillm.method.Objective`."""
        assert teacher_logits is not None
        return kld(student_logits, teacher_logits)


METHOD = Method(
    "kld",
    KLD,
    "dataset",
    "pretrained",
    "Hinton et al. 2015, arXiv:1503.02531",
    "forward KL divergence on the reference responses",
)
