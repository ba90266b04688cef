"""What is known of a model without its weights: its architecture, from where it lies or from a published one."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from bench.config.sections import Config, LoraConfig
from bench.experiment.identity import SCRATCH, TEACHER, Side, model_path, scratch_architecture
from bench.models import smollm2
from bench.models.architectures import new_architecture, outline
from bench.models.cut import depths, keep_in_config, kept_layers
from bench.models.loading import has_own_head, load_architecture
from bench.models.lora import add_adapter
from bench.models.tokenizer import Kind
from bench.system import yaml_text


@dataclass(frozen=True, eq=False)
class Shape:
    """A model's architecture. Two are equal where their networks are, whatever the models are called.

    Attributes:
        name: of the model.
        source: where the architecture is from, in words.
        config: as transformers has it.
        kind: causal or seq2seq.
        untied: its output layer has weights of its own although the configuration does not say so (T5 1.1, mT5).
    """

    name: str
    source: str
    config: PretrainedConfig
    kind: Kind
    untied: bool

    def network(self, device: str = "meta", dtype: torch.dtype | None = None) -> PreTrainedModel:
        """The network with random weights, or on the device `meta` with none."""
        # transformers writes type and attention into what it is given, and `key` must stay the same
        network = outline(self.name, copy.deepcopy(self.config), self.kind, device, dtype)
        return untie(network) if self.untied else network

    @functools.cached_property
    def parameters(self) -> int:
        """Number of parameters, shared ones once."""
        return sum(p.numel() for p in self.network().parameters())

    def adapter_parameters(self, lora: LoraConfig) -> int:
        """Number of parameters of adapters in it."""
        network = self.network()
        add_adapter(network, lora, self.name, self.kind, 0)
        return sum(p.numel() for p in network.parameters() if p.requires_grad)

    @property
    def depth(self) -> int | None:
        """Number of layers; None where encoder and decoder have not the same."""
        found = set(depths(self.config).values())
        return found.pop() if len(found) == 1 else None

    @functools.cached_property
    def key(self) -> str:
        """Stands for the architecture."""
        return f"{self.kind} {self.untied} {self.config.to_json_string(use_diff=False)}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shape) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def of_depth(self, layers: int) -> Shape:
        """The same with so many layers."""
        config = copy.deepcopy(self.config)
        keep_in_config(config, lambda depth: range(min(depth, layers)))
        return Shape(self.name, self.source, config, self.kind, self.untied)


def untie(network: PreTrainedModel) -> PreTrainedModel:
    """Give the output layer weights of its own, as transformers does when a checkpoint has them."""
    head = network.get_output_embeddings()
    if head.weight is network.get_input_embeddings().weight:
        head.weight = nn.Parameter(torch.empty_like(head.weight))
    return network


@functools.cache
def published() -> dict[str, dict[str, Any]]:
    """Published architectures by hub id."""
    file = resources.files("bench.experiment.planning") / "published.yaml"
    shapes: dict[str, dict[str, Any]] = yaml_text.read(Path(str(file)))["shapes"]
    return {name: shapes[shape["like"]] if "like" in shape else shape for name, shape in shapes.items()}


def shape_of(config: Config, side: Side) -> Shape:
    """Teacher or student of a configuration. Nothing is downloaded where a published architecture is known.

    Raises:
        BenchError: it cannot be had.
    """
    pair = config.models
    if side == "student" and pair.student_layers is not None and pair.student != SCRATCH:
        whole = shape_of(config.model_copy(update={"models": pair.model_copy(update={"student_layers": None})}), side)
        return whole.of_depth(len(kept_layers(whole.depth or 1, pair.student_layers)))
    given = pair.teacher if side == "teacher" or pair.student == TEACHER else pair.student
    if given == smollm2.NAME:
        return published_shape("HuggingFaceTB/SmolLM2-135M-Instruct")
    path, kind = model_path(config, side), config.models.kind
    if path == SCRATCH:
        own = scratch_architecture(config, side)
        vocabulary = pair.vocab_size
        if side == "student" and pair.tokenizer == "teacher" and pair.teacher != SCRATCH:
            vocabulary = shape_of(config, "teacher").config.get_text_config().vocab_size
        architecture = new_architecture({"vocab_size": vocabulary} | own, kind, None)
        return Shape(f"{side} from scratch", f"models.{side}_config", architecture, kind, False)
    name, _, _ = path.partition("@")
    if Path(path).is_dir() or name not in published():
        return Shape(path, "config.json", load_architecture(path), kind, has_own_head(path, kind))
    return published_shape(name)


def published_shape(name: str) -> Shape:
    """The shape of a model whose architecture ships."""
    given = dict(published()[name])
    del given["parameters"]
    untied = given.get("tie_word_embeddings") is False
    architecture = AutoConfig.for_model(given.pop("model_type"), **given)
    kind: Kind = "seq2seq" if architecture.is_encoder_decoder else "causal"
    return Shape(name, "published architecture", architecture, kind, untied)
