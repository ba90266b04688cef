"""The decode loop: one token a row and step, rows leave as they end, every row has random numbers of its own."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bench.models.cache import layers_of, roomy_cache
from bench.models.sampling import Decoding, draw, forbid_repeats, warp
from bench.system.errors import BenchError

_WORTH_DROPPING = 0.95  # ended rows are dropped once no more than this share is still running
# Prompts of a batch are read in two parts, on a CPU, where that saves so many operations on padding: some 0.15 s of a
# core. A pass more costs a twentieth of it, but small batches should be read as they come, and give the same bits.
_WORTH_SPLITTING = 10e9


class NonFiniteLogits(BenchError):
    """A model gives no distribution to sample from: its logits are nan or inf."""

    def __init__(self) -> None:
        super().__init__("the model's logits are not finite: there is nothing to sample from")


@dataclass(frozen=True)
class Ending:
    """What ends a response.

    Attributes:
        stops: ids that end it.
        lengths: (R,) the length at which each row ends, and not before; None where the model decides. For measuring.
    """

    stops: Tensor
    lengths: Tensor | None = None


@dataclass(frozen=True)
class Request:
    """Prompts to answer, and how: what all ways of decoding are asked.

    Attributes:
        ids, mask: (B, T) prompts as `Reader.prefill` takes them.
        uniform: (R, max_new_tokens) random numbers in [0, 1), float64, of R = copies x B responses, those to a prompt
            side by side.
        decoding: how tokens are chosen.
        ending: what ends a response.
        teacher_mix: the teacher's share in a mixture.
    """

    ids: Tensor
    mask: Tensor
    uniform: Tensor
    decoding: Decoding
    ending: Ending
    teacher_mix: float = 0.0

    @property
    def copies(self) -> int:
        """Responses to each prompt."""
        return len(self.uniform) // len(self.ids)

    def rows(self) -> Tensor:
        """The prompt (R,) that each response belongs to."""
        return torch.arange(len(self.ids), device=self.ids.device).repeat_interleave(self.copies)


class Reader:
    """One network that reads rows of prompts and then a token a row at a time, with a cache of what it has read.

    Args:
        network: in eval mode.
        start_id: what an encoder-decoder's decoder starts from; None for a causal model.
        entries: V, of its output layer, where not all are used.
    """

    mask: Tensor
    positions: Tensor  # of a causal model's last tokens
    encoded: Tensor  # what an encoder has made of the prompts
    encoder_output: Callable[..., Any]

    def __init__(self, network: PreTrainedModel, start_id: int | None, entries: int | None = None) -> None:
        self.network, self.start_id, self.entries = network, start_id, entries
        self.cache = roomy_cache(network.config)
        taken = inspect.signature(network.forward).parameters
        self.takes_positions, self.takes_kept = "position_ids" in taken, "logits_to_keep" in taken
        self.read = 0

    def read_prompts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """As `prefill`, in parts of like length where there is much padding that need not be read."""
        lengths = mask.sum(1).tolist() if ids.device.type == "cpu" else []
        part_of = self.network if self.start_id is None else self.network.get_encoder()
        groups = _alike(lengths, 2 * part_of.num_parameters(exclude_embeddings=True))
        if len(groups) < 2:
            return self.prefill(ids, mask)
        parts, logits = [], []
        for rows in groups:
            longest = max(lengths[row] for row in rows)
            used = slice(-longest, None) if self.start_id is None else slice(longest)
            parts.append(Reader(self.network, self.start_id, self.entries))
            logits.append(parts[-1].prefill(ids[rows, used], mask[rows, used]))
        self._gather(parts, mask, groups)
        order = torch.tensor([row for rows in groups for row in rows]).argsort()
        return torch.cat(logits).index_select(0, order)

    def _gather(self, parts: Sequence[Reader], mask: Tensor, groups: Sequence[Sequence[int]]) -> None:
        """Go on as if all prompts had been read at once; what was not read is zero, and hidden by the mask."""
        self.mask, self.read, self.cache = mask, mask.shape[1], parts[0].cache
        causal = self.start_id is None
        growing, fixed = zip(*(layers_of(part.cache) for part in parts), strict=True)
        for layers in zip(*growing, strict=True):
            layers[0].gather(layers, groups, mask.shape[1] if causal else 1, left=causal)
        for layers in zip(*fixed, strict=True):
            layers[0].gather(layers, groups, mask.shape[1], left=False)
        if causal:
            self.positions = positions_of(mask)
        else:
            self.encoder_output = parts[0].encoder_output
            self.encoded = parts[0].encoded.new_zeros(*mask.shape, parts[0].encoded.shape[-1])
            for part, rows in zip(parts, groups, strict=True):
                self.encoded[rows, : part.encoded.shape[1]] = part.encoded

    def prefill(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Read prompts (B, T), padded on the left for a causal model; returns logits (B, V) of the first token."""
        self.mask, self.read = mask, ids.shape[1]
        if self.start_id is None:
            self.positions = positions_of(mask)
            return self._forward(self._causal_inputs(ids))
        encoded = self.network.get_encoder()(input_ids=ids, attention_mask=mask)
        self.encoded, self.encoder_output = encoded.last_hidden_state, type(encoded)
        return self._forward(self._decoder_inputs(ids.new_full((len(ids), 1), self.start_id)))

    def spread(self, rows: Tensor, room: int) -> None:
        """Go on with these rows of the prompts, a row once for each time it is named, and room for more tokens."""
        growing, fixed = layers_of(self.cache)
        for layer in growing:
            layer.spread(rows, room)
        for layer in fixed:
            layer.spread(rows, 0)
        self._keep_inputs(rows)
        if self.start_id is None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(rows), room)], dim=1)
            self.positions = self.positions[:, -1:]

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only, in an order as `still_running` gives."""
        for layer in itertools.chain(*layers_of(self.cache)):
            layer.keep(rows)
        self._keep_inputs(rows)

    def step(self, tokens: Tensor) -> Tensor:
        """Read a token (R,) a row; returns logits (R, V) of the next one."""
        if self.start_id is not None:
            return self._forward(self._decoder_inputs(tokens[:, None]))
        self.read, self.positions = self.read + 1, self.positions + 1
        return self._forward(self._causal_inputs(tokens[:, None]))

    def _keep_inputs(self, rows: Tensor) -> None:
        self.mask = self.mask.index_select(0, rows)
        if self.start_id is None:
            self.positions = self.positions.index_select(0, rows)
        else:
            self.encoded = self.encoded.index_select(0, rows)

    def _causal_inputs(self, ids: Tensor) -> dict[str, Any]:
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": self.mask[:, : self.read]}
        return inputs | ({"position_ids": self.positions} if self.takes_positions else {})

    def _decoder_inputs(self, ids: Tensor) -> dict[str, Any]:
        encoded = self.encoder_output(last_hidden_state=self.encoded)
        return {"encoder_outputs": encoded, "attention_mask": self.mask, "decoder_input_ids": ids}

    def _forward(self, inputs: dict[str, Any]) -> Tensor:
        only_last = {"logits_to_keep": 1} if self.takes_kept else {}
        output = self.network(**inputs, **only_last, past_key_values=self.cache, use_cache=True)
        logits = output.logits[:, -1, : self.entries].float()
        assert isinstance(logits, Tensor)
        return logits


def positions_of(mask: Tensor) -> Tensor:
    """Positions (B, T) of tokens among those that a mask (B, T) shows; 0 where there is padding before them."""
    return (mask.cumsum(-1) - 1).clamp_(min=0)


def _alike(lengths: Sequence[int], operations: int) -> list[list[int]]:
    """Rows in groups of like length, longest first: cut in two again and again where that saves enough.

    Args:
        lengths: of the rows.
        operations: that a token costs.
    """
    groups: list[list[int]] = []
    left = [sorted(range(len(lengths)), key=lambda row: -lengths[row])]
    while left:
        rows = left.pop()
        saved, at = max(
            (((lengths[rows[0]] - lengths[rows[i]]) * (len(rows) - i), i) for i in range(len(rows))), default=(0, 0)
        )
        if saved * operations < _WORTH_SPLITTING:
            groups.append(rows)
        else:
            left += [rows[at:], rows[:at]]
    return groups


def mixed(logits: Sequence[Tensor], teacher_mix: float) -> Tensor:
    """The student's logits (B, V), or with a teacher's beside them log((1 - a) q + a p) (MiniLLM, arXiv:2306.08543)."""
    if len(logits) == 1:
        return logits[0]
    q, p = (one.log_softmax(-1) for one in logits)
    return torch.logaddexp(q + math.log1p(-teacher_mix), p + math.log(teacher_mix))


def choose(
    logits: Tensor, uniform: Tensor, position: Tensor | int, decoding: Decoding, ending: Ending
) -> tuple[Tensor, Tensor]:
    """The token (R,) that each row goes on with, and whether its logits gave a distribution (R,).

    Args:
        logits: (R, V).
        uniform: (R, 1), each row's random number for this position; not looked at if the best token is taken.
        position: of the token in its response, from 0.
        decoding: how it is chosen.
        ending: with lengths, a row stops there and nowhere else.
    """
    if ending.lengths is not None:
        logits = logits.index_fill(1, ending.stops, -torch.inf)
    if decoding.greedy:
        best, tokens = logits.max(-1)
        sound = best.isfinite()  # single tokens may be masked by -inf; of nan the maximum is nan
    else:
        tokens, sound = draw(warp(logits, decoding), uniform)
    if ending.lengths is not None:
        tokens = torch.where(ending.lengths == position + 1, ending.stops[0], tokens)
    return tokens, sound


def decode(readers: Sequence[Reader], request: Request) -> list[list[int]]:
    """Sample responses; a prompt is read once for all of its own.

    Args:
        readers: the student, and the teacher of a mixture.
        request: what is asked.

    Returns:
        R rows of token ids, the one that ended it included.

    Raises:
        NonFiniteLogits: some logits are nan or inf.
    """
    ids, mask, decoding = request.ids, request.mask, request.decoding
    rows, uniform, ending = request.rows(), request.uniform, request.ending
    room = decoding.max_new_tokens
    logits = mixed([reader.read_prompts(ids, mask) for reader in readers], request.teacher_mix)
    if request.copies > 1:
        logits = logits.index_select(0, rows)
    for reader in readers:
        reader.spread(rows, room - 1)
    history = History.of(ids, mask, readers[0].start_id, rows, decoding)
    made = torch.zeros(len(rows), room, dtype=torch.long, device=ids.device)
    responses: list[list[int]] = [[] for _ in rows]
    at, alive = torch.arange(len(rows), device=ids.device), torch.ones_like(rows, dtype=torch.bool)
    for position in range(room):
        if history is not None:
            logits = history.forbid(logits, position)
        tokens, sound = choose(logits, uniform[:, position : position + 1], position, decoding, ending)
        if not sound.all():
            raise NonFiniteLogits
        made[:, position] = tokens
        alive = alive & ~torch.isin(tokens, ending.stops)
        running = int(alive.sum())
        if running == 0 or position + 1 == room:
            break
        if history is not None:
            history.add(tokens, position)
        if running <= _WORTH_DROPPING * len(at):
            _hand_over(responses, at, made, ~alive, position + 1)
            kept = still_running(alive)
            at, made, uniform, tokens = (t.index_select(0, kept) for t in (at, made, uniform, tokens))
            ending = ending if ending.lengths is None else Ending(ending.stops, ending.lengths[kept])
            alive = torch.ones_like(at, dtype=torch.bool)
            for part in (*readers, history):
                if part is not None:
                    part.keep(kept)
        logits = mixed([reader.step(tokens) for reader in readers], request.teacher_mix)
    _hand_over(responses, at, made, torch.ones_like(alive), position + 1)
    return responses


def still_running(alive: Tensor) -> Tensor:
    """Rows (k,) to go on with, of a mask (R,): rows below k stay where they are, later ones fill the gaps."""
    rows = alive.nonzero().squeeze(1)
    count = len(rows)
    kept = torch.arange(count, device=rows.device)
    kept[~alive[:count]] = rows[rows >= count]
    return kept


def _hand_over(responses: list[list[int]], at: Tensor, made: Tensor, which: Tensor, length: int) -> None:
    for row, tokens in zip(at[which].tolist(), made[which, :length].tolist(), strict=True):
        responses[row] = tokens


@dataclass
class History:
    """The tokens so far of every row, for what forbids repeated n-grams.

    Attributes:
        tokens: (R, T + max_new_tokens), -1 where there is none.
        prompt: columns that the prompts take, as a tensor without dimensions.
        size: n.
    """

    tokens: Tensor
    prompt: Tensor
    size: int

    @classmethod
    def of(cls, ids: Tensor, mask: Tensor, start_id: int | None, rows: Tensor, decoding: Decoding) -> History | None:
        """That of rows of prompts (B, T); None where nothing is forbidden."""
        if not decoding.no_repeat_ngram:
            return None
        begun = cls.begun(ids, mask, start_id)
        prompt = torch.tensor(begun.shape[1], device=ids.device)
        empty = ids.new_full((len(rows), decoding.max_new_tokens), -1)
        return cls(torch.cat([begun.index_select(0, rows), empty], dim=1), prompt, decoding.no_repeat_ngram)

    @staticmethod
    def begun(ids: Tensor, mask: Tensor, start_id: int | None) -> Tensor:
        """What stands before the responses: the prompts, or the start tokens of decoders."""
        return ids.masked_fill(mask == 0, -1) if start_id is None else ids.new_full((len(ids), 1), start_id)

    def part(self, rows: int, columns: int) -> History:
        """That of the first rows and columns; none of the others is in use."""
        return History(self.tokens[:rows, :columns], self.prompt, self.size)

    def forbid(self, logits: Tensor, position: Tensor | int) -> Tensor:
        """Logits (R, V) without the tokens that would repeat an n-gram at a position of the response."""
        return forbid_repeats(logits, self.tokens, self.prompt + position, self.size)

    def add(self, tokens: Tensor, position: Tensor | int) -> None:
        """Remember the tokens (R,) of a position."""
        self.tokens.index_copy_(1, (self.prompt + position).view(1), tokens[:, None])

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        self.tokens = self.tokens.index_select(0, rows)
