"""SFT: supervised fine-tuning, cross-entropy on the reference responses; no teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import distillm
from distillm import Method, TokenSequence

if TYPE_CHECKING:
    from torch import Tensor

    from distillm.divergences import Kernel


@dataclass(frozen=True)
class CrossEntropy:
    """-log q of each response token; no options."""

    needs_teacher: ClassVar[bool] = False
    per_token: ClassVar[bool] = True

    def __call__(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: Tensor, batch: list[TokenSequence]
    ) -> Tensor:
        """Per-token loss (N,); see `distillm.interface.Objective`."""
        import torch

        return torch.nn.functional.cross_entropy(student_logits.float(), tokens, reduction="none")

    @property
    def kernel(self) -> Kernel:
        """See `distillm.interface.Objective`."""
        return distillm.fused.cross_entropy_kernel


METHOD = Method(
    "sft",
    CrossEntropy,
    "dataset",
    "pretrained",
    "the usual fine-tuning; SFT rows of arXiv:2306.08543 and arXiv:2402.03898",
    "cross-entropy on the reference responses, no teacher",
)
