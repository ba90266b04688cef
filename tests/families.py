"""Tiny random models of the families whose responses are held to those of `generate`."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

_LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
}
_PLAIN = {name: value for name, value in _LLAMA.items() if name != "num_key_value_heads"}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96}
_HEADS = {"head_dim": 8}
_SLIDING = {"sliding_window": 5}
_BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 96,
}
_T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "num_decoder_layers": 2}

# wide weights: the outputs of narrow ones hardly depend on their input
_WIDE = {"initializer_range": 0.4, "init_std": 0.4, "initializer_factor": 6.0}

CAUSAL: dict[str, dict[str, object]] = {
    "gpt2": _GPT2,
    "opt": {**_PLAIN, "word_embed_proj_dim": 32, "ffn_dim": 48},
    "llama": _LLAMA,
    "mistral": {**_LLAMA, **_SLIDING},
    "qwen2": _LLAMA,
    "qwen3": {**_LLAMA, **_HEADS},
    "gemma": {**_LLAMA, **_HEADS},
    "gemma2": {**_LLAMA, **_HEADS, **_SLIDING},
    "gemma3_text": {
        **_LLAMA,
        **_HEADS,
        **_SLIDING,
        "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    },
    "gpt_neox": _PLAIN,
    "phi": _LLAMA,
    "phi3": {**_LLAMA, "pad_token_id": 0},
    "qwen2_moe": {
        **_LLAMA,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    },
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": {**_PLAIN, "alibi": False},
    "gptj": {**_GPT2, "rotary_dim": 4},
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "intermediate_size": 48,
        "window_size": 5,
        "attention_types": [[["global", "local"], 1]],
        "max_position_embeddings": 96,
    },
    "gpt_bigcode": _GPT2,
    "stablelm": _LLAMA,
    "olmo2": _LLAMA,
    "cohere": _LLAMA,
    "granite": _LLAMA,
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 96},
    "xglm": {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48, "max_position_embeddings": 96},
    "codegen": {**_GPT2, "rotary_dim": 4},
    "biogpt": _PLAIN,
    "smollm3": {**_LLAMA, "pad_token_id": 0},
}
SEQ2SEQ: dict[str, dict[str, object]] = {
    "t5": _T5,
    "t5v1.1": {**_T5, "model_type": "t5", "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "mt5": _T5,
    "longt5": {**_T5, "local_radius": 3},
    "switch_transformers": {**_T5, "num_experts": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1},
    "bart": _BART,
    "mbart": _BART,
    "marian": _BART,
    "pegasus": _BART,
    "blenderbot": _BART,
    "m2m_100": _BART,
}
# families that keep something else than keys and values, and one whose forward pass takes no cache of ours
GENERATE: dict[str, dict[str, object]] = {
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "openai-gpt": _GPT2,
    "recurrent_gemma": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "lru_width": 32,
        "attention_window_size": 16,
    },
}
VOCABULARY = 97
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def make_family(family: str, *, wide: bool = True, vocabulary: int = VOCABULARY) -> PreTrainedModel:
    """A tiny random model in eval mode, always the same one."""
    fields = {**SPECIAL, **(_WIDE if wide else {}), **(CAUSAL | SEQ2SEQ | GENERATE)[family]}
    start = {"decoder_start_token_id": 0, "forced_eos_token_id": None} if family in SEQ2SEQ else {}
    kind = str(fields.pop("model_type", family))
    config = AutoConfig.for_model(kind, vocab_size=vocabulary, **fields, **start)
    torch.manual_seed(0)
    auto = AutoModelForSeq2SeqLM if family in SEQ2SEQ else AutoModelForCausalLM
    network: PreTrainedModel = auto.from_config(config).eval()
    network.generation_config.eos_token_id = None  # the responses run to the limit unless the test says otherwise
    return network
