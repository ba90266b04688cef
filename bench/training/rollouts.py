"""Student-generated outputs as an objective wants them: from the student or a mixture, with log-probabilities."""

from __future__ import annotations

import torch

from bench.models.language_model import LanguageModel
from bench.models.sampling import Decoding
from distillm import Sampling, TokenSequence

_LOWEST = -1e4  # stands for log 0: finite, so that differences are


@torch.no_grad()
def roll_out(
    student: LanguageModel,
    teacher: LanguageModel | None,
    batch: list[TokenSequence],
    sampling: Sampling,
    max_new_tokens: int,
    *seed: int | str,
    step: int,
    batch_size: int | None = None,
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
        batch_size: responses sampled at once; None = all.
        micro_batch_size: sequences per forward pass for the log-probabilities; None = all at once.

    Raises:
        NonFiniteLogits: the student's or the teacher's logits are nan or inf.
    """
    mixture = None
    if sampling.teacher_mix:
        assert teacher is not None
        mixture = teacher.mixture(sampling.teacher_mix)
    responses = student.sample(batch, Decoding(max_new_tokens), *seed, batch_size=batch_size, mixture=mixture)
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
