"""Networks made from an architecture, and what it says of them. Nothing here reads weights."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.activations import GELUTanh, NewGELUActivation

from bench.models.tokenizer import Kind, TokenizerAdapter
from bench.system.errors import BenchError, did_you_mean
from bench.system.seeding import seed_torch

SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
"""Of a configuration and of settings for sampling."""
AUTO: dict[Kind, Any] = {"causal": AutoModelForCausalLM, "seq2seq": AutoModelForSeq2SeqLM}
"""What makes or loads a network of a kind."""


def new_network(architecture: dict[str, Any], tokenizer: TokenizerAdapter, *seed: int | str) -> PreTrainedModel:
    """A model with random weights that depend on the seed only.

    Args:
        architecture: `model_type` and the fields of its transformers configuration.
        tokenizer: gives vocabulary size, special ids and the kind of model.
        seed: parts of the seed.

    Raises:
        BenchError: the architecture is none transformers knows, or of the other kind.
    """
    kind = tokenizer.kind
    config = new_architecture(architecture, kind, tokenizer)
    seed_torch(*seed)
    try:
        model: PreTrainedModel = AUTO[kind].from_config(config, dtype=torch.float32)
    except Exception as error:  # each family has its own way of refusing
        raise _unmakeable(kind, architecture, error) from error
    mend_generation_config(model)
    compute_gelu_in_one_kernel(model)
    return model


def new_architecture(architecture: dict[str, Any], kind: Kind, tokenizer: TokenizerAdapter | None) -> PretrainedConfig:
    """The configuration of a model that will be made.

    Args:
        architecture: `model_type` and the fields of its transformers configuration.
        kind: of model.
        tokenizer: gives vocabulary size and special ids; None where it has yet to be trained.

    Raises:
        BenchError: it is none that transformers knows, or has a field that its family lacks.
    """
    given: dict[str, Any] = {}
    if tokenizer is not None:
        given = {
            "vocab_size": tokenizer.size,
            "pad_token_id": tokenizer.pad_id,
            "eos_token_id": tokenizer.eos_id,
            "bos_token_id": tokenizer.backend.bos_token_id,
            "decoder_start_token_id": tokenizer.pad_id if kind == "seq2seq" else None,
        }
    given |= architecture
    try:
        config: PretrainedConfig = AutoConfig.for_model(given.pop("model_type"), **given)
    except Exception as error:
        raise _unmakeable(kind, architecture, error) from error
    _check_fields(architecture, config)
    return as_used_here(config)


def _check_fields(architecture: Mapping[str, Any], config: PretrainedConfig) -> None:
    """Refuse what transformers would keep without a use: a misspelt field leaves the family's default, often large."""
    own = getattr(config, "__dataclass_fields__", None)  # of transformers 5
    if own is None or config.has_no_defaults_at_init:
        return
    usual = type(config)()
    known = set(own) | set(config.attribute_map)
    for name in architecture:
        kept = name in vars(config)  # older names, as rope_theta, are taken by the family and not kept
        unknown = kept and name not in known and not hasattr(usual, name) and not name.endswith("_token_id")
        # files on the hub have fields of other families; only what is nearly one of this family's is a slip
        if unknown and difflib.get_close_matches(name, known, cutoff=0.85):
            raise BenchError(f"models: {config.model_type} has no field {name!r}; {did_you_mean(name, known)}")


def as_used_here(config: PretrainedConfig) -> PretrainedConfig:
    """A configuration whose forward pass returns logits and nothing that would cost time, memory or another loss."""
    for part in {id(one): one for one in (config, config.get_text_config())}.values():
        part.return_dict = True
        for name in ("output_router_logits", "output_attentions", "output_hidden_states"):
            if getattr(part, name, False):
                setattr(part, name, False)
    return config


def mend_generation_config(network: PreTrainedModel) -> None:
    """Keep only the special ids of generation settings that transformers would refuse to save.

    Many checkpoints have a temperature beside do_sample=false. Sampling here never reads these settings; saving the
    student after a whole training does.
    """
    given = network.generation_config
    try:
        given.validate(strict=True)
    except ValueError:
        kept = {name: getattr(given, name) for name in SPECIAL_IDS}
        # many write -1 where there is no padding
        kept = {name: None if isinstance(value, int) and value < 0 else value for name, value in kept.items()}
        network.generation_config = GenerationConfig(**kept)


