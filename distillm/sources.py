"""Output sources: where each batch's responses come from.

Every source is the same rule (Algorithm 1 of arXiv:2402.03898) with parts switched off: the probability phi of
training on student-generated outputs (SGOs) is constant or adaptive, and SGOs are used once or pass through a
replay buffer.

    source                phi        SGOs              used by
    dataset               0          -                 SFT, KLD, RKLD, JSD, TVD, SKL, SRKL
    teacher               0          -                 SeqKD (the data set's responses are the teacher's)
    on-policy             1          fresh             ImitKD
    mixed                 constant   fresh             GKD
    adaptive              adaptive   fresh             Table 2
    off-policy            constant   replay buffer     Table 4
    adaptive-off-policy   adaptive   replay buffer     DistiLLM
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from distillm.method import Context, Sequence
from distillm.replay import Entry, ReplayBuffer
from distillm.schedule import AdaptiveSchedule, ConstantSchedule, Decision, ReplayRatio


@dataclass(frozen=True)
class SourceRule:
    """Which parts of Algorithm 1 a source has on.

    Attributes:
        summary: one line for help texts.
        phi: how the probability of training on SGOs is set.
        buffered: SGOs pass through the replay buffer.
        responses: whose responses stand in the data set's batches.
    """

    summary: str
    phi: Literal["never", "always", "constant", "adaptive"]
    buffered: bool = False
    responses: Literal["reference", "teacher"] = "reference"


SOURCES: dict[str, SourceRule] = {
    "dataset": SourceRule("the reference responses", "never"),
    "teacher": SourceRule("responses sampled once from the teacher before training", "never", responses="teacher"),
    "on-policy": SourceRule("every step the current student generates the responses", "always"),
    "mixed": SourceRule("fresh student responses with constant probability, else the references", "constant"),
    "adaptive": SourceRule("fresh student responses with adaptive probability phi", "adaptive"),
    "off-policy": SourceRule("student responses through a replay buffer, constant phi", "constant", True),
    "adaptive-off-policy": SourceRule("student responses through a replay buffer, adaptive phi", "adaptive", True),
}


@dataclass(frozen=True)
class SourceOptions:
    """Options of the output sources; a source ignores those of the parts it has switched off.

    Attributes:
        probability: constant phi of `mixed` and `off-policy` (lambda of GKD).
        initial_phi: phi before the first rise of the validation loss.
        phi_step: how much a rise adds to phi.
        epsilon: a validation loss counts as risen from this much above the last risen one, in nats per token.
        capacity: the replay buffer's size in sequences.
        replay_ratio: how the share of fresh generations among SGOs runs over training.
    """

    probability: float = 0.5
    initial_phi: float = 0.0
    phi_step: float = 0.1
    epsilon: float = 0.1
    capacity: int = 1000
    replay_ratio: ReplayRatio = "decreasing"

    def __post_init__(self) -> None:
        for name in ("probability", "initial_phi", "phi_step"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], got {value}")
        if self.epsilon < 0:
            raise ValueError(f"epsilon must be 0 or more, got {self.epsilon}")
        if self.capacity < 1:
            raise ValueError(f"capacity must be at least 1 sequence, got {self.capacity}")


@dataclass(frozen=True)
class SourcedBatch:
    """A batch to train on, and where its responses came from."""

    decision: Decision
    batch: list[Sequence]
    ages: list[int]  # steps since each response was sampled; empty for a data set batch


class OutputSource:
    """Decides at each step where the batch's responses come from.

    Args:
        name: a key of `SOURCES`.
        options: see `SourceOptions`.
        total_steps: T of Algorithm 1.
        batch_size: sequences per batch.

    Raises:
        ValueError: unknown name, or a buffer smaller than a batch.
    """

    def __init__(self, name: str, options: SourceOptions, *, total_steps: int, batch_size: int) -> None:
        if name not in SOURCES:
            raise ValueError(f"unknown output source {name!r}; known: {', '.join(SOURCES)}")
        rule = SOURCES[name]
        if rule.buffered and options.capacity < batch_size:
            raise ValueError(
                f"capacity {options.capacity} is smaller than the batch of {batch_size}: no batch could be drawn"
            )
        constant = {"never": 0.0, "always": 1.0, "constant": options.probability}
        self.schedule: AdaptiveSchedule | ConstantSchedule = (
            AdaptiveSchedule(
                total_steps=total_steps,
                initial_phi=options.initial_phi,
                increment=options.phi_step,
                epsilon=options.epsilon,
                replay_ratio=options.replay_ratio,
            )
            if rule.phi == "adaptive"
            else ConstantSchedule(total_steps=total_steps, phi=constant[rule.phi], replay_ratio=options.replay_ratio)
        )
        self.buffer: ReplayBuffer[Sequence] | None = ReplayBuffer(options.capacity) if rule.buffered else None

    @property
    def phi(self) -> float:
        """The probability in force of training on SGOs."""
        return self.schedule.phi

    @property
    def buffer_size(self) -> int:
        """Sequences in the replay buffer; 0 without one."""
        return len(self.buffer) if self.buffer is not None else 0

    def next(self, context: Context) -> SourcedBatch:
        """The batch of this step. The random draw is made for every source, so that all see the same ones."""
        draw = context.rng.random()
        if self.buffer is None:
            if draw >= self.phi:
                return SourcedBatch("dataset", context.batch, [])
            fresh = context.generate(context.batch)
            return SourcedBatch("generate", fresh, [0] * len(fresh))
        wanted = len(context.batch)
        decision = self.schedule.decide(context.step, draw, len(self.buffer), self.buffer.capacity, wanted)
        if decision == "dataset":
            return SourcedBatch(decision, context.batch, [])
        if decision == "generate":
            fresh = context.generate(context.batch)
            self.buffer.push(fresh, context.step)
            return SourcedBatch(decision, fresh, [0] * len(fresh))
        entries = self.buffer.draw(wanted, context.rng)
        return SourcedBatch(
            decision, [entry.item for entry in entries], [context.step - entry.step for entry in entries]
        )

    def observe(self, validation_loss: float) -> None:
        """Tell the schedule a validation loss (nats per token); the first one is that before training."""
        self.schedule.observe(validation_loss)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs, as JSON-able values."""
        entries = self.buffer.entries if self.buffer is not None else []
        return {
            "schedule": self.schedule.state_dict(),
            "buffer": [
                {
                    "id": entry.item.id,
                    "prompt": entry.item.prompt,
                    "response": entry.item.response,
                    "annotations": dict(entry.item.annotations),
                    "step": entry.step,
                }
                for entry in entries
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.schedule.load_state_dict(state["schedule"])
        if self.buffer is not None:
            self.buffer.load(
                [
                    Entry(
                        Sequence(
                            id=row["id"],
                            prompt=tuple(row["prompt"]),
                            response=tuple(row["response"]),
                            made_at=row["step"],
                            annotations={k: tuple(v) for k, v in row["annotations"].items()},
                        ),
                        row["step"],
                    )
                    for row in state["buffer"]
                ]
            )
