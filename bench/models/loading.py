"""The model pair: loading, making, saving, and the one forward pass that training needs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from bench.models.batches import Batch
from bench.models.tokenizer import Codec, Kind
from bench.system.errors import BenchError
from bench.system.seeding import seed_torch

_AUTO: dict[Kind, Any] = {"causal": AutoModelForCausalLM, "seq2seq": AutoModelForSeq2SeqLM}


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A tokenizer from a local folder or the hub.

    Raises:
        BenchError: it cannot be had.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name)
    except Exception as error:  # transformers raises many kinds for the same cause
        raise _unloadable("tokenizer", name, error) from error
    return tokenizer


def load_model(name: str, kind: Kind, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model from a local folder or the hub.

    Raises:
        BenchError: it cannot be had, or it is of the other kind.
    """
    try:
        config = AutoConfig.from_pretrained(name)
        if config.is_encoder_decoder != (kind == "seq2seq"):
            other = "seq2seq" if config.is_encoder_decoder else "causal"
            raise BenchError(f"{name} is a {other} model, the pair is {kind}: choose another --models")
        model: PreTrainedModel = _AUTO[kind].from_pretrained(name, dtype=dtype)
    except BenchError:
        raise
    except Exception as error:
        raise _unloadable("model", name, error) from error
    return model


def _unloadable(what: str, name: str, error: Exception) -> BenchError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if Path(name).is_dir():
        needed = "config.json and model.safetensors" if what == "model" else "tokenizer.json (or vocabulary files)"
        return BenchError(f"{name}: the folder is no {what} transformers can load ({reason}). It needs {needed}.")
    if Path(name).is_absolute() or name.startswith("."):
        return BenchError(f"{name}: there is no such folder, so no {what} can be loaded from it")
    return BenchError(
        f"the {what} {name!r} is neither a local folder nor to be had from the hub ({reason}). Without network, "
        "download it elsewhere and give its folder: --set models.teacher=FOLDER --set models.student=FOLDER"
    )


def new_model(kind: Kind, architecture: dict[str, Any], codec: Codec, *seed: int | str) -> PreTrainedModel:
    """A model with random weights that depend on the seed only.

    Args:
        kind: decoder-only or encoder-decoder.
        architecture: `model_type` and the fields of its transformers configuration.
        codec: gives vocabulary size and special ids.
        seed: parts of the seed.

    Raises:
        BenchError: the architecture is none transformers knows, or of the other kind.
    """
    ids = {
        "pad_token_id": codec.pad_id,
        "eos_token_id": codec.eos_id,
        "bos_token_id": codec.tokenizer.bos_token_id,
        "decoder_start_token_id": codec.pad_id if kind == "seq2seq" else None,
    }
    fields = dict(architecture)
    try:
        config = AutoConfig.for_model(fields.pop("model_type"), vocab_size=len(codec.tokenizer), **ids, **fields)
        seed_torch(*seed)
        model: PreTrainedModel = _AUTO[kind].from_config(config, dtype=torch.float32)
    except (KeyError, ValueError, TypeError) as error:
        raise BenchError(f"models: cannot make a {kind} model from {architecture}: {error}") from error
    return model


def hub_commit(name: str) -> str:
    """Commit of a hub repository as transformers found it.

    Raises:
        BenchError: it cannot be had.
    """
    try:
        return str(AutoConfig.from_pretrained(name)._commit_hash)
    except Exception as error:
        raise _unloadable("model", name, error) from error


def check_same_vocabulary(teacher: Codec, student: Codec, teacher_name: str, student_name: str) -> None:
    """Refuse a pair whose distributions are not over the same tokens.

    Raises:
        BenchError: the vocabularies differ; says by how much.
    """
    ours, theirs = teacher.tokenizer.get_vocab(), student.tokenizer.get_vocab()
    if ours != theirs:
        shared = sum(theirs.get(token) == index for token, index in ours.items())
        raise BenchError(
            f"{teacher_name} ({len(ours)} tokens) and {student_name} ({len(theirs)} tokens) have different "
            f"vocabularies ({shared} tokens in common at the same id): their distributions cannot be compared. "
            "Choose a student of the teacher's family, or one from scratch: --set models.student=scratch"
        )


def check_output_sizes(teacher: PreTrainedModel, student: PreTrainedModel) -> None:
    """Refuse a pair whose output layers differ in size, as some families pad theirs differently.

    Raises:
        BenchError: the sizes differ.
    """
    sizes = [model.get_output_embeddings().weight.shape[0] for model in (teacher, student)]
    if sizes[0] != sizes[1]:
        raise BenchError(
            f"the teacher's output layer has {sizes[0]} entries, the student's {sizes[1]}: resize one "
            "(model.resize_token_embeddings) and give the saved folder"
        )


def decoder_start(model: PreTrainedModel) -> int | None:
    """The id an encoder-decoder's decoder starts from; None for a causal model."""
    if not model.config.is_encoder_decoder:
        return None
    start: int | None = model.config.decoder_start_token_id
    return model.config.pad_token_id if start is None else start


def response_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Logits that predict the response tokens, (N, V), in float32 whatever the precision of the rest.

    The hidden states are gathered just before the output layer, so the projection to the vocabulary happens at
    response positions only and whatever a family does around it (scaling, capping) stays as it is. The projection is
    in float32 also under autocast and for weights in bfloat16: logits rounded to 8 bits bend a divergence's gradient
    by several per cent where teacher and student are close, while its value looks right.
    """
    head = model.get_output_embeddings()

    def project(hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            bias = None if head.bias is None else head.bias.float()
            return torch.nn.functional.linear(hidden[batch.predicts].float(), head.weight.float(), bias)

    usual = head.forward
    head.forward = project
    try:
        logits = model(**batch.inputs, use_cache=False).logits
    finally:
        head.forward = usual
    assert isinstance(logits, Tensor)
    return logits


def save_model(model: PreTrainedModel, codec: Codec, folder: Path) -> None:
    """Write weights (safetensors), configuration and tokenizer as transformers loads them."""
    model.save_pretrained(folder)
    codec.tokenizer.save_pretrained(folder)


def parameters(model: PreTrainedModel) -> int:
    """Number of parameters, shared ones once."""
    return sum(p.numel() for p in model.parameters())


def parameter_count(name: str, kind: Kind) -> int:
    """Number of parameters of a model's architecture, without loading its weights."""
    with torch.device("meta"):
        return parameters(_AUTO[kind].from_config(AutoConfig.from_pretrained(name)))


def quiet_libraries() -> None:
    """Keep progress bars and advice of the libraries out of the display."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    for name in ("transformers", "datasets", "huggingface_hub", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
