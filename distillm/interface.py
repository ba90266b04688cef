"""A method is an objective times an output source times options: the one interface that every method fulfils.

The objective says what is minimised at each response token, the output source where each batch's responses come
from. Either can be exchanged alone, which is what Tables 1, 2 and 4 of the paper do.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

if TYPE_CHECKING:  # PyTorch takes seconds to import, and whoever lists methods needs none of it
    from torch import Tensor

    from distillm.divergences import Kernel

Init = Literal["pretrained", "sft"]


@dataclass(frozen=True)
class TokenSequence:
    """One prompt with one response, as token ids.

    Attributes:
        id: the example's id in its data set; it stays with every response sampled for the prompt.
        prompt: token ids; never counted by a loss.
        response: token ids, the final EOS included. A response cut at the length limit has none.
        sampled_at_step: the training step that sampled the response; None where it is the data set's.
        token_values: values per response token that a roll-out left for its objective, for example the
            log-probabilities under the policy that sampled it (MiniLLM's importance weights need them).
    """

    id: str
    prompt: tuple[int, ...]
    response: tuple[int, ...]
    sampled_at_step: int | None = None
    token_values: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def with_response(self, response: tuple[int, ...], sampled_at_step: int | None) -> TokenSequence:
        """The same prompt answered by another response; token_values of the old one are dropped."""
        return replace(self, response=response, sampled_at_step=sampled_at_step, token_values={})


class Objective(Protocol):
    """What a method minimises, per response token. Options are the fields of the dataclass that implements it.

    Two more attributes, either of which may be missing, let the training loop call it a few tokens at a time, so that
    the logits of a batch are never there at once (`distillm.fused`):

    * `per_token`, True where the loss of a token depends on that token's logits and on nothing of the other tokens. The
      objective is then called on runs of consecutive tokens; a sequence that such a run cuts is shown to it with the
      earlier part of the response as the end of the prompt. `Divergence` says so for what derives from it.
    * `kernel`, value and gradient by hand (`distillm.divergences.Kernel`); without, or where it is None, they come from
      automatic differentiation of a call. For an objective without a teacher the kernel's second argument are the
      tokens.
    """

    @property
    def needs_teacher(self) -> bool:
        """Whether it reads the teacher's logits. A plain class variable does."""
        ...

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        tokens: Tensor,
        batch: list[TokenSequence],
    ) -> Tensor:
        """Return the loss of each response token.

        Args:
            student_logits: (N, V), the logits that predict the batch's N response tokens, sequence after
                sequence, prompts and padding left out.
            teacher_logits: (N, V), without gradient; None unless `needs_teacher`.
            tokens: (N,), the response tokens themselves.
            batch: the sequences, in the order of the rows above.

        Returns:
            (N,) in float32. The training loop takes the mean over all response tokens of the whole batch, however
            it is cut into micro-batches.
        """
        ...


class Divergence(ABC):
    """Base of objectives that compare teacher and student at each token and look at nothing else."""

    needs_teacher: ClassVar[bool] = True
    per_token: ClassVar[bool] = True

    @property
    def kernel(self) -> Kernel | None:
        """Value and gradient by hand, where `divergence` is one of `distillm.divergences`."""
        return None

    @abstractmethod
    def divergence(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """The divergence (N,) at each token, of logits (N, V)."""

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        tokens: Tensor,
        batch: list[TokenSequence],
    ) -> Tensor:
        """Per-token loss (N,); see `Objective`."""
        assert teacher_logits is not None
        return self.divergence(student_logits, teacher_logits)


@dataclass(frozen=True)
class Sampling:
    """How the student-generated outputs an objective is trained on are sampled.

    Attributes:
        teacher_mix: a, the teacher's share in the token-level mixture (1 - a) q + a p that is sampled from.
        log_probs: leave the sampled tokens' log-probabilities as token_values `student` and `teacher`.
    """

    teacher_mix: float = 0.0
    log_probs: bool = False


class BatchObjective:
    """Base of the objectives that look at whole batches, change over training, or want their own sampling.

    Every part does nothing unless overridden. The training loop calls `on_step_begin` before and `on_step_end` after
    each optimiser step; the state goes into checkpoints.
    """

    @property
    def dropout(self) -> bool:
        """Whether the student trains with its dropout. An objective that compares it with its own past does not."""
        return True

    @property
    def sampling(self) -> Sampling:
        """How the student's responses are sampled for this objective."""
        return Sampling()

    def on_step_begin(self, batch: list[TokenSequence], step: int, total_steps: int) -> list[TokenSequence]:
        """See the whole batch of a step (from 1) before it is cut into micro-batches; return it, maybe annotated."""
        return batch

    def on_step_end(self, loss: float) -> None:
        """Learn the loss of the whole batch."""

    def state_dict(self) -> dict[str, float | None]:
        """What a resumed run needs, as JSON-able values."""
        return {}

    def load_state_dict(self, state: Mapping[str, float | None]) -> None:
        """Take back what `state_dict` gave."""


class StepContext(Protocol):
    """What an output source may use at one training step."""

    @property
    def step(self) -> int:
        """The optimiser step, from 1."""
        ...

    @property
    def batch(self) -> list[TokenSequence]:
        """The step's batch of the data set: prompts with their reference (or the teacher's) responses."""
        ...

    @property
    def rng(self) -> random.Random:
        """Random numbers that depend on the run's seed and the step only, so that a resumed run repeats them."""
        ...

    def generate(self, batch: list[TokenSequence]) -> list[TokenSequence]:
        """Sample a response of the current student to each prompt (eval mode, no gradient), with `sampled_at_step`."""
        ...

    def peek_batches(self, count: int) -> list[list[TokenSequence]]:
        """The data set's next batches, this step's the first: prompts for a round of roll-outs."""
        ...


@dataclass(frozen=True)
class PlainText:
    """The auxiliary language-model loss on plain text that a method adds to its own.

    Attributes:
        weight: its weight beside the method's loss; 0 switches it off.
        kl_share: share of KL(p || q) in it, the rest is cross-entropy.
    """

    weight: float = 0.0
    kl_share: float = 0.0


@dataclass(frozen=True)
class Method:
    """One row of a table.

    Attributes:
        name: what `--method` takes.
        objective: a dataclass fulfilling `Objective`; its fields are the options `--set method.OPTION=VALUE`.
        source: the output source it uses unless `--sgo` names another (`distillm.sources.SOURCES`).
        init: its init student in its paper: `pretrained` as loaded, or `sft` after a short supervised fine-tuning.
        paper: where it is defined.
        summary: one line for `bench list methods`.
        deviations: what differs from its authors' code, and why.
        source_options: options of the output source in which it differs from their defaults.
        plain_text: the auxiliary loss its paper's set-up adds.
        beyond_paper: not one of the DistiLLM paper's own comparisons.
    """

    name: str
    objective: type[Objective]
    source: str
    init: Init
    paper: str
    summary: str
    deviations: str = ""
    source_options: Mapping[str, object] = field(default_factory=dict)
    plain_text: PlainText = PlainText()
    beyond_paper: bool = False


def check_unit_interval(**values: float) -> None:
    """Raise ValueError, naming the value, unless each lies in [0, 1]."""
    for name, value in values.items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} must lie in [0, 1], got {value}")