def compute_gelu_in_one_kernel(network: PreTrainedModel) -> None:
    """Let torch compute the GELU of GPT-2 and its like in one pass; transformers writes it out in eight operations.

    The function is the same but for rounding, and each operation would read and write the widest tensor of a layer.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is NewGELUActivation:
                setattr(module, name, GELUTanh())


def check_makeable(
    architecture: dict[str, Any], config: PretrainedConfig, kind: Kind, *, by_generate: bool
) -> PreTrainedModel:
    """Make a model once and let it read two tokens, and write two if it does so by transformers' `generate`.

    What its family refuses only then is refused before any work.

    Returns:
        the model, with random weights.

    Raises:
        BenchError: it cannot be made, read or write, sees what comes after a token, or has weights without a number.
    """
    try:
        network: PreTrainedModel = AUTO[kind].from_config(config, dtype=torch.float32)
        empty = [name for name, weight in network.named_parameters() if weight.numel() == 0]
        if empty:
            raise ValueError(f"{some_of(empty)} would hold no number")
        check_reads_forward(network, kind)
        if by_generate:
            start = 0 if kind == "seq2seq" else None
            greedy = GenerationConfig(max_new_tokens=2, min_new_tokens=2, pad_token_id=0, decoder_start_token_id=start)
            network.generate(torch.ones((1, 2), dtype=torch.long), generation_config=greedy)
    except Exception as error:
        raise _unmakeable(kind, architecture, error) from error
    return network


def check_reads_forward(network: PreTrainedModel, kind: Kind) -> None:
    """Refuse a network whose tokens see those after them, as a BERT without is_decoder: it would read the answer."""
    ids = torch.tensor([[0, 0], [0, 1]])
    inputs = {"input_ids": ids} if kind == "causal" else {"input_ids": ids * 0, "decoder_input_ids": ids}
    with torch.no_grad():
        one, other = network.eval()(**inputs, use_cache=False).logits[:, 0].float()
    if not torch.allclose(one, other, rtol=1e-2, atol=1e-4, equal_nan=True):
        raise ValueError("its tokens see those that come after them (an encoder needs is_decoder: true)")


def outline(
    name: str, config: PretrainedConfig, kind: Kind, device: str = "meta", dtype: torch.dtype | None = None
) -> PreTrainedModel:
    """A model's network without memory for its weights; on another device than `meta` with random ones.

    Raises:
        BenchError: transformers cannot make it.
    """
    try:
        with torch.device(device):
            network: PreTrainedModel = AUTO[kind].from_config(config, **({} if dtype is None else {"dtype": dtype}))
    except Exception as error:
        raise BenchError(
            f"{name}: transformers makes no {kind} model of its config.json: {reason_of(error)}"
        ) from error
    return network


def _unmakeable(kind: Kind, architecture: dict[str, Any], error: Exception) -> BenchError:
    return BenchError(f"models: cannot make a {kind} model from {architecture}: {reason_of(error)}")


def token_tables(network: PreTrainedModel, kind: Kind) -> int:
    """How many ids a network can read: the rows of its smallest embedding table."""
    parts = [network] if kind == "causal" else [network.get_encoder(), network.get_decoder()]
    return min(int(part.get_input_embeddings().num_embeddings) for part in parts)


def positions(config: PretrainedConfig, part: str = "") -> int | None:
    """How many positions a model has, or its encoder or decoder (`part`); None where there is no limit."""
    config = getattr(config, part, config) if part else config.get_text_config()
    names = (f"max_{part}_position_embeddings", "max_position_embeddings", "max_seq_len")
    found = (getattr(config, name, None) for name in names)
    return next((limit for limit in found if limit is not None), None)


def decoder_start(config: PretrainedConfig, generation: GenerationConfig | None) -> int | None:
    """What an encoder-decoder's decoder starts from; None where nothing says so."""
    for given in (config, generation):
        start: int | None = getattr(given, "decoder_start_token_id", None)
        if start is not None:
            return start
    pad: int | None = config.pad_token_id
    return pad


def some_of(names: list[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def reason_of(error: Exception) -> str:
    """What an error of transformers says, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # the first line of a validation error only names the validator
    told = " ".join(lines[:2]) if lines and lines[0].endswith(":") else lines[0] if lines else ""
    return f"{type(error).__name__} {told}".strip() if isinstance(error, KeyError) or not told else told
