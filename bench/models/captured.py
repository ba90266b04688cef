"""The decode loop on a GPU: fixed buffers, and a step captured once as a CUDA graph and replayed for every token.

A GPU takes a fraction of the time for a step of a small model that Python takes to launch it; a graph is one launch.
It reads and writes fixed memory, so that rows leave in bulk, by going on with the graph of a smaller batch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.pytorch_utils import Conv1D

from bench.models.cache import RoomyLayer, layers_of
from bench.models.decoding import Ending, History, NonFiniteLogits, Reader, choose, mixed, still_running
from bench.models.sampling import Decoding
from bench.system.cuda_graphs import capture

# Families whose step is the same work whatever it reads. Others copy from the host or wait for the device within it.
CAPTURED_FAMILIES = frozenset(
    {"gpt2", "gpt_bigcode", "gpt_neox", "opt", "biogpt", "phi", "phi3", "stablelm", "t5", "mt5"}
    | {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "olmo2", "cohere", "granite", "smollm3"}
)
_LENGTH_BUCKET = 128  # tokens; buffers of like length share their graphs
_FEWEST_ROWS = 8  # a step on fewer takes as long
_STEPS_BETWEEN_CHECKS = 8  # of what has ended: a check waits for the GPU
_KEPT = 2  # sets of buffers with their graphs, the last used ones


def can_capture(networks: Sequence[PreTrainedModel]) -> bool:
    """Whether networks decode through graphs: on CUDA, for families whose step does not look at values."""
    return all(
        one.device.type == "cuda" and one.config.model_type in CAPTURED_FAMILIES and not _has_changing_rope(one)
        for one in networks
    )


def _has_changing_rope(network: PreTrainedModel) -> bool:
    """Whether rotary positions are scaled by the length so far, which each step would have to ask the device for."""
    return any(kind in str(getattr(network.config, "rope_parameters", None)) for kind in ("dynamic", "longrope"))


class FixedLayer(RoomyLayer):
    """One attention layer's keys and values in buffers of a fixed length, written at a position that a tensor holds."""

    is_compileable = True  # which lets transformers make masks without looking at their values

    def __init__(self, buffers: Sequence[Tensor], position: Tensor) -> None:
        super().__init__()
        self.keys, self.values = buffers
        self.position, self.is_initialized = position, True
        self.dtype, self.device = self.keys.dtype, self.keys.device

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write (R, heads, 1, size) keys and values; returns the whole buffers."""
        at = self.position.view(1)
        return self.keys.index_copy_(2, at, keys), self.values.index_copy_(2, at, values)

    def get_seq_length(self) -> Any:
        """Tokens before the position, as a tensor."""
        return self.position

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The whole length: what is not yet written lies in the future of every query."""
        return self.keys.shape[-2], 0


