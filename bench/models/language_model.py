"""One object that speaks for a model: the network, its tokenizer's conventions, and its kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from baselines.sft import CrossEntropy
from bench.config.sections import LoraConfig
from bench.models import generation, lora
from bench.models.architectures import decoder_start, new_network, positions
from bench.models.batches import Batch, collate
from bench.models.captured import CapturedDecoders
from bench.models.generation import Mixture
from bench.models.loading import load_network
from bench.models.output_head import AfterHead, ResponseHead, after_head, wrap_output_head
from bench.models.sampling import Decoding
from bench.models.tokenizer import Kind, TokenizerAdapter
from bench.system.files import follow_umask
from bench.system.seeding import uniform_numbers
from distillm import Projection, TokenSequence, token_losses

if TYPE_CHECKING:
    from peft import PeftModel

CUDA_BUCKET = 16  # tokens: few shapes for kernels and graphs, little padding, and aligned for tensor cores


@dataclass(frozen=True)
class Common:
    """What both models of a pair have, where their sizes differ.

    Attributes:
        entries: of the output layers. Logits are formed for these only, and ids that the tokenizer does not have are
            never sampled. None where both layers have the same number, which then stands for itself.
        positions: that no padding exceeds; None = no limit.
    """

    entries: int | None = None
    positions: int | None = None


@dataclass(eq=False)
class LanguageModel:
    """A causal or encoder-decoder model with the tokenizer that it shares with its pair.

    Training, validation, roll-outs, evaluation and probes score and sample through it; the conventions of either kind
    of model are in `TokenizerAdapter` (prompts), `collate` (forward passes) and `generation` (sampling).

    Attributes:
        network: the transformers model, its output layer wrapped (`ResponseHead`).
        tokenizer: the pair's.
        name: where it came from, for messages.
        common: what it shares with the other model of its pair.
        adapted: the adapters that sit in the network, the only weights of it that are trained; None = all are.
    """

    network: PreTrainedModel
    tokenizer: TokenizerAdapter
    name: str
    common: Common = Common()
    adapted: PeftModel | None = None
    head: ResponseHead = field(init=False)
    graphs: CapturedDecoders = field(init=False, default_factory=CapturedDecoders, repr=False)

    def __post_init__(self) -> None:
        self.head = wrap_output_head(self.network, self.name)

    @classmethod
    def load(
        cls,
        name: str,
        tokenizer: TokenizerAdapter,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        common: Common = Common(),
    ) -> LanguageModel:
        """From a local folder or the hub, in eval mode.

        Raises:
            BenchError: it cannot be had, is of the other kind, or has an output layer that is no plain linear one.
        """
        return cls(load_network(name, tokenizer.kind, dtype).to(device).eval(), tokenizer, name, common)

    @classmethod
    def load_adapted(
        cls,
        name: str,
        tokenizer: TokenizerAdapter,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        common: Common = Common(),
    ) -> LanguageModel:
        """A saved adapter in its base, to be trained further; `load` would merge the two.

        Raises:
            BenchError: as `load`, or the adapter is not its base's.
        """
        network = load_network(lora.base_of(name), tokenizer.kind, dtype)
        adapted = lora.load_adapter(network, name, trainable=True)
        return cls(network.to(device).eval(), tokenizer, name, common, adapted)

    @classmethod
    def from_scratch(
        cls,
        architecture: dict[str, Any],
        tokenizer: TokenizerAdapter,
        device: torch.device,
        *seed: int | str,
        common: Common = Common(),
    ) -> LanguageModel:
        """With random weights that depend on the seed only.

        Raises:
            BenchError: the architecture is none that transformers knows, or of the other kind.
        """
        network = new_network(architecture, tokenizer, *seed).to(device)
        return cls(network, tokenizer, "a model from scratch", common)

    @property
    def kind(self) -> Kind:
        """Decoder-only or encoder-decoder."""
        return self.tokenizer.kind

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        device: torch.device = self.network.device
        return device

    @property
    def parameters(self) -> int:
        """Number of parameters, shared ones once."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    def trained_parameters(self) -> int:
        """Number of those that training changes."""
        return sum(p.numel() for p in self.network.parameters() if p.requires_grad)

    def add_adapter(self, settings: LoraConfig, *seed: int | str) -> None:
        """Train new adapters from now on, and nothing else of the network.

        Raises:
            BenchError: the settings do not fit the network.
        """
        self.adapted = lora.add_adapter(self.network, settings, self.name, self.kind, *seed)

    @property
    def start_id(self) -> int | None:
        """What an encoder-decoder's decoder starts from; None for a causal model."""
        if self.kind == "causal":
            return None
        return decoder_start(self.network.config, self.network.generation_config)

    def batch(self, sequences: Sequence[TokenSequence]) -> Batch:
        """The tensors of one forward pass over sequences. A pair shares them: teacher and student score the same."""
        return collate(
            sequences,
            self.tokenizer,
            self.start_id,
            self.device,
            bucket=CUDA_BUCKET if self.device.type == "cuda" else 1,
            longest=self.longest,
        )

    @property
    def longest(self) -> int | None:
        """Positions that both models of the pair have; None = no limit."""
        parts = ("encoder", "decoder") if self.kind == "seq2seq" else ("",)
        limits = [self.common.positions, *(positions(self.network.config, part) for part in parts)]
        return min((limit for limit in limits if limit is not None), default=None)

    def score(self, batch: Batch | Sequence[TokenSequence]) -> Tensor:
        """Logits that predict the response tokens, (N, V), sequence after sequence.

        They are in float32 whatever the precision of the rest.
        """
        made = batch if isinstance(batch, Batch) else self.batch(batch)
        with self.head.at(made.positions):
            logits = self.network(**made.inputs, use_cache=False).logits
        assert isinstance(logits, Tensor)
        return logits if self.common.entries is None else logits[:, : self.common.entries]

    def hidden_states(self, inputs: dict[str, Tensor]) -> Tensor:
        """What the output layer reads at each position, (B, T, H)."""
        with self.head.catching(torch.zeros((1, 1), device=self.device)):
            self.network(**inputs, use_cache=False)
            hidden = self.head.caught
        assert hidden is not None
        return hidden

    def project(
        self, batch: Batch, hidden_states: Callable[[dict[str, Tensor]], Tensor] | None = None
    ) -> Projection | None:
        """What `score` would give, not yet formed: hidden states at the N response positions and the output layer.

        None for a model that does something else to its logits than to scale, shift or cap them; `score` it.

        Args:
            batch: what to score.
            hidden_states: what gives the model's own `hidden_states` in another way.
        """
        after = self.after_head
        if after is None:
            return None
        everywhere = (hidden_states or self.hidden_states)(batch.inputs)
        hidden = everywhere.flatten(0, -2).index_select(0, batch.positions)
        bias = None if self.head.bias is None else self.head.bias * after.scale
        if after.shift is not None:
            bias = after.shift if bias is None else bias + after.shift
        weight = self.head.weight
        if (entries := self.common.entries) is not None:
            weight, bias = weight[:entries], None if bias is None else bias[:entries]
        return Projection(hidden * after.scale if after.scale != 1 else hidden, weight, bias, after.softcap)

    @torch.no_grad()
    def log_probs(self, batch: Batch) -> Tensor:
        """Of the response tokens, in nats, (N,) in float32, without gradient."""
        projection = self.project(batch)
        if projection is not None:
            return -token_losses(CrossEntropy(), projection, None, batch.tokens, ())[1]
        return -CrossEntropy()(self.score(batch), None, batch.tokens, [])

    @cached_property
    def after_head(self) -> AfterHead | None:
        """What the model does to its output layer's logits, from a forward pass on made-up ones."""

        @torch.no_grad()
        def respond(logits: Tensor) -> Tensor:
            eos = self.tokenizer.eos_id
            batch = self.batch([TokenSequence("probe", (eos,), (eos,) * len(logits))])
            with self.head.catching(logits):
                found: Tensor = self.network(**batch.inputs, use_cache=False).logits
            return found

        was_training = self.network.training
        self.network.eval()
        with torch.autocast(self.device.type, enabled=False):
            after = after_head(respond, self.head.out_features, self.device)
        self.network.train(was_training)
        return after

    def sample(
        self,
        sequences: Sequence[TokenSequence],
        decoding: Decoding,
        *seed: int | str,
        batch_size: int | None = None,
        mixture: Mixture | None = None,
        lengths: Sequence[int] | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[tuple[int, ...]]:
        """One sampled response to each sequence's prompt, in the order of the sequences.

        A response depends on the weights, its prompt, the seed and its sequence's id, and, but for rounding, on nothing
        else: not on the batch, its size or its order.

        Args:
            sequences: their prompts are answered, their ids seed the answers.
            decoding: length and sampling options.
            seed: parts of the seed.
            batch_size: responses at once, those to prompts of like length together, at least all to one prompt; None =
                all.
            mixture: what is sampled from in place of the model's own distribution.
            lengths: of each response, EOS included, whatever the model says; to measure with.
            progress: told how many responses are done.

        Raises:
            NonFiniteLogits: the model's logits are nan or inf.
        """
        (responses,) = self.sample_each(
            sequences, decoding, [seed], batch_size=batch_size, mixture=mixture, lengths=lengths, progress=progress
        )
        return responses

    def sample_each(
        self,
        sequences: Sequence[TokenSequence],
        decoding: Decoding,
        seeds: Sequence[Sequence[int | str]],
        *,
        batch_size: int | None = None,
        mixture: Mixture | None = None,
        lengths: Sequence[int] | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[list[tuple[int, ...]]]:
        """For each seed what `sample` gives; a prompt is read once for all of them."""
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i].prompt))
        copies = len(seeds)
        size = max(1, batch_size // copies if batch_size else len(order))
        responses: list[list[tuple[int, ...]]] = [[()] * len(sequences) for _ in seeds]
        for start in range(0, len(order), size):
            chunk = order[start : start + size]
            places = [(*seed, sequences[i].id) for i in chunk for seed in seeds]
            made = generation.sample(
                self.network,
                [sequences[i].prompt for i in chunk],
                uniform_numbers(decoding.max_new_tokens, places),
                self.tokenizer,
                self.start_id,
                decoding,
                self.graphs,
                entries=None if self.common.entries is None else self.tokenizer.size,
                mixture=mixture,
                lengths=None if lengths is None else [lengths[i] for i in chunk for _ in seeds],
            )
            for at, i in enumerate(chunk):
                for which, of_seed in enumerate(responses):
                    of_seed[i] = made[at * copies + which]
            progress(min(start + size, len(order)) * copies)
        return responses

    def tell_of_graphs(self, note: Callable[[str], None]) -> None:
        """Let someone know, from now on, if steps of sampling cannot be captured as CUDA graphs."""
        name = self.name  # a note that held the model would keep it alive until the collector comes by
        self.graphs.note = lambda text: note(f"{name}: {text}")

    def mixture(self, share: float) -> Mixture:
        """This model as the teacher whose distribution is mixed into a student's, with a share in it."""
        return Mixture(self.network, self.start_id, share)

    def save(self, folder: Path, *, merge: bool = False) -> None:
        """Write weights (safetensors), configuration and tokenizer as transformers loads them.

        Args:
            folder: made here.
            merge: add adapters to the weights, in float32, and write a plain model; else adapters are written alone.
        """
        if self.adapted is not None and merge:
            self.network.float()
            self.network, self.adapted = lora.merged(self.adapted), None
        if self.adapted is not None:
            lora.save_adapter(self.adapted, folder)
        else:
            self.network.save_pretrained(folder)
        self.tokenizer.backend.save_pretrained(folder)
        follow_umask(path for path in folder.iterdir() if path.is_file())
