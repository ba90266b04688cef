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
    roll-outs             1          rounds            MiniLLM
    contrastive           1          beside teacher's  DistiLLM-2
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from distillm.interface import StepContext, TokenSequence, check_unit_interval
from distillm.replay import ReplayBuffer
from distillm.schedule import AdaptiveSchedule, Decision, ReplayRatio, imitation_share


@dataclass(frozen=True)
class SourceRule:
    """Which parts of Algorithm 1 a source has on.

    Attributes:
        summary: one line for help texts.
        phi: how the probability of training on SGOs is set.
        buffered: SGOs pass through the replay buffer.
        responses: whose responses stand in the data set's batches.
        rounds: SGOs are sampled in rounds and each round is trained on for several epochs.
        paired: the data set's batch is trained on beside the SGOs for the same prompts.
    """

    summary: str
    phi: Literal["never", "always", "constant", "adaptive"]
    buffered: bool = False
    responses: Literal["reference", "teacher"] = "reference"
    rounds: bool = False
    paired: bool = False

    def replays_fresh(self, asked: bool) -> bool:
        """Whether the authors' defect of that name (see `OutputSource`) reaches this source."""
        return asked and self.phi != "never" and not (self.buffered or self.rounds or self.paired)

    @property
    def reads(self) -> frozenset[str]:
        """The options (`SourceOptions`) that have an effect."""
        by_phi = {
            "constant": ("probability", "final_data_share"),
            "adaptive": ("initial_phi", "phi_step", "epsilon"),
        }
        return frozenset(
            (
                *by_phi.get(self.phi, ()),
                *(("capacity", "replay_ratio") if self.buffered else ()),
                *(("rollouts", "inner_epochs") if self.rounds else ()),
                *(("beams",) if self.responses == "teacher" else ()),
            )
        )


_MOST = 1_000_000  # a count beyond it is a slip, and would be counted to for ever

