"""The decode loop on a GPU: fixed buffers, and a step captured once as a CUDA graph and replayed for every token.

A GPU takes a fraction of the time for a step of a small model that Python takes to launch it; a graph is one launch.
It reads and writes fixed memory, so that rows leave in bulk, by going on with the graph of a smaller batch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from bench.models.decoding import Ending, History, NonFiniteLogits, Reader, Request, choose, mixed, still_running
from bench.models.fixed_buffers import FixedReader, Size
from bench.models.sampling import Decoding
from bench.system.cuda_graphs import capture

# Families whose step is the same work whatever it reads. Others copy from the host or wait for the device within it.
CAPTURED_FAMILIES = frozenset(
    {"gpt2", "gpt_bigcode", "gpt_neox", "opt", "biogpt", "phi", "phi3", "stablelm", "t5", "mt5"}
    | {"gptj", "codegen", "bart", "mbart", "marian", "pegasus", "blenderbot"}
    | {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "olmo2", "cohere", "granite", "smollm3"}
)
_LENGTH_BUCKET = 128  # tokens; prompts of like length share their graphs
_FEWEST_ROWS = 8  # a step on fewer takes as long
_STEPS_BETWEEN_CHECKS = 8  # of what has ended: a check waits for the GPU
MOST_BYTES = 4 * 2**30
"""Of all buffers of a model; beyond it those that were not used for longest go."""


def can_capture(networks: Sequence[PreTrainedModel]) -> bool:
    """Whether networks decode through graphs: on CUDA, for families whose step does not look at values."""
    return all(one.device.type == "cuda" and is_captured(one.config) for one in networks)


def is_captured(config: PretrainedConfig) -> bool:
    """Whether a network decodes through graphs where it is on CUDA.

    None does whose rotary positions are scaled by the length so far, which each step would have to ask the device for.
    """
    scaled = any(kind in str(getattr(config, "rope_parameters", None)) for kind in ("dynamic", "longrope"))
    return config.model_type in CAPTURED_FAMILIES and not scaled


def _in_low_precision(network: PreTrainedModel, dtype: torch.dtype) -> dict[str, Tensor]:
    """Room for the float32 weights of matrix products in a precision."""
    made = {}
    for path, module in network.named_modules():
        if isinstance(module, (nn.Linear, Conv1D)):
            for name, weight in module.named_parameters(recurse=False):
                if weight.dtype == torch.float32:
                    made[f"{path}.{name}"] = torch.empty_like(weight, dtype=dtype)
    return made


@dataclass(frozen=True)
class _Kind:
    """What captured steps depend on beside the weights and sizes."""

    room: int
    decoding: Decoding
    stops: tuple[int, ...]
    measured: bool
    teacher: int | None
    teacher_mix: float
    autocast: torch.dtype | None


class CapturedDecoders:
    """The buffers and graphs of a model, made as they are needed; they live as long as it does.

    Attributes:
        note: told if a step cannot be captured, and why.
        ways: how the model's tokens were sampled so far, by graphs or otherwise.
    """

    def __init__(self) -> None:
        self.made: OrderedDict[_Kind, CapturedDecoder] = OrderedDict()
        self.weights: WeakKeyDictionary[PreTrainedModel, dict[torch.dtype, dict[str, Tensor]]] = WeakKeyDictionary()
        self.note: Callable[[str], None] = lambda text: None
        self.ways: set[str] = set()
        # until a capture fails; none beside the threads that watch over communication between processes
        self.possible = not (dist.is_available() and dist.is_initialized())

    def forget(self) -> None:
        """Free all buffers, graphs and copies of weights."""
        self.made.clear()
        self.weights.clear()

    def decode(self, readers: Sequence[Reader], request: Request) -> list[list[int]]:
        """As `bench.models.decoding.decode`.

        Raises:
            NotCaptured: a step could not be captured; the prompts have to be read again.
        """
        logits = mixed([reader.prefill(request.ids, request.mask) for reader in readers], request.teacher_mix)
        decoder, size = self.decoder(readers, request)
        try:
            return decoder.decode(readers, logits, request, size)
        except NonFiniteLogits:
            del self.made[decoder.kind]  # what is not finite would stay in its buffers, and a mask hides no nan
            raise

    def decoder(self, readers: Sequence[Reader], request: Request) -> tuple[CapturedDecoder, Size]:
        """The buffers for responses to prompts that the readers have read, and what of them is used."""
        causal, device = readers[0].start_id is None, readers[0].network.device.type
        room, width = request.decoding.max_new_tokens, request.ids.shape[1]
        kind = _Kind(
            room=room,
            decoding=request.decoding,
            stops=tuple(request.ending.stops.tolist()),
            measured=request.ending.lengths is not None,
            teacher=None if len(readers) == 1 else id(readers[1].network),
            teacher_mix=request.teacher_mix,
            autocast=torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None,
        )
        size = Size(
            rows=_bucket(len(request.uniform)),
            length=_rounded(width + room if causal else 1 + room),
            encoder_length=0 if causal else _rounded(width),
        )
        weights = [self.weights_of(reader.network) for reader in readers]
        found = self.made.pop(kind, None)
        if found is None or not found.size.holds(size):
            wanted = size if found is None else found.size.joined(size)
            found = None  # frees its buffers before there are larger ones
            found = CapturedDecoder(kind, wanted, readers, weights)
        self.made[kind] = found
        while len(self.made) > 1 and sum(one.bytes for one in self.made.values()) > MOST_BYTES:
            self.made.popitem(last=False)
        return found, size

    def shrink(self) -> None:
        """Free the largest buffers, and what copies of weights then are not used, until `MOST_BYTES` hold all.

        For the end of what is done now and then: until the next time something else needs the memory.
        """
        copies = sum(
            one.nbytes for dtypes in self.weights.values() for made in dtypes.values() for one in made.values()
        )
        while self.made and sum(one.bytes for one in self.made.values()) + copies > MOST_BYTES:
            del self.made[max(self.made, key=lambda kind: self.made[kind].bytes)]
        if not self.made:
            self.weights.clear()

    def weights_of(self, network: PreTrainedModel) -> dict[str, Tensor]:
        """Under autocast, the weights of matrix products in its precision: cast once a call, not at every token."""
        device = network.device.type
        if not torch.is_autocast_enabled(device):
            return {}
        dtype, of_network = torch.get_autocast_dtype(device), self.weights.setdefault(network, {})
        if dtype not in of_network:
            of_network[dtype] = _in_low_precision(network, dtype)
        if of_network[dtype]:
            whole = dict(network.named_parameters(remove_duplicate=False))
            torch._foreach_copy_(list(of_network[dtype].values()), [whole[name] for name in of_network[dtype]])
        return of_network[dtype]


class CapturedDecoder:
    """Fixed buffers for a kind of decoding, and a graph for each size of batch and prompts that it has come to.

    The graphs of smaller sizes read and write a part of the buffers.
    """

    def __init__(
        self, kind: _Kind, size: Size, readers: Sequence[Reader], weights: Sequence[dict[str, Tensor]]
    ) -> None:
        self.kind, self.size, self.device = kind, size, readers[0].network.device
        self.position = torch.zeros((), dtype=torch.long, device=self.device)  # in the cache
        self.at = torch.zeros((), dtype=torch.long, device=self.device)  # in the responses
        self.readers = [
            FixedReader(reader, size, self.position, own) for reader, own in zip(readers, weights, strict=True)
        ]
        rows = (size.rows,)
        self.tokens = torch.zeros(rows, dtype=torch.long, device=self.device)
        self.alive = torch.zeros(rows, dtype=torch.bool, device=self.device)
        self.finite = torch.ones((), dtype=torch.bool, device=self.device)
        self.lengths = torch.zeros(rows, dtype=torch.long, device=self.device)
        self.made = torch.zeros(size.rows, kind.room, dtype=torch.long, device=self.device)
        self.uniform = torch.zeros(size.rows, kind.room, dtype=torch.float64, device=self.device)
        self.stops = torch.tensor(kind.stops, device=self.device)
        self.history: History | None = None
        if kind.decoding.no_repeat_ngram:
            tokens = torch.full((size.rows, size.length), -1, device=self.device)
            self.history = History(tokens, self.position.clone(), kind.decoding.no_repeat_ngram)
        self.pool = torch.cuda.graph_pool_handle() if self.device.type == "cuda" else None
        self.steps: dict[Size, Callable[[], None]] = {}
        self.bytes = sum(one.nbytes for reader in self.readers for one in reader.buffers())

    def decode(self, readers: Sequence[Reader], logits: Tensor, request: Request, size: Size) -> list[list[int]]:
        """Responses to prompts that the readers have read; `logits` (B, V) are of the first token."""
        self.fill(readers, request)
        count, room = len(request.uniform), self.kind.room
        at = torch.arange(count)
        first = torch.zeros(size.rows, logits.shape[-1], device=self.device)
        first[:count] = logits.repeat_interleave(request.copies, dim=0)
        self._choose(first, size)
        responses: list[list[int]] = [[] for _ in range(count)]
        done = 1
        while True:
            alive, finite = self.alive[: len(at)].cpu(), bool(self.finite)
            if not finite:
                raise NonFiniteLogits
            running = int(alive.sum())
            over = running == 0 or done == room
            if over or _bucket(running) < size.rows:
                left = torch.ones_like(alive) if over else ~alive
                made = self.made[: len(at), :done][left.to(self.device)].tolist()
                for row, tokens in zip(at[left].tolist(), made, strict=True):
                    responses[row] = tokens
                if over:
                    return responses
                kept = still_running(alive)
                self._keep(kept.to(self.device))
                at, size = at[kept], size._replace(rows=_bucket(running))
            for _ in range(min(_STEPS_BETWEEN_CHECKS, room - done)):
                self.step(size)
                done += 1

    def fill(self, readers: Sequence[Reader], request: Request) -> None:
        """Take over prompts that the readers have read."""
        rows = request.rows()
        count, width = len(rows), request.ids.shape[1]
        for fixed, reader in zip(self.readers, readers, strict=True):
            fixed.fill(reader, rows)
        self.position.fill_(width if self.readers[0].causal else 1)
        self.at.zero_()
        self.alive.zero_()
        self.alive[:count] = True
        self.finite.fill_(True)
        self.uniform[:count] = request.uniform
        if request.ending.lengths is not None:
            self.lengths[:count] = request.ending.lengths
        if self.history is not None:
            begun = History.begun(request.ids, request.mask, readers[0].start_id).index_select(0, rows)
            self.history.tokens.fill_(-1)
            self.history.tokens[:count, : begun.shape[1]] = begun
            self.history.prompt.fill_(begun.shape[1])

    def _choose(self, logits: Tensor, size: Size) -> None:
        """Put the next token (R,) of logits (R, V) where a step looks for it."""
        rows, at, alive = size.rows, self.at, self.alive[: size.rows]
        history = None if self.history is None else self.history.part(rows, size.length)
        if history is not None:
            logits = history.forbid(logits, at)
        ending = Ending(self.stops, self.lengths[:rows] if self.kind.measured else None)
        column = self.uniform[:rows].gather(1, at.expand(rows, 1))
        tokens, sound = choose(logits, column, at, self.kind.decoding, ending)
        self.finite.logical_and_((sound | ~alive).all())
        self.made[:rows].index_copy_(1, at.view(1), tokens[:, None])
        if history is not None:
            history.add(tokens, at)
        alive.logical_and_((tokens[:, None] != self.stops).all(-1))
        self.tokens[:rows] = tokens
        at.add_(1)

    def step(self, size: Size) -> None:
        """Read the last tokens of the first rows and choose the next ones."""
        if size not in self.steps:
            rows, caches = size.rows, [reader.cache(size) for reader in self.readers]

            def step() -> None:
                logits = [
                    reader.step(cache, self.tokens[:rows], size)
                    for reader, cache in zip(self.readers, caches, strict=True)
                ]
                self._choose(mixed(logits, self.kind.teacher_mix), size)
                self.position.add_(1)
                for reader in self.readers:
                    reader.positions[:rows].add_(1)

            self.steps[size] = step if self.pool is None else self._captured(step)
        self.steps[size]()

    def _captured(self, step: Callable[[], None]) -> Callable[[], None]:
        """The step as a graph. What the steps that warm up change is put back; the cache is written again anyway."""
        small = [self.position, self.at, self.tokens, self.alive, self.finite, self.made]
        small += [reader.positions for reader in self.readers]
        small += [] if self.history is None else [self.history.tokens]
        before = [one.clone() for one in small]
        dtype = self.kind.autocast or torch.bfloat16
        # casts that autocast remembers would lie in the memory of one graph and be read by another
        with torch.autocast("cuda", dtype, enabled=self.kind.autocast is not None, cache_enabled=False):
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
