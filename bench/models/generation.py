"""Sampling responses, batched and with the KV cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from bench.models.batches import pad
from bench.models.tokenizer import TokenizerAdapter
from bench.system.errors import BenchError
from bench.system.seeding import seed_torch


@dataclass(frozen=True)
class Decoding:
    """How responses are sampled; the defaults are those of student-generated outputs in training."""

    max_new_tokens: int
    temperature: float = 1.0  # 0 = greedy
    top_p: float = 1.0
    top_k: int = 0  # 0 = off
    beams: int = 1  # more: beam search instead of sampling
    no_repeat_ngram: int = 0  # forbid repeating an n-gram of this length; 0 = off


class NonFiniteLogits(BenchError):
    """A model gives no distribution to sample from: its logits are nan or inf."""


class _Finite(LogitsProcessor):  # type: ignore[misc]  # transformers exports it untyped
    """Refuses scores that cannot be sampled from; torch would fail an assertion, on a GPU one that ends the process."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        # the maximum is finite unless an entry is nan or +inf or all are -inf; single tokens may be masked by -inf
        if not torch.isfinite(scores.amax(-1)).all():
            raise NonFiniteLogits("the model's logits are not finite: there is nothing to sample from")
        return scores


class _Draw(LogitsProcessor):  # type: ignore[misc]  # transformers exports it untyped
    """Leaves one token to a row, drawn from its distribution; `generate` then takes the best, which is that one.

    By the inverse of the cumulative distribution: one random number a row. torch.multinomial, which `generate` would
    draw with, takes one for every token of the vocabulary: on a CPU a quarter of a small model's time to generate.
    """

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        # in float32 the steps of rare tokens would be lost in the sum
        cumulative = scores.softmax(-1).cumsum(-1, dtype=torch.float64)
        at = torch.rand_like(cumulative[:, :1]) * cumulative[:, -1:]
        # the first token whose sum exceeds the number: never one of probability zero
        drawn = torch.searchsorted(cumulative, at, right=True)
        return torch.full_like(scores, -torch.inf).scatter_(-1, drawn, 0.0)


@torch.inference_mode()
def sample(
    network: PreTrainedModel,
    prompts: list[tuple[int, ...]],
    tokenizer: TokenizerAdapter,
    start_id: int | None,
    decoding: Decoding,
    *seed: int | str,
    processors: Callable[[Tensor], list[LogitsProcessor]] = lambda mask: [],
) -> list[tuple[int, ...]]:
    """Sample one response to each prompt, as one batch.

    Args:
        network: put into eval mode for the call.
        prompts: token ids, padded on the left for causal models.
        tokenizer: knows padding, EOS and the kind of model.
        start_id: what an encoder-decoder's decoder starts from; None for a causal model.
        decoding: length and sampling options.
        seed: parts of the seed; equal seeds and prompts give equal responses.
        processors: given the prompts' attention mask, what changes the scores before a token is sampled.

    Returns:
        token ids, EOS included where the model ended its response; cut after the limit otherwise.

    Raises:
        NonFiniteLogits: the model's logits are nan or inf.
    """
    seed_torch(*seed)
    stops = stop_ids(network, tokenizer)
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=decoding.max_new_tokens,
        pad_token_id=tokenizer.pad_id,
        eos_token_id=stops,
        bos_token_id=tokenizer.backend.bos_token_id,
        decoder_start_token_id=start_id,
        use_cache=True,
        num_beams=decoding.beams,
        no_repeat_ngram_size=decoding.no_repeat_ngram or None,
    )
    ids, mask = pad(prompts, tokenizer.pad_id, network.device, left=tokenizer.kind == "causal")
    was_training, own = network.training, network.generation_config
    network.eval()
    # `generate` fills what is unset from the model's own settings: a checkpoint's beams or penalties would leak in
    network.generation_config = settings
    try:
        output = network.generate(
            input_ids=ids,
            attention_mask=mask,
            logits_processor=LogitsProcessorList([_Finite(), *processors(mask), *_drawing(decoding)]),
        )
    finally:
        network.generation_config = own
        network.train(was_training)
    prefix = ids.shape[1] if tokenizer.kind == "causal" else 1
    return [_until_stop(row[prefix:], stops, tokenizer.eos_id) for row in output.tolist()]


def _drawing(decoding: Decoding) -> list[LogitsProcessor]:
    """What changes the scores and draws from them; nothing where the best token or beam is taken."""
    if decoding.temperature == 0 or decoding.beams > 1:
        return []
    made: list[LogitsProcessor] = []
    if decoding.temperature != 1:
        made.append(TemperatureLogitsWarper(float(decoding.temperature)))
    if decoding.top_k:
        made.append(TopKLogitsWarper(decoding.top_k))
    if decoding.top_p < 1:
        made.append(TopPLogitsWarper(decoding.top_p))
    return [*made, _Draw()]


def stop_ids(network: PreTrainedModel, tokenizer: TokenizerAdapter) -> list[int]:
    """The ids that end a response: the tokenizer's EOS, and those the checkpoint names beside it.

    Chat models often name several (Llama-3, Gemma); one that is used as it is would not stop without them.
    """
    given = network.generation_config.eos_token_id
    named = given if isinstance(given, list) else [] if given is None else [given]
    return sorted({tokenizer.eos_id, *named})


def _until_stop(row: list[int], stops: list[int], eos_id: int) -> tuple[int, ...]:
    """The tokens before the first stop, closed by the EOS that training uses: what follows is padding."""
    for at, token in enumerate(row):
        if token in stops:
            return (*row[:at], eos_id)
    return tuple(row)