class _FixedReader:
    """What `Reader` is to the plain loop: a network with its cache, mask and positions, all of fixed size.

    Args:
        reader: has read a first batch of prompts, which gives the sizes.
        rows: most rows at once.
        length: of the cache in tokens.
        encoder_length: most tokens of a prompt that an encoder reads.
        position: of the next token in the cache; a tensor without dimensions.
    """

    def __init__(self, reader: Reader, rows: int, length: int, encoder_length: int, position: Tensor) -> None:
        self.network, self.causal, self.position = reader.network, reader.start_id is None, position
        self.takes_positions, self.takes_kept, self.entries = reader.takes_positions, reader.takes_kept, reader.entries
        growing, fixed = layers_of(reader.cache)
        self.growing = [_zeros_like(layer, rows, length) for layer in growing]
        self.fixed = [_zeros_like(layer, rows, encoder_length) for layer in fixed]
        width = length if self.causal else encoder_length
        self.mask = reader.mask.new_ones(rows, width)
        self.positions = torch.zeros(rows, 1, dtype=torch.long, device=self.mask.device)
        if not self.causal:
            self.encoded = reader.encoded.new_zeros(rows, width, reader.encoded.shape[-1])
            self.encoder_output = reader.encoder_output
        self.low_precision = _low_precision_weights(self.network)

    def fill(self, reader: Reader, rows: Tensor) -> None:
        """Take over what a reader has read of its prompts, a row for each index (R,)."""
        count, width = len(rows), reader.mask.shape[1]
        growing, fixed = layers_of(reader.cache)
        for layers, buffers in ((growing, self.growing), (fixed, self.fixed)):
            for layer, pair in zip(layers, buffers, strict=True):
                for buffer, given in zip(pair, (layer.keys, layer.values), strict=True):
                    buffer[:count, :, : given.shape[-2]] = given.index_select(0, rows)
        self.mask.fill_(1)
        self.mask[:count, :width] = reader.mask.index_select(0, rows)
        if self.causal:
            self.positions.zero_()
            self.positions[:count] = reader.positions.index_select(0, rows)[:, -1:] + 1
        else:
            self.mask[:count, width:] = 0
            self.encoded[:count, :width] = reader.encoded.index_select(0, rows)
        if self.low_precision:
            weights = dict(self.network.named_parameters(remove_duplicate=False))
            torch._foreach_copy_(list(self.low_precision.values()), [weights[name] for name in self.low_precision])

    def caches(self, rows: int) -> Cache:
        """A cache over the first rows of the buffers."""
        growing = Cache(layers=[FixedLayer([one[:rows] for one in pair], self.position) for pair in self.growing])
        if self.causal:
            return growing
        fixed = Cache(layers=[FixedLayer([one[:rows] for one in pair], self.position) for pair in self.fixed])
        cache = EncoderDecoderCache(growing, fixed)
        cache.is_updated = dict.fromkeys(range(len(self.fixed)), True)
        return cache

    def step(self, cache: Cache, tokens: Tensor) -> Tensor:
        """Logits (R, V) of the token that follows tokens (R,)."""
        rows = len(tokens)
        inputs: dict[str, Any] = {"attention_mask": self.mask[:rows], "past_key_values": cache, "use_cache": True}
        if self.causal:
            inputs |= {"input_ids": tokens[:, None]}
            inputs |= {"position_ids": self.positions[:rows]} if self.takes_positions else {}
            inputs |= {"logits_to_keep": 1} if self.takes_kept else {}
        else:
            encoded = self.encoder_output(last_hidden_state=self.encoded[:rows])
            inputs |= {"decoder_input_ids": tokens[:, None], "encoder_outputs": encoded}
        output = torch.func.functional_call(self.network, self.low_precision, kwargs=inputs, tie_weights=False)
        logits = output.logits[:, -1, : self.entries].float()
        assert isinstance(logits, Tensor)
        return logits

    def keep(self, kept: Tensor) -> None:
        """Go on with these rows, in an order as `still_running` gives."""
        moved = (kept != torch.arange(len(kept), device=kept.device)).nonzero().squeeze(1)
        whole = [one for pair in (*self.growing, *self.fixed) for one in pair] + [self.mask, self.positions]
        for tensor in [*whole, *([] if self.causal else [self.encoded])]:
            tensor[moved] = tensor[kept[moved]]


def _zeros_like(layer: RoomyLayer, rows: int, length: int) -> list[Tensor]:
    # zeros, since what a mask hides is still multiplied by 0, and memory as it is found may hold nan
    return [one.new_zeros(rows, one.shape[1], length, one.shape[-1]) for one in (layer.keys, layer.values)]


def _low_precision_weights(network: PreTrainedModel) -> dict[str, Tensor]:
    """Under autocast, room for the weights of matrix products in its precision: cast once, not at every token."""
    device = network.device.type
    if not torch.is_autocast_enabled(device):
        return {}
    dtype = torch.get_autocast_dtype(device)
    made = {}
    for path, module in network.named_modules():
        if isinstance(module, (nn.Linear, Conv1D)):
            for name, weight in module.named_parameters(recurse=False):
                if weight.dtype == torch.float32:
                    made[f"{path}.{name}"] = torch.empty_like(weight, dtype=dtype)
    return made


@dataclass(frozen=True)
class _Plan:
    """What a captured step depends on beside the weights."""

    rows: int
    length: int
    encoder_length: int
    room: int
    decoding: Decoding
    stops: tuple[int, ...]
    measured: bool
    teacher: int | None
    teacher_mix: float
    autocast: torch.dtype | None


