"""A network with its cache in buffers of a fixed size: what steps captured as CUDA graphs read and write.

`FixedReader` is to those steps what `bench.models.decoding.Reader` is to the plain loop. Its buffers hold keys and
values, masks and positions; steps on fewer rows or shorter prompts use a part of them, as a `Size` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import Cache, EncoderDecoderCache

from bench.models.cache import RoomyLayer, attended_in, layers_of
from bench.models.decoding import Reader


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
        for buffer, new in ((self.keys, keys), (self.values, values)):
            buffer.index_copy_(2, at, new.to(buffer.dtype))
        return self.keys, self.values

    def get_seq_length(self) -> Any:
        """Tokens before the position, as a tensor."""
        return self.position

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The whole length: what is not yet written lies in the future of every query."""
        return self.keys.shape[-2], 0


class ReadLayer(FixedLayer):
    """The same for what an encoder has read: nothing is added."""

    def get_seq_length(self) -> int:
        """The whole length, known without asking the device."""
        return int(self.keys.shape[-2])


class Size(NamedTuple):
    """Rows, tokens of the cache, and tokens of a prompt that an encoder reads; of buffers, or of what a step reads."""

    rows: int
    length: int
    encoder_length: int

    def holds(self, other: Size) -> bool:
        """Whether buffers of this size are large enough for the other."""
        return all(own >= wanted for own, wanted in zip(self, other, strict=True))

    def joined(self, other: Size) -> Size:
        """Large enough for either."""
        return Size(*map(max, self, other))


class FixedReader:
    """What `Reader` is to the plain loop: a network with its cache, mask and positions, all of fixed size.

    Args:
        reader: has read a first batch of prompts, which gives the sizes of layers.
        size: of the buffers.
        position: of the next token in the cache; a tensor without dimensions.
        weights: to take in the place of the network's own.
    """

    def __init__(self, reader: Reader, size: Size, position: Tensor, weights: dict[str, Tensor]) -> None:
        self.network, self.causal, self.position = reader.network, reader.start_id is None, position
        self.takes_positions, self.takes_kept, self.entries = reader.takes_positions, reader.takes_kept, reader.entries
        self.weights = weights
        growing, fixed = layers_of(reader.cache)
        self.growing = [_zeros_like(layer, size.rows, size.length) for layer in growing]
        self.fixed = [_zeros_like(layer, size.rows, size.encoder_length) for layer in fixed]
        width = size.length if self.causal else size.encoder_length
        self.mask = reader.mask.new_ones(size.rows, width)
        self.positions = torch.zeros(size.rows, 1, dtype=torch.long, device=self.mask.device)
        if not self.causal:
            self.encoded = reader.encoded.new_zeros(size.rows, width, reader.encoded.shape[-1])
            self.encoder_output = reader.encoder_output
            # BART and its kin would make one of the length so far, which only the device knows; T5 needs none
            self.decoder_mask = self.mask.new_ones(size.rows, size.length)
            self.takes_decoder_mask = not hasattr(self.network.config, "relative_attention_num_buckets")

    def buffers(self) -> list[Tensor]:
        """All that is read and written."""
        whole = [one for pair in (*self.growing, *self.fixed) for one in pair] + [self.mask, self.positions]
        return whole if self.causal else [*whole, self.encoded]

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
        reader.cache = None  # the prompts' keys and values would else lie there twice

    def cache(self, size: Size) -> Cache:
        """A cache over the part of the buffers that is used."""

        def views(kind: type[FixedLayer], layers: list[list[Tensor]], length: int) -> Cache:
            parts = [[one[: size.rows, :, :length] for one in pair] for pair in layers]
            return Cache(layers=[kind(pair, self.position) for pair in parts])

        growing = views(FixedLayer, self.growing, size.length)
        if self.causal:
            return growing
        return EncoderDecoderCache(growing, views(ReadLayer, self.fixed, size.encoder_length))

    def step(self, cache: Cache, tokens: Tensor, size: Size) -> Tensor:
        """Logits (R, V) of the token that follows tokens (R,)."""
        rows, width = size.rows, size.length if self.causal else size.encoder_length
        inputs: dict[str, Any] = {"past_key_values": cache, "use_cache": True}
        inputs |= {"attention_mask": self.mask[:rows, :width]}
        if self.causal:
            inputs |= {"input_ids": tokens[:, None]}
            inputs |= {"position_ids": self.positions[:rows]} if self.takes_positions else {}
            inputs |= {"logits_to_keep": 1} if self.takes_kept else {}
        else:
            encoded = self.encoder_output(last_hidden_state=self.encoded[:rows, :width])
            inputs |= {"decoder_input_ids": tokens[:, None], "encoder_outputs": encoded}
            if self.takes_decoder_mask:
                inputs |= {"decoder_attention_mask": self.decoder_mask[:rows, : size.length]}
        output = torch.func.functional_call(self.network, self.weights, kwargs=inputs, tie_weights=False)
        logits = output.logits[:, -1, : self.entries].float()
        assert isinstance(logits, Tensor)
        return logits

    def keep(self, kept: Tensor) -> None:
        """Go on with these rows, in an order as `still_running` gives."""
        moved = (kept != torch.arange(len(kept), device=kept.device)).nonzero().squeeze(1)
        for tensor in self.buffers():
            tensor[moved] = tensor[kept[moved]]


def _zeros_like(layer: RoomyLayer, rows: int, length: int) -> list[Tensor]:
    # zeros, since what a mask hides is still multiplied by 0, and memory as it is found may hold nan
    return [
        one.new_zeros(rows, one.shape[1], length, one.shape[-1], dtype=attended_in(one))
        for one in (layer.keys, layer.values)
    ]
