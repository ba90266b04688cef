"""TAID: forward KL from a target that moves from the student to the teacher. Beyond the DistiLLM paper."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import distillm
from distillm import BatchObjective, Divergence, Method, TokenSequence
from distillm.interface import check_unit_interval

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class TAID(BatchObjective, Divergence):
    """KL(p_t || q), p_t = softmax((1 - t) student logits + t teacher logits) (Shing et al. 2025, arXiv:2501.16937).

    No gradient flows through p_t. After each step t grows to at least its linear schedule, and further by
    alpha sigmoid(m) (1 - t), m the running mean of the loss's relative fall.

    Attributes:
        start: t before training.
        end: t at the end.
        alpha: how fast t adapts.
        momentum: of the running mean.
    """

    start: float = 0.4
    end: float = 1.0
    alpha: float = 5e-4
    momentum: float = 0.99
    t: float = field(init=False)
    fall: float = field(init=False, default=0.0)
    previous: float | None = field(init=False, default=None)
    linear: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        if not 0.0 <= self.start <= self.end <= 1.0:
            raise ValueError(f"start and end must satisfy 0 <= start <= end <= 1, got {self.start} and {self.end}")
        check_unit_interval(alpha=self.alpha, momentum=self.momentum)
        self.t = self.start

    def on_step_begin(self, batch: list[TokenSequence], step: int, total_steps: int) -> list[TokenSequence]:
        """Remember where the linear schedule stands."""
        self.linear = self.start + (self.end - self.start) * step / total_steps
        return batch

    def on_step_end(self, loss: float) -> None:
        """Move t; the first step only gives the loss to compare with."""
        if self.previous is not None:
            # with start 0 the first losses are 0: no loss has fallen from there
            relative = (self.previous - loss) / (self.previous + 1e-15) if self.previous > 0 else 0.0
            self.fall = self.momentum * self.fall + (1.0 - self.momentum) * relative
            adaptive = self.alpha * (1.0 - self.t) / (1.0 + math.exp(min(-self.fall, 700.0)))
            self.t = min(self.end, max(self.linear, self.t + adaptive))
        self.previous = loss

    def state_dict(self) -> dict[str, float | None]:
        """t, the running mean and the last loss."""
        return {"t": self.t, "fall": self.fall, "previous": self.previous}

    def load_state_dict(self, state: Mapping[str, float | None]) -> None:
        """Take back what `state_dict` gave."""
        t, fall = state["t"], state["fall"]
        assert t is not None
        assert fall is not None
        self.t, self.fall, self.previous = t, fall, state["previous"]

    def divergence(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """See `distillm.Divergence`."""
        # at an end the other model is left out: 0 x -inf would be nan
        if self.t == 0.0:
            target = student_logits.detach().float()
        elif self.t == 1.0:
            target = teacher_logits.float()
        else:
            target = (1.0 - self.t) * student_logits.detach().float() + self.t * teacher_logits.float()
        return distillm.kld(student_logits, target)


METHOD = Method(
    "taid",
    TAID,
    "dataset",
    "sft",
    "Shing et al. 2025, arXiv:2501.16937",
    "forward KL from a target that moves from the student to the teacher",
    beyond_paper=True,
)