class CapturedDecoders:
    """The buffers and graphs of a model, made as they are needed; they live as long as it does."""

    def __init__(self) -> None:
        self.made: OrderedDict[_Plan, _CapturedDecoder] = OrderedDict()
        # until a capture fails; none beside the threads that watch over communication between processes
        self.possible = not (dist.is_available() and dist.is_initialized())

    def forget(self) -> None:
        """Free all buffers and graphs."""
        self.made.clear()

    def decode(
        self,
        readers: Sequence[Reader],
        teacher_mix: float,
        ids: Tensor,
        mask: Tensor,
        copies: int,
        uniform: Tensor,
        decoding: Decoding,
        ending: Ending,
    ) -> list[list[int]]:
        """As `bench.models.decoding.decode`.

        Raises:
            NotCaptured: a step could not be captured; the prompts have to be read again.
        """
        logits = mixed([reader.prefill(ids, mask) for reader in readers], teacher_mix)
        causal = readers[0].start_id is None
        width, room = ids.shape[1], decoding.max_new_tokens
        on_gpu = ids.device.type
        plan = _Plan(
            rows=_bucket(len(ids) * copies),
            length=_rounded(width + room if causal else 1 + room),
            encoder_length=0 if causal else _rounded(width),
            room=room,
            decoding=decoding,
            stops=tuple(ending.stops.tolist()),
            measured=ending.lengths is not None,
            teacher=None if len(readers) == 1 else id(readers[1].network),
            teacher_mix=teacher_mix,
            autocast=torch.get_autocast_dtype(on_gpu) if torch.is_autocast_enabled(on_gpu) else None,
        )
        if plan not in self.made:
            while len(self.made) >= _KEPT:
                self.made.popitem(last=False)
            self.made[plan] = _CapturedDecoder(plan, readers)
        self.made.move_to_end(plan)
        return self.made[plan].decode(readers, logits, ids, mask, copies, uniform, ending)


