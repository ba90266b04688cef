"""MiniLLM: policy gradient for reverse KL on roll-outs of the student (Gu et al. 2024, arXiv:2306.08543).

A round of roll-outs is sampled from the token-level mixture (1 - a) q + a p of student q and teacher p, and trained on
for a few inner epochs. With q_old the student that made a roll-out y of T tokens:

    reward             r_t = (log p(y_t) - log q_old(y_t)) / scaling, clipped
    importance weight  w_t = q_old(y_t) / ((1 - a) q_old(y_t) + a p(y_t))
    return             R_t = sum over t' >= t of gamma^(t'-t) r_t', divided by the tokens left, T - t + 1
    advantage          A_t = R_t whitened over the tokens of the batch
    loss               max(-A_t rho_t, -A_t clip(rho_t, 1 - c, 1 + c)) + KL(q || p),  rho_t = w_t q(y_t) / q_old(y_t)

The plain-text term, cross-entropy and KL(p || q) in equal parts, is the training loop's auxiliary loss.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import distillm
from distillm import BatchObjective, Method, PlainText, Sampling, TokenSequence
from distillm.interface import check_unit_interval

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MiniLLM(BatchObjective):
    """Clipped policy gradient plus the single-step term. On responses nobody rolled out, the single-step term alone.

    Attributes:
        teacher_mix: a, the teacher's share in the distribution roll-outs are sampled from; 0 switches it off.
        gamma: discount of later rewards.
        reward_scaling: what rewards are divided by.
        reward_clip: bound of the scaled rewards.
        clip: c, bound of the ratio's distance from 1.
        importance_weights: weigh tokens by w_t; without, they count as if the student had sampled them.
        length_normalisation: divide each return by the number of tokens it sums over.
        whitening: advantages of mean 0 and variance 1 over the batch.
        policy_gradient: the policy gradient; without, the single-step term is left.
        single_step: KL(q || p) at each token, differentiated exactly.
    """

    teacher_mix: float = 0.2
    gamma: float = 0.95
    reward_scaling: float = 0.5
    reward_clip: float = 100.0
    clip: float = 0.2
    importance_weights: bool = True
    length_normalisation: bool = True
    whitening: bool = True
    policy_gradient: bool = True
    single_step: bool = True
    needs_teacher: ClassVar[bool] = True
    per_token: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.teacher_mix < 1.0:
            raise ValueError(f"teacher_mix must lie in [0, 1), got {self.teacher_mix}")
        check_unit_interval(gamma=self.gamma)
        for name in ("reward_scaling", "reward_clip", "clip"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not (self.policy_gradient or self.single_step):
            raise ValueError("policy_gradient and single_step are both off: nothing is left to minimise")

    @property
    def dropout(self) -> bool:
        """None: it would move the ratio q / q_old of a student that has not changed, mostly out of its clip."""
        return False

    @property
    def sampling(self) -> Sampling:
        """From the mixture, with the log-probabilities rewards and weights are made of."""
        return Sampling(self.teacher_mix, log_probs=True)

    def on_step_begin(self, batch: list[TokenSequence], step: int, total_steps: int) -> list[TokenSequence]:
        """Annotate roll-outs with `advantage` and `weight` per token."""
        rolled_out = [s for s in batch if "teacher" in s.token_values]
        returns = {id(s): self._returns(s) for s in rolled_out}
        flat = [value for values in returns.values() for value in values]
        mean, sd = 0.0, 1.0
        if self.whitening and len(flat) > 1:
            mean, sd = statistics.fmean(flat), math.sqrt(statistics.variance(flat) + 1e-8)
        return [
            replace(
                s,
                token_values={
                    **s.token_values,
                    "advantage": tuple((value - mean) / sd for value in returns[id(s)]),
                    "weight": self._weights(s),
                },
            )
            if id(s) in returns
            else s
            for s in batch
        ]

    def _returns(self, rollout: TokenSequence) -> list[float]:
        later, returns = 0.0, []
        pairs = zip(reversed(rollout.token_values["teacher"]), reversed(rollout.token_values["student"]), strict=True)
        for left, (p, q) in enumerate(pairs, start=1):
            reward = max(-self.reward_clip, min(self.reward_clip, (p - q) / self.reward_scaling))
            later = reward + self.gamma * later
            returns.append(later / left if self.length_normalisation else later)
        return returns[::-1]

    def _weights(self, rollout: TokenSequence) -> tuple[float, ...]:
        if not self.importance_weights:
            return (1.0,) * len(rollout.response)
        mix = self.teacher_mix
        # q / ((1 - a) q + a p) with both sides divided by q; past e^50 the weight is 0 anyway
        return tuple(
            1.0 / ((1.0 - mix) + mix * math.exp(min(p - q, 50.0)))
            for p, q in zip(rollout.token_values["teacher"], rollout.token_values["student"], strict=True)
        )

    def __call__(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: Tensor, batch: list[TokenSequence]
    ) -> Tensor:
        """Per-token loss (N,); see `distillm.interface.Objective`."""
        import torch

        assert teacher_logits is not None
        loss = torch.zeros(len(tokens), device=tokens.device)
        if self.single_step:
            loss = loss + distillm.rkld(student_logits, teacher_logits)
        if self.policy_gradient:
            loss = loss + self._policy_loss(student_logits, tokens, batch)
        return loss

    def _policy_loss(self, student_logits: Tensor, tokens: Tensor, batch: list[TokenSequence]) -> Tensor:
        import torch

        # a response without token_values has advantage 0: no policy loss, no gradient
        columns = [
            [value for s in batch for value in s.token_values.get(name, (0.0,) * len(s.response))]
            for name in ("advantage", "weight", "student")
        ]
        advantage, weight, old = torch.tensor(columns, device=tokens.device)
        now = student_logits.float().log_softmax(-1).gather(-1, tokens[:, None]).squeeze(-1)
        # e^20 is far outside the clip; a larger ratio would overflow before it is clipped
        ratio = weight * (now - old).clamp(-20.0, 20.0).exp()
        clipped = ratio.clamp(1.0 - self.clip, 1.0 + self.clip)
        return torch.maximum(-advantage * ratio, -advantage * clipped)


METHOD = Method(
    "minillm",
    MiniLLM,
    "roll-outs",
    "sft",
    "Gu et al. 2024, arXiv:2306.08543",
    "policy gradient for reverse KL on roll-outs, with single-step and plain-text terms",
    deviations=(
        "advantages are whitened over counted tokens, the authors' over padding too; optimiser, batch size and steps "
        "are those of every other method, so are learning rate and warm-up unless the preset gives MiniLLM its own, as "
        "`paper` does. As in the authors' code, the return at t holds r_t beside the single-step term, and the student "
        "trains without dropout"
    ),
    source_options={"probability": 1.0},
    plain_text=PlainText(weight=1.0, kl_share=0.5),
)
