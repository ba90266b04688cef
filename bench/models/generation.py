"""Sampling responses: through the decode loop, or through transformers' `generate` for what that loop cannot run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

from bench.models.batches import pad
from bench.models.cache import roomy_cache
from bench.models.captured import CapturedDecoders, can_capture
from bench.models.decoding import Ending, History, NonFiniteLogits, Reader, Request, choose, decode, mixed, positions_of
from bench.models.output_head import casting_once
from bench.models.sampling import Decoding, forbid_repeats
from bench.models.tokenizer import TokenizerAdapter
from bench.system.cuda_graphs import NotCaptured

Engine = Literal["decode loop", "transformers generate"]
Way = Literal["captured steps", "plain steps", "transformers generate"]


@dataclass(frozen=True)
class Mixture:
    """A teacher whose distribution is mixed into the student's at every token: (1 - a) q + a p (arXiv:2306.08543).

    Attributes:
        teacher: in eval mode.
        start_id: what an encoder-decoder's decoder starts from; None for a causal model.
        share: a, the teacher's share.
    """

    teacher: PreTrainedModel
    start_id: int | None
    share: float


def engine_of(config: PretrainedConfig) -> Engine:
    """What samples from models of an architecture. Families that keep more than keys and values have `generate`."""
    auto = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING if config.is_encoder_decoder else MODEL_FOR_CAUSAL_LM_MAPPING
    network = auto.get(type(config), None)
    takes_cache = network is None or (
        "past_key_values" in inspect.signature(network.forward).parameters
        and not network._is_stateful  # some keep a state in their modules (RecurrentGemma)
    )
    return "decode loop" if takes_cache and roomy_cache(config) is not None else "transformers generate"


@torch.inference_mode()
def sample(
    network: PreTrainedModel,
    prompts: Sequence[tuple[int, ...]],
    uniform: Tensor,
    tokenizer: TokenizerAdapter,
    start_id: int | None,
    decoding: Decoding,
    graphs: CapturedDecoders,
    *,
    entries: int | None = None,
    mixture: Mixture | None = None,
    lengths: Sequence[int] | None = None,
) -> list[tuple[int, ...]]:
    """Sample responses to prompts, as one batch.

    Args:
        network: put into eval mode for the call.
        prompts: token ids, padded on the left for causal models.
        uniform: (R, max_new_tokens) random numbers in [0, 1), float64; R is a multiple of the number of prompts, and
            the rows of one prompt stand side by side.
        tokenizer: knows padding, EOS and the kind of model.
        start_id: what an encoder-decoder's decoder starts from; None for a causal model.
        decoding: length and sampling options.
        graphs: the network's, for a CUDA device.
        entries: of the output layer, those that may be sampled; None = all.
        mixture: what is sampled from in place of the model's own distribution.
        lengths: of each row's response, EOS included, whatever the model says; to measure with.

    Returns:
        R rows of token ids, EOS included where the model ended its response; cut after the limit otherwise.

    Raises:
        NonFiniteLogits: the model's logits are nan or inf.
    """
    networks = [network] if mixture is None else [network, mixture.teacher]
    stops = stop_ids(networks, tokenizer)
    ids, mask = pad(list(prompts), tokenizer.pad_id, network.device, left=tokenizer.kind == "causal")
    # the tokenizer's EOS first: it is what ends a response of a given length
    ordered = sorted(stops, key=lambda stop: stop != tokenizer.eos_id)
    wanted = None if lengths is None else torch.tensor(lengths, device=network.device)
    ending = Ending(torch.tensor(ordered, device=network.device), wanted)
    share = 0.0 if mixture is None else mixture.share
    request = Request(ids, mask, uniform.to(network.device), decoding, ending, teacher_mix=share)
    was_training = network.training
    network.eval()
    try:
        if decoding.beams == 1 and all(engine_of(one.config) == "decode loop" for one in networks):
            starts = [start_id] if mixture is None else [start_id, mixture.start_id]
            rows = _by_own_loop(networks, starts, entries, request, graphs)
        else:
            rows = _by_generate(network, tokenizer, start_id, entries, mixture, request)
            graphs.ways.add("transformers generate")
    finally:
        network.train(was_training)
    return [_until_stop(row, stops, tokenizer.eos_id) for row in rows]


def _by_own_loop(
    networks: Sequence[PreTrainedModel],
    starts: Sequence[int | None],
    entries: int | None,
    request: Request,
    graphs: CapturedDecoders,
) -> list[list[int]]:
    """By captured steps where that is possible, else by plain ones."""

    def run(loop: Callable[[Sequence[Reader], Request], list[list[int]]], way: Way) -> list[list[int]]:
        made = loop([Reader(one, start, entries) for one, start in zip(networks, starts, strict=True)], request)
        graphs.ways.add(way)
        return made

    if graphs.possible and can_capture(networks):
        try:
            return run(graphs.decode, "captured steps")
        except NotCaptured as error:  # slower, and the same responses
            graphs.possible = False
            graphs.forget()
            why, _, _ = str(error).partition("\n")
            graphs.note(f"its decoding steps are not captured as CUDA graphs, and take longer: {why}")
    with casting_once(networks):
        return run(decode, "plain steps")


def _by_generate(
    network: PreTrainedModel,
    tokenizer: TokenizerAdapter,
    start_id: int | None,
    entries: int | None,
    mixture: Mixture | None,
    request: Request,
) -> list[list[int]]:
    """By transformers' `generate`, which reads a prompt for each response to it."""
    ids, mask = (part.repeat_interleave(request.copies, dim=0) for part in (request.ids, request.mask))
    chooser = _Chooser(replace(request, ids=ids, mask=mask), entries, mixture, start_id)
    decoding = request.decoding
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=decoding.max_new_tokens,
        pad_token_id=tokenizer.pad_id,
        eos_token_id=request.ending.stops.tolist(),
        bos_token_id=tokenizer.backend.bos_token_id,
        decoder_start_token_id=start_id,
        use_cache=True,
        num_beams=decoding.beams,
        no_repeat_ngram_size=decoding.no_repeat_ngram if decoding.beams > 1 and decoding.no_repeat_ngram else None,
    )
    own = network.generation_config
    # `generate` fills what is unset from the model's own settings: a checkpoint's beams or penalties would leak in
    network.generation_config = settings
    try:
        with casting_once([network] if mixture is None else [network, mixture.teacher]):
            output = network.generate(
                input_ids=ids, attention_mask=mask, logits_processor=LogitsProcessorList([chooser])
            )
    finally:
        network.generation_config = own
    prefix = 1 if start_id is not None else ids.shape[1]
    rows: list[list[int]] = output[:, prefix:].tolist()
    return rows


