"""What is measured on: shapes of models with random weights, prompts, and lengths of responses."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerFast

from bench.models.language_model import LanguageModel
from bench.models.sampling import Decoding
from bench.models.tokenizer import Kind, TokenizerAdapter
from bench.perf.measure import Pace
from distillm import TokenSequence

EOS, PAD = "</s>", "<pad>"
_NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


@dataclass(frozen=True)
class Shape:
    """A family's architecture, as `LanguageModel.from_scratch` takes it, and the size of its vocabulary."""

    architecture: Mapping[str, Any]
    vocabulary: int = 50_257
    kind: Kind = "causal"


def gpt2(layers: int, width: int, heads: int) -> Shape:
    """The shape of a GPT-2."""
    return Shape({"model_type": "gpt2", "n_layer": layers, "n_embd": width, "n_head": heads, **_NO_DROPOUT})


def llama(layers: int, width: int, heads: int, vocabulary: int = 32_000) -> Shape:
    """The shape of a Llama."""
    sizes = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
    return Shape({"model_type": "llama", "intermediate_size": 8 * width // 3, **sizes}, vocabulary)


def t5(layers: int, width: int, heads: int) -> Shape:
    """The shape of a T5."""
    sizes = {"num_layers": layers, "d_model": width, "num_heads": heads, "d_kv": width // heads, "d_ff": 4 * width}
    return Shape({"model_type": "t5", "dropout_rate": 0.0, **sizes}, 32_128, "seq2seq")


@dataclass(frozen=True)
class Workload:
    """What is measured, and how long.

    Attributes:
        device: where.
        quick: fewer rounds and fewer sizes; the whole within four minutes.
        student, teacher: the pair of the training step, and of the output layer.
        families: shapes that generate, each with its batch sizes.
        head_tokens: response tokens that meet the output layer at once: where time, and where memory is measured.
        batch_sizes: sequences of a training step.
        steps: training steps of one round.
        uncounted: ours before them. On CUDA passes are captured once a shape has come a few times.
        mean_prompt, mean_reference, mean_response: of geometric lengths in tokens: of prompts and of the data set's
            responses, as in Dolly (71 and, after the cut, 56), and of the student's responses.
        longest_prompt, longest_response: where they are cut.
        padded_to: the width the authors pad every sequence to.
        decoding_seeds: of an evaluation.
        texts: that ROUGE-L scores.
        all_to_the_limit: every sampled response is of the greatest length.
        pace: rounds of each comparison.
    """

    device: torch.device
    quick: bool
    student: Shape
    teacher: Shape
    families: Mapping[str, tuple[Shape, tuple[int, ...]]]
    head_tokens: tuple[int, int]
    batch_sizes: tuple[int, ...]
    pace: Pace
    steps: int
    uncounted: int
    mean_prompt: int = 71
    longest_prompt: int = 256
    mean_reference: int = 65
    mean_response: int = 40
    longest_response: int = 128
    padded_to: int = 512
    decoding_seeds: int = 5
    texts: int = 400
    all_to_the_limit: bool = False

    @classmethod
    def on(cls, device: torch.device, *, quick: bool) -> Workload:
        """The workload of a device: small shapes on a CPU, those of the paper on an accelerator."""
        if device.type != "cuda":
            families = {
                "GPT-2": (gpt2(6, 256, 4), (16, 64)),
                "T5": (t5(6, 256, 4), (64,)),
                "Llama": (llama(6, 256, 4), (64,)),
                "tiny Llama": (llama(2, 64, 2, 2_000), (64,)),
            }
            pace = Pace(1, 20, 4.0, warm_up=False) if quick else Pace(3, 20, 30.0, warm_up=False)
            steps = 1 if quick else 3
            return cls(device, quick, gpt2(6, 256, 4), gpt2(6, 384, 6), families, (512, 2_048), (4,), pace, steps, 1)
        families = {
            "GPT-2": (gpt2(12, 768, 12), (16, 64)),
            "T5": (t5(12, 768, 12), (64,)),
            "Llama": (llama(10, 576, 9), (64,)),
        }
        return cls(
            device,
            quick,
            gpt2(12, 768, 12),
            gpt2(48, 1600, 25),
            families,
            (4_096, 4_096),
            (8, 64),
            Pace(1, 20, 4.0) if quick else Pace(5, 20, 30.0),
            steps=6 if quick else 16,
            uncounted=24,
            all_to_the_limit=True,
        )

    def autocast(self) -> torch.autocast:
        """The precision of forward passes: bfloat16 on CUDA."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def sequences(self, count: int) -> list[TokenSequence]:
        """Prompts of random tokens with responses."""
        rng = random.Random(count)
        responses = lengths(count, self.mean_reference, self.longest_response, shuffled_by=1)
        prompts = lengths(count, self.mean_prompt, self.longest_prompt, shuffled_by=2)
        smallest = min(shape.vocabulary for shape, _ in self.families.values())

        def tokens(number: int) -> tuple[int, ...]:
            return tuple(rng.randrange(2, smallest) for _ in range(number))

        return [
            TokenSequence(f"{i}", tokens(prompt), (*tokens(response - 1), 1))
            for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
        ]

    def response_lengths(self, count: int) -> list[int]:
        """The lengths that responses to a batch of prompts are made to have."""
        if self.all_to_the_limit:
            return [self.longest_response + 1] * count
        return lengths(count, self.mean_response, self.longest_response, shuffled_by=3)


def lengths(count: int, mean: int, longest: int, shuffled_by: int) -> list[int]:
    """Lengths of a geometric distribution: its quantiles, so that few are as typical as many, in random order."""
    stays = math.log1p(-1 / mean)
    found = [math.ceil(math.log1p(-(i + 0.5) / count) / stays) for i in range(count)]
    random.Random(shuffled_by).shuffle(found)
    return [min(longest, max(1, one)) for one in found]


def make_tokenizer(shape: Shape) -> TokenizerAdapter:
    """A tokenizer of as many words as a shape's vocabulary has entries: pad is 0, EOS 1, the n-th word n."""
    words = {PAD: 0, EOS: 1} | {f"w{i}": i for i in range(2, shape.vocabulary)}
    backend = Tokenizer(models.WordLevel(words, unk_token="w2"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return TokenizerAdapter(
        PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=PAD, eos_token=EOS, padding_side="left"), shape.kind
    )


class EndingModel(LanguageModel):
    """A language model of random weights, which would not end a response by itself: lengths are given to it."""

    response_lengths: Callable[[int], list[int]]

    def sample_each(
        self,
        sequences: Sequence[TokenSequence],
        decoding: Decoding,
        seeds: Sequence[Sequence[int | str]],
        **options: Any,
    ) -> list[list[tuple[int, ...]]]:
        """See `LanguageModel.sample_each`, through which all sampling goes."""
        options["lengths"] = self.response_lengths(len(sequences))
        return super().sample_each(sequences, decoding, seeds, **options)


def ending_model(workload: Workload, shape: Shape, *seed: int | str) -> EndingModel:
    """A model of a shape on the workload's device."""
    with workload.device:
        model = EndingModel.from_scratch(dict(shape.architecture), make_tokenizer(shape), workload.device, *seed)
    assert isinstance(model, EndingModel)
    model.response_lengths = workload.response_lengths
    return model


def untouched(model: LanguageModel) -> PreTrainedModel:
    """A network of a model's architecture as transformers makes it: nothing of ours in it makes others faster."""
    with model.device:
        network: PreTrainedModel = type(model.network)(copy.deepcopy(model.network.config))
    return network


class EndAt(LogitsProcessor):  # type: ignore[misc]  # transformers exports it untyped
    """Makes each row's response end after a given number of tokens, EOS counted, and not before."""

    def __init__(self, response_lengths: list[int], eos_id: int) -> None:
        self.ends, self.eos_id = response_lengths, eos_id
        self.prefix: int | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, V) of the next token: EOS alone where the row ends, without EOS elsewhere."""
        self.prefix = input_ids.shape[1] if self.prefix is None else self.prefix
        step = input_ids.shape[1] - self.prefix + 1
        scores[:, self.eos_id] = -torch.inf
        ending = [row for row, end in enumerate(self.ends) if end == step]
        scores[ending] = -torch.inf
        scores[ending, self.eos_id] = 0.0
        return scores


def end_generate(network: PreTrainedModel, response_lengths: Callable[[int], list[int]], eos_id: int) -> None:
    """Make the responses of `generate`, whoever calls it, have lengths that are given."""
    generate = network.generate

    def ending(*arguments: Any, **options: Any) -> Any:
        end = EndAt(response_lengths(len(options["input_ids"])), eos_id)
        return generate(*arguments, **options, logits_processor=LogitsProcessorList([end]))

    network.generate = ending