class _CapturedDecoder:
    """Fixed buffers for a plan, and a graph for each number of rows that it has come to."""

    def __init__(self, plan: _Plan, readers: Sequence[Reader]) -> None:
        self.plan, self.device = plan, readers[0].network.device
        self.position = torch.zeros((), dtype=torch.long, device=self.device)  # in the cache
        self.at = torch.zeros((), dtype=torch.long, device=self.device)  # in the responses
        self.readers = [
            _FixedReader(reader, plan.rows, plan.length, plan.encoder_length, self.position) for reader in readers
        ]
        rows = (plan.rows,)
        self.tokens = torch.zeros(rows, dtype=torch.long, device=self.device)
        self.alive = torch.zeros(rows, dtype=torch.bool, device=self.device)
        self.finite = torch.ones((), dtype=torch.bool, device=self.device)
        self.lengths = torch.zeros(rows, dtype=torch.long, device=self.device)
        self.made = torch.zeros(plan.rows, plan.room, dtype=torch.long, device=self.device)
        self.uniform = torch.zeros(plan.rows, plan.room, dtype=torch.float64, device=self.device)
        self.stops = torch.tensor(plan.stops, device=self.device)
        self.history: History | None = None
        if plan.decoding.no_repeat_ngram:
            tokens = torch.full((plan.rows, plan.length + plan.room), -1, device=self.device)
            self.history = History(tokens, self.position.clone(), plan.decoding.no_repeat_ngram)
        self.pool = torch.cuda.graph_pool_handle() if self.device.type == "cuda" else None
        self.steps: dict[int, Callable[[], None]] = {}

    def decode(
        self,
        readers: Sequence[Reader],
        logits: Tensor,
        ids: Tensor,
        mask: Tensor,
        copies: int,
        uniform: Tensor,
        ending: Ending,
    ) -> list[list[int]]:
        """Responses to prompts that the readers have read; `logits` (B, V) are of the first token."""
        self._fill(readers, ids, mask, copies, uniform, ending)
        count = len(uniform)
        rows, at = self.plan.rows, torch.arange(count)
        first = torch.zeros(rows, logits.shape[-1], device=self.device)
        first[:count] = logits.repeat_interleave(copies, dim=0)
        self._choose(first, rows)
        responses: list[list[int]] = [[] for _ in range(count)]
        done = 1
        while True:
            alive, finite = self.alive[: len(at)].cpu(), bool(self.finite)
            if not finite:
                raise NonFiniteLogits
            running = int(alive.sum())
            over = running == 0 or done == self.plan.room
            if over or _bucket(running) < rows:
                left = torch.ones_like(alive) if over else ~alive
                made = self.made[: len(at), :done][left.to(self.device)].tolist()
                for row, tokens in zip(at[left].tolist(), made, strict=True):
                    responses[row] = tokens
                if over:
                    return responses
                kept = still_running(alive)
                self._keep(kept.to(self.device))
                at, rows = at[kept], _bucket(running)
            for _ in range(min(_STEPS_BETWEEN_CHECKS, self.plan.room - done)):
                self._step(rows)
                done += 1

    def _fill(
        self, readers: Sequence[Reader], ids: Tensor, mask: Tensor, copies: int, uniform: Tensor, ending: Ending
    ) -> None:
        rows = torch.arange(len(ids), device=self.device).repeat_interleave(copies)
        count, width = len(rows), ids.shape[1]
        for fixed, reader in zip(self.readers, readers, strict=True):
            fixed.fill(reader, rows)
        self.position.fill_(width if self.readers[0].causal else 1)
        self.at.zero_()
        self.alive.zero_()
        self.alive[:count] = True
        self.finite.fill_(True)
        self.uniform[:count] = uniform
        if ending.lengths is not None:
            self.lengths[:count] = ending.lengths
        if self.history is not None:
            begun = History.begun(ids, mask, readers[0].start_id).index_select(0, rows)
            self.history.tokens.fill_(-1)
            self.history.tokens[:count, : begun.shape[1]] = begun
            self.history.prompt.fill_(begun.shape[1])

    def _choose(self, logits: Tensor, rows: int) -> None:
        """Put the next token (R,) of logits (R, V) where a step looks for it."""
        at, alive = self.at, self.alive[:rows]
        if self.history is not None:
            logits = self.history.of_rows(rows).forbid(logits, at)
        ending = Ending(self.stops, self.lengths[:rows] if self.plan.measured else None)
        column = self.uniform[:rows].gather(1, at.expand(rows, 1))
        tokens, sound = choose(logits, column, at, self.plan.decoding, ending)
        self.finite.logical_and_((sound | ~alive).all())
        self.made[:rows].index_copy_(1, at.view(1), tokens[:, None])
        if self.history is not None:
            self.history.of_rows(rows).add(tokens, at)
        alive.logical_and_((tokens[:, None] != self.stops).all(-1))
        self.tokens[:rows] = tokens
        at.add_(1)

    def _step(self, rows: int) -> None:
        """Read the last tokens of the first rows and choose the next ones."""
        if rows not in self.steps:
            caches = [reader.caches(rows) for reader in self.readers]

            def step() -> None:
                logits = [
                    reader.step(cache, self.tokens[:rows]) for reader, cache in zip(self.readers, caches, strict=True)
                ]
                self._choose(mixed(logits, self.plan.teacher_mix), rows)
                self.position.add_(1)
                for reader in self.readers:
                    reader.positions[:rows].add_(1)

            self.steps[rows] = step if self.pool is None else self._captured(step)
        self.steps[rows]()

    def _captured(self, step: Callable[[], None]) -> Callable[[], None]:
        """The step as a graph. What the steps that warm up change is put back; the cache is written again anyway."""
        small = [self.position, self.at, self.tokens, self.alive, self.finite, self.made]
        small += [reader.positions for reader in self.readers]
        small += [] if self.history is None else [self.history.tokens]
        before = [one.clone() for one in small]
        dtype = self.plan.autocast or torch.bfloat16
        # casts that autocast remembers would lie in the memory of one graph and be read by another
        with torch.autocast("cuda", dtype, enabled=self.plan.autocast is not None, cache_enabled=False):
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(2):
                    for one, was in zip(small, before, strict=True):
                        one.copy_(was)
                    step()
            torch.cuda.current_stream().wait_stream(stream)
            replay = capture(step, self.pool)
        for one, was in zip(small, before, strict=True):
            one.copy_(was)
        return replay

    def _keep(self, kept: Tensor) -> None:
        """Go on with these rows; those behind them are dead."""
        count = len(kept)
        small = [self.tokens, self.lengths, self.made, self.uniform]
        for one in [*small, *([] if self.history is None else [self.history.tokens])]:
            one[:count] = one.index_select(0, kept)
        for reader in self.readers:
            reader.keep(kept)
        self.alive.zero_()
        self.alive[:count] = True


def _bucket(rows: int) -> int:
    """The number of rows that a step is captured for: a power of two, or above 64 a multiple of 32."""
    if rows > 64:
        return -(-rows // 32) * 32
    return max(_FEWEST_ROWS, 1 << (rows - 1).bit_length())


def _rounded(length: int) -> int:
    return -(-length // _LENGTH_BUCKET) * _LENGTH_BUCKET
