"""From sequences to the tensors of a forward pass; masks come from lengths, never from comparing ids with padding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.models.tokenizer import TokenizerAdapter
from distillm import TokenSequence


@dataclass(frozen=True)
class Batch:
    """Tensors of one forward pass.

    Attributes:
        inputs: keyword arguments of the model, (B, T) each.
        response_mask: (B, T) bool, the positions whose logits predict a response token.
        tokens: (N,), the response tokens, sequence after sequence.
    """

    inputs: dict[str, Tensor]
    response_mask: Tensor
    tokens: Tensor


def collate(
    batch: list[TokenSequence], tokenizer: TokenizerAdapter, start_id: int | None, device: torch.device
) -> Batch:
    """Pad sequences to the longest of the batch, on the right.

    Args:
        batch: sequences with non-empty prompt and response.
        tokenizer: knows the padding id and the kind of model.
        start_id: what an encoder-decoder's decoder starts from; None for a causal model.
        device: where the tensors go.
    """
    tokens = torch.tensor([token for s in batch for token in s.response], device=device)
    if tokenizer.kind == "causal":
        rows = [s.prompt + s.response[:-1] for s in batch]
        inputs = dict(zip(("input_ids", "attention_mask"), pad(rows, tokenizer.pad_id, device), strict=True))
        first = torch.tensor([len(s.prompt) - 1 for s in batch], device=device)
        width = inputs["input_ids"].shape[1]
    else:
        assert start_id is not None
        inputs = dict(
            zip(
                ("input_ids", "attention_mask"),
                pad([s.prompt for s in batch], tokenizer.pad_id, device),
                strict=True,
            )
        )
        decoder = [(start_id, *s.response[:-1]) for s in batch]
        inputs["decoder_input_ids"], inputs["decoder_attention_mask"] = pad(decoder, tokenizer.pad_id, device)
        first = torch.zeros(len(batch), dtype=torch.long, device=device)
        width = inputs["decoder_input_ids"].shape[1]
    lengths = torch.tensor([len(s.response) for s in batch], device=device)
    places = torch.arange(width, device=device)
    response_mask = (places >= first[:, None]) & (places < (first + lengths)[:, None])
    return Batch(inputs, response_mask, tokens)


def pad(rows: list[tuple[int, ...]], pad_id: int, device: torch.device, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Rows of ids as one (B, T) tensor padded to the longest, and its (B, T) mask of real tokens."""
    width = max(map(len, rows))
    ids, mask = [], []
    for row in rows:
        gap = width - len(row)
        filler, nothing, real = [pad_id] * gap, [0] * gap, [1] * len(row)
        ids.append([*filler, *row] if left else [*row, *filler])
        mask.append([*nothing, *real] if left else [*real, *nothing])
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
