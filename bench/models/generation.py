"""Sampling responses: through the decode loop, or through transformers' `generate` for what that loop cannot run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

from bench.models.batches import pad
from bench.models.cache import roomy_cache
from bench.models.captured import CapturedDecoders, can_capture
from bench.models.decoding import Ending, History, NonFiniteLogits, Reader, choose, decode, mixed
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
    device, copies = network.device, len(uniform) // len(prompts)
    # the tokenizer's EOS first: it is what ends a response of a given length
    ordered = sorted(stops, key=lambda stop: stop != tokenizer.eos_id)
    wanted = None if lengths is None else torch.tensor(lengths, device=device)
    ending = Ending(torch.tensor(ordered, device=device), wanted)
    own_loop = decoding.beams == 1 and all(engine_of(one.config) == "decode loop" for one in networks)
    was_training = network.training
    network.eval()
    try:
        if own_loop:
            starts = [start_id] if mixture is None else [start_id, mixture.start_id]
            share = 0.0 if mixture is None else mixture.share

            def run(loop: Callable[..., list[list[int]]], way: Way) -> list[list[int]]:
                readers = [Reader(one, start, entries) for one, start in zip(networks, starts, strict=True)]
                made = loop(readers, share, ids, mask, copies, uniform.to(device), decoding, ending)
                graphs.ways.add(way)
                return made

            rows = None
            if graphs.possible and can_capture(networks):
                try:
                    rows = run(graphs.decode, "captured steps")
                except NotCaptured as error:  # slower, and the same responses
                    graphs.possible = False
                    graphs.forget()
                    why, _, _ = str(error).partition("\n")
                    graphs.note(f"its decoding steps are not captured as CUDA graphs, and take longer: {why}")
            if rows is None:
                with casting_once(networks):
                    rows = run(decode, "plain steps")
        else:
            asked, asked_mask = (part.repeat_interleave(copies, dim=0) for part in (ids, mask))
            chooser = _Chooser(uniform.to(device), decoding, ending, asked, asked_mask, entries, mixture, start_id)
            with casting_once(networks):
                rows = _generate(network, chooser, tokenizer, start_id)
            graphs.ways.add("transformers generate")
    finally:
        network.train(was_training)
    return [_until_stop(row, stops, tokenizer.eos_id) for row in rows]


class _Chooser(LogitsProcessor):  # type: ignore[misc]  # transformers exports it untyped
    """Leaves one token to a row, as `choose` does; `generate` then takes the best, which is that one.

    For beam search it leaves the scores as they are. A mixture's teacher reads everything again for every token.
    """

    def __init__(
        self,
        uniform: Tensor,
        decoding: Decoding,
        ending: Ending,
        ids: Tensor,
        mask: Tensor,
        entries: int | None,
        mixture: Mixture | None,
        start_id: int | None,
    ) -> None:
        self.uniform, self.decoding, self.ending, self.entries = uniform, decoding, ending, entries
        self.ids, self.mask, self.mixture, self.start_id, self.position = ids, mask, mixture, start_id, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        everything = torch.full_like(scores, -torch.inf)
        scores = scores[:, : self.entries]
        if self.mixture is not None:
            scores = mixed([scores.float(), self._teacher_logits(self.mixture, input_ids).float()], self.mixture.share)
        if self.decoding.beams > 1:
            if not scores.amax(-1).isfinite().all():
                raise NonFiniteLogits
            everything[:, : self.entries] = scores
            return everything
        if size := self.decoding.no_repeat_ngram:  # of the mixture: its teacher would bring back what is forbidden
            begun = History.begun(self.ids, self.mask, self.start_id)
            history = torch.cat([begun, input_ids[:, begun.shape[1] :]], dim=1)
            length = torch.tensor(history.shape[1], device=history.device)
            scores = forbid_repeats(scores.float(), history, length, size)
        column = self.uniform[:, self.position : self.position + 1]
        tokens, sound = choose(scores.float(), column, self.position, self.decoding, self.ending)
        if not sound.all():
            raise NonFiniteLogits
        self.position += 1
        return everything.scatter_(-1, tokens[:, None], 0.0)

    def _teacher_logits(self, mixture: Mixture, so_far: Tensor) -> Tensor:
        if mixture.start_id is None:
            mask = torch.cat([self.mask, self.mask.new_ones(len(so_far), so_far.shape[1] - self.mask.shape[1])], dim=1)
            inputs = {"input_ids": so_far, "attention_mask": mask}
            if "position_ids" in inspect.signature(mixture.teacher.forward).parameters:
                inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp_(min=0)
        else:
            inputs = {"input_ids": self.ids, "attention_mask": self.mask, "decoder_input_ids": so_far}
        logits = mixture.teacher(**inputs, use_cache=False).logits[:, -1, : self.entries]
        assert isinstance(logits, Tensor)
        return logits


def _generate(
    network: PreTrainedModel, chooser: _Chooser, tokenizer: TokenizerAdapter, start_id: int | None
) -> list[list[int]]:
    decoding = chooser.decoding
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=decoding.max_new_tokens,
        pad_token_id=tokenizer.pad_id,
        eos_token_id=chooser.ending.stops.tolist(),
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
        output = network.generate(
            input_ids=chooser.ids, attention_mask=chooser.mask, logits_processor=LogitsProcessorList([chooser])
        )
    finally:
        network.generation_config = own
    prefix = 1 if start_id is not None else chooser.ids.shape[1]
    rows: list[list[int]] = output[:, prefix:].tolist()
    return rows


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