SOURCES: dict[str, SourceRule] = {
    "dataset": SourceRule("the reference responses", "never"),
    "teacher": SourceRule("responses sampled once from the teacher before training", "never", responses="teacher"),
    "on-policy": SourceRule("every step the current student generates the responses", "always"),
    "mixed": SourceRule("fresh student responses with constant probability, else the references", "constant"),
    "adaptive": SourceRule("fresh student responses with adaptive probability phi", "adaptive"),
    "off-policy": SourceRule("student responses through a replay buffer, constant phi", "constant", True),
    "adaptive-off-policy": SourceRule("student responses through a replay buffer, adaptive phi", "adaptive", True),
    "roll-outs": SourceRule("rounds of student responses, each trained on for several epochs", "always", rounds=True),
    "contrastive": SourceRule(
        "the teacher's responses and fresh student responses to the same prompts",
        "always",
        False,
        "teacher",
        paired=True,
    ),
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
        final_data_share: r of ImitKD's decay: the share of data set batches of `mixed` and `off-policy` falls as
            r^(t/T) instead of staying at 1 - probability; none = constant.
        rollouts: responses per round of `roll-outs`.
        inner_epochs: how often each of them is trained on.
        beams: beam search for the responses of `teacher` and `contrastive`; 1 = sampling at temperature 1.
    """

    probability: float = 0.5
    initial_phi: float = 0.0
    phi_step: float = 0.1
    epsilon: float = 0.1
    capacity: int = 1000
    replay_ratio: ReplayRatio = "decreasing"
    final_data_share: float | None = None
    rollouts: int = 256
    inner_epochs: int = 4
    beams: int = 1

    def __post_init__(self) -> None:
        check_unit_interval(probability=self.probability, initial_phi=self.initial_phi, phi_step=self.phi_step)
        if self.epsilon < 0:
            raise ValueError(f"epsilon must be 0 or more, got {self.epsilon}")
        if self.final_data_share is not None and not 0.0 < self.final_data_share <= 1.0:
            raise ValueError(f"final_data_share must lie in (0, 1], got {self.final_data_share}")
        for name in ("capacity", "rollouts", "inner_epochs", "beams"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
            if name != "capacity" and getattr(self, name) > _MOST:
                raise ValueError(f"{name} must be at most {_MOST}, got {getattr(self, name)}")

    def check(self, source: str, batch_size: int, *, replays_fresh: bool = False) -> None:
        """Refuse options that a source cannot fill its batches with; the arguments are those of `OutputSource`.

        Raises:
            ValueError: unknown source, or a buffer or a round smaller than a batch.
        """
        if source not in SOURCES:
            raise ValueError(f"unknown output source {source!r}; known: {', '.join(SOURCES)}")
        rule = SOURCES[source]
        if (rule.buffered or rule.replays_fresh(replays_fresh)) and self.capacity < batch_size:
            raise ValueError(
                f"capacity {self.capacity} is smaller than the batch of {batch_size}: no batch could be drawn"
            )
        if rule.rounds and self.rollouts < batch_size:
            raise ValueError(f"rollouts {self.rollouts} are fewer than the batch of {batch_size}")


@dataclass(frozen=True)
class SourcedBatch:
    """A batch to train on, and where its responses came from."""

    decision: Decision
    batch: list[TokenSequence]
    ages: list[int]  # steps since each response was sampled; empty for a data set batch


class OutputSource:
    """Decides at each step where the batch's responses come from.

    Args:
        name: a key of `SOURCES`.
        options: see `SourceOptions`.
        total_steps: T of Algorithm 1.
        batch_size: sequences per batch.
        replays_fresh: repeat a defect of the authors' code: sources without a replay buffer pay for fresh SGOs,
            then train on a batch drawn from a buffer of `capacity`.

    Raises:
        ValueError: unknown name, or a buffer or a round smaller than a batch.
    """

    def __init__(
        self,
        name: str,
        options: SourceOptions,
        *,
        total_steps: int,
        batch_size: int,
        replays_fresh: bool = False,
    ) -> None:
        options.check(name, batch_size, replays_fresh=replays_fresh)
        rule = SOURCES[name]
        self.rule, self.options, self.total_steps = rule, options, total_steps
        self.replays_fresh = rule.replays_fresh(replays_fresh)
        buffered = rule.buffered or self.replays_fresh
        constant = {"never": 0.0, "always": 1.0, "constant": options.probability}
        rise: dict[str, float] = (
            {"initial_phi": options.initial_phi, "increment": options.phi_step, "epsilon": options.epsilon}
            if rule.phi == "adaptive"
            else {"initial_phi": constant[rule.phi], "increment": 0.0}
        )
        self.schedule = AdaptiveSchedule(total_steps=total_steps, replay_ratio=options.replay_ratio, **rise)
        self.buffer: ReplayBuffer[TokenSequence] | None = ReplayBuffer(options.capacity) if buffered else None
        self.round: list[TokenSequence] = []
        self.minibatches: list[list[int]] = []  # of the round, still to be trained on

    @property
    def phi(self) -> float:
        """The probability in force of training on SGOs."""
        return self.schedule.phi

    @property
    def buffer_size(self) -> int:
        """Sequences in the replay buffer; 0 without one."""
        return len(self.buffer) if self.buffer is not None else 0

    def next(self, context: StepContext) -> SourcedBatch:
        """The batch of this step. The random draw is made for every source, so that all see the same ones."""
        draw = context.rng.random()
        if self.options.final_data_share is not None and self.rule.phi == "constant":
            self.schedule.phi = imitation_share(context.step, self.total_steps, self.options.final_data_share)
        if self.rule.rounds:
            return self._from_round(context)
        if self.buffer is None or self.replays_fresh:
            if draw >= self.phi:
                return SourcedBatch("dataset", context.batch, [])
            fresh = context.generate(context.batch)
            if self.replays_fresh and self.buffer is not None:
                self.buffer.push(fresh)
                return self._replay(context)
            return SourcedBatch("generate", (context.batch if self.rule.paired else []) + fresh, [0] * len(fresh))
        wanted = len(context.batch)
        decision = self.schedule.decide(context.step, draw, len(self.buffer), self.buffer.capacity, wanted)
        if decision == "dataset":
            return SourcedBatch(decision, context.batch, [])
        if decision == "generate":
            fresh = context.generate(context.batch)
            self.buffer.push(fresh)
            return SourcedBatch(decision, fresh, [0] * len(fresh))
        return self._replay(context)

    def _replay(self, context: StepContext) -> SourcedBatch:
        assert self.buffer is not None
        batch = self.buffer.draw(len(context.batch), context.rng)
        return SourcedBatch("replay", batch, _ages(batch, context.step))

    def _from_round(self, context: StepContext) -> SourcedBatch:
        """The next minibatch of the round; a new round is sampled when the last is used up."""
        decision: Decision = "replay"
        if not self.minibatches:
            decision = "generate"
            size = len(context.batch)
            prompts = context.peek_batches(max(1, self.options.rollouts // size))
            self.round = [made for batch in prompts for made in context.generate(batch)]
            for _ in range(self.options.inner_epochs):
                order = context.rng.sample(range(len(self.round)), len(self.round))
                self.minibatches += [order[i : i + size] for i in range(0, len(order), size)]
        batch = [self.round[i] for i in self.minibatches.pop(0)]
        return SourcedBatch(decision, batch, _ages(batch, context.step))

    def observe(self, validation_loss: float) -> None:
        """Tell the schedule a validation loss (nats per token); the first one is that before training."""
        self.schedule.observe(validation_loss)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs, as JSON-able values."""
        return {
            "schedule": self.schedule.state_dict(),
            "buffer": [_plain(made) for made in self.buffer.items] if self.buffer is not None else [],
            "round": [_plain(made) for made in self.round] if self.minibatches else [],
            "minibatches": self.minibatches,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.schedule.load_state_dict(state["schedule"])
        self.round = [_sequence(row) for row in state["round"]]
        self.minibatches = [list(indices) for indices in state["minibatches"]]
        if self.buffer is not None:
            self.buffer = ReplayBuffer(self.buffer.capacity)
            self.buffer.push(_sequence(row) for row in state["buffer"])


def _ages(batch: list[TokenSequence], step: int) -> list[int]:
    return [step - (made.sampled_at_step or 0) for made in batch]


def _plain(made: TokenSequence) -> dict[str, Any]:
    return {
        "id": made.id,
        "prompt": made.prompt,
        "response": made.response,
        "token_values": dict(made.token_values),
        "step": made.sampled_at_step,
    }


def _sequence(row: dict[str, Any]) -> TokenSequence:
    return TokenSequence(
        id=row["id"],
        prompt=tuple(row["prompt"]),
        response=tuple(row["response"]),
        sampled_at_step=row["step"],
        token_values={name: tuple(values) for name, values in row["token_values"].items()},
    )
