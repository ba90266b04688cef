"""From text to token ids and back, and from sequences to the tensors of a forward pass.

One function turns prompts into ids, for training and evaluation alike; masks come from lengths, never from comparing
ids with the padding id (which is the EOS id for many models).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from bench.errors import BenchError
from bench.seeding import derive_seed
from bench.tasks import Example
from distillm import Sequence

Kind = Literal["causal", "seq2seq"]


@dataclass(frozen=True)
class Limits:
    """Lengths in tokens; EOS counts to the response."""

    prompt: int
    response: int


class Codec:
    """A tokenizer with the conventions of one kind of model."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, kind: Kind) -> None:
        if tokenizer.eos_token_id is None:
            raise BenchError(f"the tokenizer {tokenizer.name_or_path} has no EOS token: responses could never end")
        self.tokenizer = tokenizer
        self.kind = kind
        self.eos_id: int = tokenizer.eos_token_id
        self.pad_id: int = self.eos_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    def prompt_ids(self, prompt: str) -> tuple[int, ...]:
        """Ids of a prompt with the model's own marks: BOS where it uses one, EOS closing an encoder's input."""
        ids: list[int] = self.tokenizer(prompt, add_special_tokens=True, verbose=False)["input_ids"]
        if self.kind == "causal" and ids and ids[-1] == self.eos_id:
            ids = ids[:-1]  # a causal prompt goes on in the response
        return tuple(ids)

    def response_ids(self, response: str) -> tuple[int, ...]:
        """Ids of a response, closed by EOS."""
        ids: list[int] = self.tokenizer(response, add_special_tokens=False, verbose=False)["input_ids"]
        return (*ids, self.eos_id)

    def text(self, response: tuple[int, ...]) -> str:
        """The text of a response, special tokens left out."""
        text = self.tokenizer.decode(list(response), skip_special_tokens=True)
        assert isinstance(text, str)
        return text.strip()

    def encode(
        self, examples: tuple[Example, ...], limits: Limits, *, drop_long: bool, without_bos: bool = False
    ) -> tuple[list[Sequence], dict[str, int]]:
        """Turn examples into sequences.

        A prompt over its limit is left out (`drop_long`, for training) or loses its middle (elsewhere: every test
        example is scored), so that the task's words at either end stay. A response over its limit is cut and then
        has no EOS. `without_bos` leaves out the prompts' BOS, a defect that `fidelity` repeats.

        Returns:
            the sequences, and how many prompts were dropped or cut and responses cut.
        """
        sequences, counts = [], {"prompts_dropped": 0, "prompts_cut": 0, "responses_cut": 0}
        for example in examples:
            prompt, response = self.prompt_ids(example.prompt), self.response_ids(example.references[0])
            if without_bos and len(prompt) > 1 and prompt[0] == self.tokenizer.bos_token_id:
                prompt = prompt[1:]
            if len(prompt) > limits.prompt:
                counts["prompts_dropped" if drop_long else "prompts_cut"] += 1
                if drop_long:
                    continue
                tail = limits.prompt // 2
                prompt = prompt[: limits.prompt - tail] + prompt[len(prompt) - tail :]
            counts["responses_cut"] += len(response) > limits.response
            sequences.append(Sequence(example.id, prompt, response[: limits.response]))
        return sequences, counts


@dataclass(frozen=True)
class Batch:
    """Tensors of one forward pass.

    Attributes:
        inputs: keyword arguments of the model, (B, T) each.
        predicts: (B, T) bool, the positions whose logits predict a response token.
        tokens: (N,), the response tokens, sequence after sequence.
    """

    inputs: dict[str, Tensor]
    predicts: Tensor
    tokens: Tensor


def collate(batch: list[Sequence], codec: Codec, start_id: int | None, device: torch.device) -> Batch:
    """Pad sequences to the longest of the batch, on the right.

    Args:
        batch: sequences with non-empty prompt and response.
        codec: knows the padding id and the kind of model.
        start_id: what an encoder-decoder's decoder starts from; None for a causal model.
        device: where the tensors go.
    """
    tokens = torch.tensor([token for s in batch for token in s.response], device=device)
    if codec.kind == "causal":
        rows = [s.prompt + s.response[:-1] for s in batch]
        inputs = dict(zip(("input_ids", "attention_mask"), pad(rows, codec.pad_id, device), strict=True))
        first = torch.tensor([len(s.prompt) - 1 for s in batch], device=device)
        width = inputs["input_ids"].shape[1]
    else:
        assert start_id is not None
        inputs = dict(
            zip(
                ("input_ids", "attention_mask"),
                pad([s.prompt for s in batch], codec.pad_id, device),
                strict=True,
            )
        )
        decoder = [(start_id, *s.response[:-1]) for s in batch]
        inputs["decoder_input_ids"], inputs["decoder_attention_mask"] = pad(decoder, codec.pad_id, device)
        first = torch.zeros(len(batch), dtype=torch.long, device=device)
        width = inputs["decoder_input_ids"].shape[1]
    lengths = torch.tensor([len(s.response) for s in batch], device=device)
    places = torch.arange(width, device=device)
    predicts = (places >= first[:, None]) & (places < (first + lengths)[:, None])
    return Batch(inputs, predicts, tokens)


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


def batch_order(sequences: list[Sequence], batch_size: int, seed: int) -> Iterator[list[Sequence]]:
    """Batches of the training set for ever: each epoch a new order, sequences of like length together.

    An epoch is shuffled, cut into pools of eight batches, each pool sorted by length and its batches shuffled again:
    little padding, and still random. The order depends on the seed only. A last incomplete batch of an epoch is left
    out unless it is the only one.
    """
    epoch = 0
    while True:
        rng = random.Random(derive_seed(seed, "data order", epoch))
        order = rng.sample(sequences, len(sequences))
        pool = 8 * batch_size
        batches = []
        for start in range(0, len(order), pool):
            chunk = sorted(order[start : start + pool], key=lambda s: len(s.prompt) + len(s.response))
            batches += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
        full = [b for b in batches if len(b) == batch_size] or batches
        rng.shuffle(full)
        yield from full
        epoch += 1


def train_tokenizer(texts: list[str], vocab_size: int, folder: Path) -> None:
    """Train a byte-level BPE tokenizer and save it in the Hugging Face format."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
