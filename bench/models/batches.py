"""From sequences to the tensors of a forward pass; masks come from lengths, never from comparing ids with padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.models.tokenizer import TokenizerAdapter
from bench.system.transfer import on_device
from distillm import TokenSequence


@dataclass(frozen=True)
class Batch:
    """Tensors of one forward pass.

    Attributes:
        inputs: keyword arguments of the model, (B, T) each.
        positions: (N,), indices into B x T of the positions whose logits predict a response token. They are made on the
            host: taking rows by them does not wait for the device, as taking rows by a mask does.
        tokens: (N,), the response tokens, sequence after sequence.
    """

    inputs: dict[str, Tensor]
    positions: Tensor
    tokens: Tensor


def collate(
    batch: Sequence[TokenSequence],
    tokenizer: TokenizerAdapter,
    start_id: int | None,
    device: torch.device,
    *,
    bucket: int = 1,
    longest: int | None = None,
) -> Batch:
    """Pad sequences on the right, to the longest of the batch or a little more.

    Args:
        batch: sequences with non-empty prompt and response.
        tokenizer: knows the padding id and the kind of model.
        start_id: what an encoder-decoder's decoder starts from; None for a causal model.
        device: where the tensors go.
        bucket: the length is made a multiple of it.
        longest: number of positions that the model has, which no padding exceeds; None = no limit.
    """
    lengths = np.array([len(s.response) for s in batch])
    if tokenizer.kind == "causal":
        rows = [s.prompt + s.response[:-1] for s in batch]
        ids, mask = _padded(rows, tokenizer.pad_id, bucket, longest)
        inputs = {"input_ids": ids, "attention_mask": mask}
        first = np.array([len(s.prompt) - 1 for s in batch])
    else:
        assert start_id is not None
        encoder, encoder_mask = _padded([s.prompt for s in batch], tokenizer.pad_id, bucket, longest)
        ids, mask = _padded([(start_id, *s.response[:-1]) for s in batch], tokenizer.pad_id, bucket, longest)
        inputs = {"input_ids": encoder, "attention_mask": encoder_mask}
        inputs |= {"decoder_input_ids": ids, "decoder_attention_mask": mask}
        first = np.zeros(len(batch), dtype=np.int64)
    places = np.arange(ids.shape[1])
    predicts = (places >= first[:, None]) & (places < (first + lengths)[:, None])
    return Batch(
        {name: on_device(values, device) for name, values in inputs.items()},
        on_device(predicts.ravel().nonzero()[0], device),
        on_device(np.array([token for s in batch for token in s.response]), device),
    )


def pad(rows: list[tuple[int, ...]], pad_id: int, device: torch.device, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Rows of ids as one (B, T) tensor padded to the longest, and its (B, T) mask of real tokens."""
    ids, mask = _padded(rows, pad_id, left=left)
    return on_device(ids, device), on_device(mask, device)


def _padded(
    rows: list[tuple[int, ...]], pad_id: int, bucket: int = 1, longest: int | None = None, *, left: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and mask as `pad` gives them, padded to a multiple of `bucket` that is not over `longest`."""
    needed = max(map(len, rows))
    width = -(-needed // bucket) * bucket
    if longest is not None:
        width = max(needed, min(width, longest))
    ids = np.full((len(rows), width), pad_id)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        real = slice(width - len(row), None) if left else slice(len(row))
        ids[i, real], mask[i, real] = row, 1
    return ids, mask
