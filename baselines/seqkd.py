"""SeqKD: train on responses sampled (or searched by beams) from the teacher, once, before training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from baselines.kld import KLD
from baselines.sft import CrossEntropy
from distillm import Method, TokenSequence

if TYPE_CHECKING:
    from torch import Tensor

    from distillm.divergences import Kernel


@dataclass(frozen=True)
class SeqKD:
    """Sequence-level distillation (Kim and Rush 2016, arXiv:1606.07947).

    Attributes:
        loss: `ce`, cross-entropy as in the paper, or `kld`, as the DistiLLM authors' scripts run it.
    """

    loss: Literal["ce", "kld"] = "ce"
    per_token: ClassVar[bool] = True

    @property
    def needs_teacher(self) -> bool:
        """Only for `kld`: the responses are sampled before training."""
        return self.loss == "kld"

    @property
    def kernel(self) -> Kernel:
        """See `distillm.interface.Objective`."""
        return self._objective.kernel

    @property
    def _objective(self) -> KLD | CrossEntropy:
        return KLD() if self.loss == "kld" else CrossEntropy()

    def __call__(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: Tensor, batch: list[TokenSequence]
    ) -> Tensor:
        """Per-token loss (N,); see `distillm.interface.Objective`."""
        return self._objective(student_logits, teacher_logits, tokens, batch)


METHOD = Method(
    "seqkd",
    SeqKD,
    "teacher",
    "pretrained",
    "Kim and Rush 2016, arXiv:1606.07947",
    "cross-entropy on the teacher's responses",
    deviations="cross-entropy as in the paper; the DistiLLM authors' scripts take KL (method.loss=kld)",
)
