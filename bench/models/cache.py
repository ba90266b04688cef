"""Keys and values of a decode loop, in buffers with room for every token to come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    EncoderDecoderCache,
)


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers exports it untyped
    """One attention layer's keys and values: the prompts' as they come, then in buffers with room to grow.

    A sliding window needs no layer of its own: its mask says what is attended to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.buffers: list[Tensor] = []

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Take (B, heads, new, size) keys and values; returns all so far."""
        if not self.buffers:
            self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
            self.keys, self.values = keys, values
            return keys, values
        start, end = self.keys.shape[-2], self.keys.shape[-2] + keys.shape[-2]
        for buffer, new in zip(self.buffers, (keys, values), strict=True):
            buffer[:, :, start:end] = new
        self._show(end)
        return self.keys, self.values

    def gather(self, parts: Sequence[RoomyLayer], groups: Sequence[Sequence[int]], length: int, *, left: bool) -> None:
        """Hold what layers, this one among them, have read of groups of rows, as if they had been padded to a length.

        Args:
            parts: the layers, each with what it has read.
            groups: the rows of each.
            length: of the longest.
            left: whether shorter ones are padded on the left.
        """
        found = []
        for of_parts in zip(*((part.keys, part.values) for part in parts), strict=True):
            first = of_parts[0]
            whole = first.new_zeros(sum(map(len, groups)), first.shape[1], length, first.shape[-1])
            for part, rows in zip(of_parts, groups, strict=True):
                used = slice(length - part.shape[2], None) if left else slice(part.shape[2])
                whole[rows, :, used] = part
            found.append(whole)
        self.keys, self.values = found

    def spread(self, rows: Tensor, room: int) -> None:
        """Go on with these rows of the prompts, a row once for each time it is named, and room for more tokens."""
        length = self.keys.shape[-2]
        self.buffers = [_with_room(old, rows, room) for old in (self.keys, self.values)]
        self._show(length)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only; the i-th of them is row i itself or one that comes after all that stay."""
        length, count = self.keys.shape[-2], len(rows)
        moved = (rows != torch.arange(count, device=rows.device)).nonzero().squeeze(1)
        for buffer in self.buffers:  # only what fills a gap is copied
            buffer[moved, :, :length] = buffer[rows[moved], :, :length]
        self.buffers = [buffer[:count] for buffer in self.buffers]
        self._show(length)

    def _show(self, length: int) -> None:
        self.keys, self.values = (buffer[:, :, :length] for buffer in self.buffers)


def attended_in(keys: Tensor) -> torch.dtype:
    """What attention to keys or values takes place in: autocast casts those of rotary families at every token."""
    device = keys.device.type
    if keys.dtype == torch.float32 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return keys.dtype


def _with_room(old: Tensor, rows: Tensor, room: int) -> Tensor:
    batch, heads, length, size = old.shape
    buffer = old.new_empty(len(rows), heads, length + room, size, dtype=attended_in(old))
    buffer[:, :, :length] = old if len(rows) == batch else old.index_select(0, rows)
    return buffer


def roomy_cache(config: PretrainedConfig) -> Cache | None:
    """An empty cache for a network; None where some layer keeps anything but keys and values (a state-space model)."""
    try:
        kinds = {type(layer) for layer in DynamicCache(config=config).layers}
    except (AttributeError, KeyError):  # a layer type that has no cache, or a family that names its sizes otherwise
        return None
    if not kinds <= {DynamicLayer, DynamicSlidingWindowLayer}:
        return None
    cache = Cache(layer_class_to_replicate=RoomyLayer)
    return (
        EncoderDecoderCache(cache, Cache(layer_class_to_replicate=RoomyLayer)) if config.is_encoder_decoder else cache
    )


def layers_of(cache: Cache) -> tuple[list[Any], list[Any]]:
    """The layers that grow with every token, and those that hold what an encoder has read."""
    if isinstance(cache, EncoderDecoderCache):
        return cache.self_attention_cache.layers, cache.cross_attention_cache.layers
    return cache.layers, []
