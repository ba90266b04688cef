"""Tiny random models in the file layouts, vocabularies and configurations of the real checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from tests.hub import tokenizers_of
from tests.hub.server import Fill

Weights = dict[str, torch.Tensor]


def _made(fields: Mapping[str, Any], seed: str) -> PreTrainedModel:
    torch.manual_seed(sum(seed.encode()))
    config = AutoConfig.for_model(**fields)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    return auto.from_config(config, dtype=torch.float32)


def _write_config(folder: Path, fields: Mapping[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(dict(fields), indent=1), encoding="utf-8")


def _save_sharded(weights: Weights, folder: Path) -> None:
    """Two .bin files and their index."""
    names = sorted(weights)
    place = {name: f"pytorch_model-0000{1 + (at >= len(names) // 2)}-of-00002.bin" for at, name in enumerate(names)}
    for file in sorted(set(place.values())):
        torch.save({name: weights[name] for name in names if place[name] == file}, folder / file)
    index = {"metadata": {}, "weight_map": place}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")


def _gpt2(width: int, name: str, folder: Path, *, released_by_minillm: bool = False) -> None:
    fields = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": 50257,
        "n_positions": 1024,
        "n_ctx": 1024,
        "n_embd": width,
        "n_layer": 2,
        "n_head": 2,
        "activation_function": "gelu_new",
        "bos_token_id": 50256,
        "eos_token_id": 50256,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    }
    weights = _made(fields, name).state_dict()
    if released_by_minillm:
        torch.save(weights, folder / "pytorch_model.bin")
    else:  # without the prefix, and with the causal masks as weights
        bare = {key.removeprefix("transformer."): value for key, value in weights.items() if key != "lm_head.weight"}
        mask = torch.tril(torch.ones(1024, 1024, dtype=torch.uint8))[None, None]
        bare |= {f"h.{layer}.attn.bias": mask.clone() for layer in range(2)}
        save_file(bare, folder / "model.safetensors", metadata={"format": "pt"})
    _write_config(folder, fields)
    generation = {"_from_model_config": True, "bos_token_id": 50256, "eos_token_id": 50256}
    (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    tokenizers_of.gpt2(folder)


def _opt(width: int, name: str, folder: Path) -> None:
    """Half-precision weights in a .bin file; the 350M model has narrower embeddings and norms after its layers."""
    of_350m = name == "facebook/opt-350m"
    fields = {
        "model_type": "opt",
        "architectures": ["OPTForCausalLM"],
        "vocab_size": 50272,
        "hidden_size": width,
        "word_embed_proj_dim": width // 2 if of_350m else width,
        "do_layer_norm_before": not of_350m,
        "ffn_dim": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 2048,
        "activation_function": "relu",
        "dropout": 0.1,
        "attention_dropout": 0.0,
        "layerdrop": 0.0,
        "init_std": 0.02,
        "pad_token_id": 1,
        "bos_token_id": 2,
        "eos_token_id": 2,
        "prefix": "</s>",
        "torch_dtype": "float16",
    }
    weights = {key: value.half() for key, value in _made(fields, name).state_dict().items()}
    weights["lm_head.weight"] = weights["model.decoder.embed_tokens.weight"]
    torch.save(weights, folder / "pytorch_model.bin")
    _write_config(folder, fields)
    tokenizers_of.opt(folder)


def _llama(width: int, name: str, folder: Path) -> None:
    """Half-precision weights in .bin files (two of the 7B model), an output layer of its own."""
    fields = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 32000,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float16",
    }
    weights = {key: value.half() for key, value in _made(fields, name).state_dict().items()}
    if "7b" in name:
        _save_sharded(weights, folder)
    else:
        torch.save(weights, folder / "pytorch_model.bin")
    _write_config(folder, fields)
    tokenizers_of.open_llama(folder)


def _t5(width: int, name: str, folder: Path) -> None:
    """The first T5: embeddings are the output layer, whose input is scaled; safetensors and a tokenizer.json."""
    fields = _t5_fields("t5", width, 32128) | {
        "feed_forward_proj": "relu",
        "n_positions": 512,
        "task_specific_params": {"summarization": {"num_beams": 4, "max_length": 200, "prefix": "summarize: "}},
    }
    weights = _made(fields, name).state_dict()
    save_file(
        {key: value for key, value in weights.items() if "embed_tokens" not in key and key != "lm_head.weight"},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    _write_config(folder, fields)
    tokenizers_of.t5(folder, with_tokenizer_json=True)


def _t5_v1_1(width: int, name: str, folder: Path) -> None:
    """T5 v1.1 and mT5: an output layer of its own, unscaled; pytorch_model.bin, no tokenizer.json."""
    many = "/mt5" in name
    fields = _t5_fields("mt5" if many else "t5", width, 250112 if many else 32128)
    fields |= {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    weights = _made(fields, name).state_dict()
    weights["lm_head.weight"] = torch.randn_like(weights["shared.weight"]) * 0.3
    for part in ("encoder", "decoder"):
        weights[f"{part}.embed_tokens.weight"] = weights["shared.weight"]
    torch.save(weights, folder / "pytorch_model.bin")
    if many:
        fields |= {"tokenizer_class": "T5Tokenizer"}
        tokenizers_of.mt5(folder)
    else:
        tokenizers_of.t5(folder, with_tokenizer_json=False)
    _write_config(folder, fields)
    generation = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")


def _t5_fields(model_type: str, width: int, vocabulary: int) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "architectures": ["MT5ForConditionalGeneration" if model_type == "mt5" else "T5ForConditionalGeneration"],
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": 8,
        "d_ff": 2 * width,
        "num_layers": 1,
        "num_decoder_layers": 1,
        "num_heads": 2,
        "dropout_rate": 0.1,
        "relative_attention_num_buckets": 32,
        "is_encoder_decoder": True,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


ADAPTER, BASE = "someone/gpt2-adapter", "openai-community/gpt2"


def _adapter(folder: Path) -> None:
    """LoRA for `BASE` in peft's two files, without a tokenizer."""
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": BASE,
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["c_attn"],
        "fan_in_fan_out": True,
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    generator = torch.Generator().manual_seed(0)
    shapes = {"lora_A": (2, 8), "lora_B": (24, 2)}
    weights = {
        f"base_model.model.transformer.h.{layer}.attn.c_attn.{name}.weight": torch.randn(shape, generator=generator)
        for layer in range(2)
        for name, shape in shapes.items()
    }
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _all() -> dict[str, Fill]:
    made: dict[str, Fill] = {ADAPTER: _adapter}

    def add(make: Callable[..., None], widths: Mapping[str, int], **options: bool) -> None:
        made.update({name: partial(make, width, name, **options) for name, width in widths.items()})

    add(
        _gpt2,
        {f"openai-community/gpt2{size}": w for size, w in (("", 8), ("-medium", 12), ("-large", 12), ("-xl", 16))},
    )
    released = {"teacher-gpt2-1.5B": 16}
    for method in ("init", "SFT", "KD", "SeqKD", "MiniLLM"):
        released |= {f"{method}-gpt2-{size}": width for size, width in (("120M", 8), ("340M", 12), ("760M", 12))}
    add(_gpt2, {f"MiniLLM/{name}": width for name, width in released.items()}, released_by_minillm=True)
    add(
        _opt,
        {
            f"facebook/opt-{size}": width
            for size, width in (("125m", 8), ("350m", 16), ("1.3b", 12), ("2.7b", 16), ("6.7b", 16))
        },
    )
    add(_opt, {f"MiniLLM/SFT-OPT-{size}": width for size, width in (("1.3B", 12), ("2.7B", 16), ("6.7B", 16))})
    add(_llama, {"openlm-research/open_llama_7b_v2": 16, "openlm-research/open_llama_3b_v2": 8})
    add(_t5, {"google-t5/t5-base": 16, "google-t5/t5-small": 8})
    for family in ("google/t5-v1_1", "google/mt5"):
        add(_t5_v1_1, {f"{family}-xl": 16, f"{family}-base": 12, f"{family}-small": 8})
    return made


MODELS = _all()
