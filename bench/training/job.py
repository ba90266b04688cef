"""What one training is given, and what it says when it fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.config.fidelity import Fidelity
from bench.config.sections import TrainingConfig
from bench.models.language_model import LanguageModel
from bench.models.sampling import Decoding
from bench.system.environment import autocast
from bench.system.errors import BenchError
from bench.system.processes import ALONE, Processes
from bench.training.auxiliary_loss import AuxiliaryLoss
from bench.training.state import TrainerState
from distillm import Objective, OutputSource, TokenSequence

_NAMED_IDS = 64  # in a message; the record of the failure has all
_ADVICE = "Try a lower training.learning_rate, a longer training.warmup_steps or precision=fp32."


@dataclass(frozen=True)
class ValidationSet:
    """What a training is validated on, and how.

    Attributes:
        sequences: never trained on.
        score: metric of texts answering the prompts in their order; higher is better.
        decoding: how responses are sampled.
        batch_size: sequences at once.
    """

    sequences: Sequence[TokenSequence]
    score: Callable[[list[str]], float]
    decoding: Decoding
    batch_size: int


def _nobody(step: int, figures: dict[str, float]) -> None:
    """Watches nothing."""


@dataclass(frozen=True)
class TrainingJob:
    """Everything one training needs.

    Attributes:
        label: what is trained, for messages.
        objective, output_source: the method.
        student: trained in place.
        teacher: None where the objective needs none.
        train: the training set.
        validation: checkpoints are chosen by it.
        config: steps, batches, optimiser.
        max_response_length: tokens of a student-generated output in training.
        seed: the training seed.
        work: folder for checkpoints, the training's alone.
        on_step: told step, total steps and what to show.
        note: told what a user should know.
        watch: told step and figures, at each point of the curve and each validation.
        precision: of forward passes.
        auxiliary_loss: None where it is off.
        fidelity: the authors' defects to repeat.
        processes: that share the work; each is given the same job.
    """

    label: str
    objective: Objective
    output_source: OutputSource
    student: LanguageModel
    teacher: LanguageModel | None
    train: Sequence[TokenSequence]
    validation: ValidationSet
    config: TrainingConfig
    max_response_length: int
    seed: int
    work: Path
    on_step: Callable[[int, int, dict[str, float]], None]
    note: Callable[[str], None]
    precision: Literal["fp32", "bf16"] = "fp32"
    auxiliary_loss: AuxiliaryLoss | None = None
    fidelity: Fidelity = field(default_factory=Fidelity)
    processes: Processes = ALONE
    watch: Callable[[int, dict[str, float]], None] = _nobody

    def autocast(self) -> AbstractContextManager[None]:
        """What forward passes run under."""
        return autocast(self.student.device, self.precision)


class NonFiniteLoss(BenchError):
    """A loss became inf or nan; says where and what to try.

    Args:
        label: what was trained.
        step: the optimiser step.
        what: what is not finite.
        values: the figures at that step.
        batch: the sequences it was taken on.
        state: the training up to there.
    """

    def __init__(
        self,
        label: str,
        step: int,
        what: str,
        values: dict[str, float],
        batch: Sequence[TokenSequence],
        state: TrainerState,
    ) -> None:
        ids = [s.id for s in batch]
        shown = "".join(f", {name} {value}" for name, value in values.items())
        named = ", ".join(ids[:_NAMED_IDS]) + (f" and {len(ids) - _NAMED_IDS} more" if len(ids) > _NAMED_IDS else "")
        super().__init__(f"{label}: {what} is not finite at step {step}{shown}; batch {named}. {_ADVICE}")
        self.details: dict[str, Any] = {
            "step": step,
            "what": what,
            "values": {name: str(value) for name, value in values.items()},  # JSON has no nan
            "batch": ids,
            "advice": _ADVICE,
            "validations": state.validations,
            "curve": state.curve,
        }