class _Chooser(LogitsProcessor):  # type: ignore[misc]  # transformers exports it untyped
    """Leaves one token to a row, as `choose` does; `generate` then takes the best, which is that one.

    For beam search it leaves the scores as they are. A mixture's teacher reads everything again for every token.
    """

    def __init__(self, request: Request, entries: int | None, mixture: Mixture | None, start_id: int | None) -> None:
        self.request, self.entries, self.mixture, self.start_id = request, entries, mixture, start_id
        self.position = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        request, decoding = self.request, self.request.decoding
        everything = torch.full_like(scores, -torch.inf)
        scores = scores[:, : self.entries]
        if self.mixture is not None:
            scores = mixed([scores.float(), self._teacher_logits(self.mixture, input_ids).float()], self.mixture.share)
        if decoding.beams > 1:
            if not scores.amax(-1).isfinite().all():
                raise NonFiniteLogits
            everything[:, : self.entries] = scores
            return everything
        if size := decoding.no_repeat_ngram:  # of the mixture: its teacher would bring back what is forbidden
            begun = History.begun(request.ids, request.mask, self.start_id)
            history = torch.cat([begun, input_ids[:, begun.shape[1] :]], dim=1)
            length = torch.tensor(history.shape[1], device=history.device)
            scores = forbid_repeats(scores.float(), history, length, size)
        column = request.uniform[:, self.position : self.position + 1]
        tokens, sound = choose(scores.float(), column, self.position, decoding, request.ending)
        if not sound.all():
            raise NonFiniteLogits
        self.position += 1
        return everything.scatter_(-1, tokens[:, None], 0.0)

    def _teacher_logits(self, mixture: Mixture, so_far: Tensor) -> Tensor:
        ids, mask = self.request.ids, self.request.mask
        if mixture.start_id is None:
            mask = torch.cat([mask, mask.new_ones(len(so_far), so_far.shape[1] - mask.shape[1])], dim=1)
            inputs = {"input_ids": so_far, "attention_mask": mask}
            if "position_ids" in inspect.signature(mixture.teacher.forward).parameters:
                inputs["position_ids"] = positions_of(mask)
        else:
            inputs = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": so_far}
        logits = mixture.teacher(**inputs, use_cache=False).logits[:, -1, : self.entries]
        assert isinstance(logits, Tensor)
        return logits


def stop_ids(networks: Sequence[PreTrainedModel], tokenizer: TokenizerAdapter) -> list[int]:
    """The ids that end a response: the tokenizer's EOS, and those the checkpoints name beside it.

    Chat models often name several (Llama-3, Gemma); one that is used as it is would not stop without them.
    """
    stops = {tokenizer.eos_id}
    for network in networks:
        named = network.generation_config.eos_token_id
        stops |= set(named if isinstance(named, list) else [] if named is None else [named])
        # a single one may be the family's default; a list was written by someone
        listed = getattr(network.config.get_text_config(), "eos_token_id", None)
        stops |= set(listed) if isinstance(listed, list) else set()
    return sorted(stop for stop in stops if stop < tokenizer.size)


def _until_stop(row: list[int], stops: list[int], eos_id: int) -> tuple[int, ...]:
    """The tokens before the first stop, closed by the EOS that training uses: what follows is padding."""
    for at, token in enumerate(row):
        if token in stops:
            return (*row[:at], eos_id)
    return tuple(row)
