"""Student-generated outputs as an objective wants them: from the student or a mixture, with log-probabilities."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedModel

from bench.models.generation import Decoding
from bench.models.language_model import LanguageModel
from distillm import Sampling, TokenSequence

_LOWEST = -1e4  # stands for log 0: finite, so that differences are


class TeacherMixture(LogitsProcessor):  # type: ignore[misc]  # transformers exports it untyped
    """Turns the student's scores into those of the token-level mixture (1 - a) q + a p (MiniLLM, arXiv:2306.08543).

    The teacher runs along with a key-value cache of its own, one token a step.

    Args:
        teacher: in eval mode.
        mix: a, the teacher's share.
        mask: (B, T) attention mask of the prompts, padded on the left for causal models.
        prompts: (B, T) ids an encoder reads; None for a causal teacher, whose prompts come with the scores.
    """

    def __init__(self, teacher: PreTrainedModel, mix: float, mask: Tensor, prompts: Tensor | None) -> None:
        self.teacher, self.mix, self.mask = teacher, mix, mask
        self.cache: Any = None
        self.encoded = None if prompts is None else teacher.get_encoder()(input_ids=prompts, attention_mask=mask)
        self.takes_positions = "position_ids" in inspect.signature(teacher.forward).parameters

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Log-probabilities (B, V) of the mixture for the next token."""
        p = self._teacher_logits(input_ids).float().log_softmax(-1)
        q = scores.float().log_softmax(-1)
        return torch.logaddexp(q + math.log1p(-self.mix), p + math.log(self.mix))

    def _teacher_logits(self, input_ids: Tensor) -> Tensor:
        new = input_ids if self.cache is None else input_ids[:, -1:]
        inputs: dict[str, Any] = {"past_key_values": self.cache, "use_cache": True}
        if self.encoded is not None:
            inputs |= {"encoder_outputs": self.encoded, "attention_mask": self.mask, "decoder_input_ids": new}
        else:
            grown = input_ids.shape[1] - self.mask.shape[1]
            mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), grown)], dim=1)
            inputs |= {"input_ids": new, "attention_mask": mask}
            if self.takes_positions:
                inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -new.shape[1] :]
        output = self.teacher(**inputs)
        self.cache = output.past_key_values
        logits = output.logits[:, -1]
        assert isinstance(logits, Tensor)
        return logits


@torch.no_grad()
def roll_out(
    student: LanguageModel,
    teacher: LanguageModel | None,
    batch: list[TokenSequence],
    sampling: Sampling,
    max_new_tokens: int,
    *seed: int | str,
    step: int,
    micro_batch_size: int | None = None,
) -> list[TokenSequence]:
    """One sampled response to each prompt of a batch, annotated if the objective asks for it.

    Args:
        student: put into eval mode for the call.
        teacher: needed for a mixture and for log-probabilities.
        batch: gives ids and prompts.
        sampling: what to sample from, and what to annotate.
        max_new_tokens: limit of a response.
        seed: parts of the seed.
        step: the training step, noted as `sampled_at_step`.
        micro_batch_size: sequences per forward pass for the log-probabilities; None = all at once.

    Raises:
        NonFiniteLogits: the student's or the teacher's logits are nan or inf.
    """
    prompts = [s.prompt for s in batch]

    def processors(mask: Tensor) -> list[LogitsProcessor]:
        if not sampling.teacher_mix:
            return []
        assert teacher is not None
        width = mask.shape[1]
        padded = [p + (student.tokenizer.pad_id,) * (width - len(p)) for p in prompts]
        ids = torch.tensor(padded, device=mask.device) if student.kind == "seq2seq" else None
        return [TeacherMixture(teacher.network, sampling.teacher_mix, mask, ids)]

    responses = student.sample(prompts, Decoding(max_new_tokens), *seed, processors=processors)
    made = [s.with_response(r, sampled_at_step=step) for s, r in zip(batch, responses, strict=True)]
    if not sampling.log_probs:
        return made
    assert teacher is not None
    was_training = student.network.training
    student.network.eval()
    micro = micro_batch_size or len(made)
    parts = [made[i : i + micro] for i in range(0, len(made), micro)]
    columns = {
        name: [values for part in parts for values in _log_probs(model, part)]
        for name, model in (("student", student), ("teacher", teacher))
    }
    student.network.train(was_training)
    return [
        TokenSequence(s.id, s.prompt, s.response, s.sampled_at_step, {name: rows[i] for name, rows in columns.items()})
        for i, s in enumerate(made)
    ]


def _log_probs(model: LanguageModel, batch: list[TokenSequence]) -> list[tuple[float, ...]]:
    """Of each sequence's response tokens, in nats."""
    made = model.batch(batch)
    chosen = model.log_probs(made).clamp(min=_LOWEST)
    return [tuple(part.tolist()) for part in torch.split(chosen, [len(s.response) for s in batch])]
