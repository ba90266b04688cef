"""When to train on student-generated outputs (SGOs): the adaptive schedule of DistiLLM, or a constant probability.

At each step a number drawn uniformly from [0, 1) decides where the batch comes from (arXiv:2402.03898,
Algorithm 1): with probability phi it is student-generated, either afresh ("generate") or drawn from the
replay buffer ("replay"), and otherwise the data set's ("dataset").
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from distillm.interface import check_unit_interval

Decision = Literal["dataset", "generate", "replay"]
ReplayRatio = Literal["decreasing", "constant", "increasing"]


@dataclass(kw_only=True)
class AdaptiveSchedule:
    """Raises the probability of training on SGOs each time the validation loss has risen (Algorithm 1).

    The first loss observed, that before training, is the reference. A later one of at least the reference
    plus `epsilon` raises phi by `increment`, up to 1, and becomes the new reference; others change nothing.
    With an increment of 0, phi is constant.

    Attributes:
        total_steps: T, the number of training steps of the run.
        initial_phi: phi before the first rise.
        increment: how much a rise adds to phi.
        epsilon: the tolerance, in the unit of the loss (nats per token).
        replay_ratio: how the probability of generating afresh runs once the buffer is full: phi (1 - t/T)
            at step t for "decreasing", phi/2 for "constant", phi t/T for "increasing". The rest of phi is
            replayed.
        phi: the probability in force of training on SGOs.
        reference_loss: L_prev, None before the first loss is observed.

    Raises:
        ValueError: a value out of its range.
    """

    total_steps: int
    initial_phi: float = 0.0
    increment: float = 0.1
    epsilon: float = 0.1
    replay_ratio: ReplayRatio = "decreasing"
    phi: float = field(init=False)
    reference_loss: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.total_steps < 1:
            raise ValueError(f"total_steps must be at least 1, got {self.total_steps}")
        check_unit_interval(initial_phi=self.initial_phi, increment=self.increment)
        if not 0.0 <= self.epsilon < math.inf:
            raise ValueError(f"epsilon must be finite and at least 0, got {self.epsilon}")
        if self.replay_ratio not in get_args(ReplayRatio):
            known = ", ".join(get_args(ReplayRatio))
            raise ValueError(f"replay_ratio must be one of {known}, got {self.replay_ratio!r}")
        self.phi = self.initial_phi

    def observe(self, validation_loss: float) -> None:
        """Take a validation loss into account. Raises ValueError for a loss that is not finite."""
        if not math.isfinite(validation_loss):
            raise ValueError(f"the validation loss must be finite, got {validation_loss}")
        if self.reference_loss is None:
            self.reference_loss = validation_loss
        elif validation_loss >= self.reference_loss + self.epsilon:
            self.phi = min(self.phi + self.increment, 1.0)
            self.reference_loss = validation_loss

    def decide(self, step: int, draw: float, buffer_size: int, capacity: int, batch_size: int) -> Decision:
        """Where a step's batch comes from.

        Args:
            step: t, counted from 1.
            draw: this step's number, uniform in [0, 1).
            buffer_size: sequences in the replay buffer.
            capacity: sequences it can hold. Nothing is replayed before it is full.
            batch_size: sequences wanted. A buffer that holds fewer is never drawn from.
        """
        if draw >= self.phi:
            return "dataset"
        progress = step / self.total_steps
        fresh_share = {"decreasing": 1 - progress, "constant": 0.5, "increasing": progress}[self.replay_ratio]
        if draw < self.phi * fresh_share or not batch_size <= buffer_size == capacity:
            return "generate"
        return "replay"

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the options, as JSON-able values."""
        return {"phi": self.phi, "reference_loss": self.reference_loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave; of a constant probability, earlier versions gave nothing."""
        self.phi, self.reference_loss = state.get("phi", self.initial_phi), state.get("reference_loss")


def imitation_share(step: int, total_steps: int, final_data_share: float) -> float:
    """Probability of a student's batch at step i of I under ImitKD's decay: 1 - r^(i/I) (arXiv:2009.07253)."""
    return 1.0 - float(final_data_share ** (step / total_steps))
