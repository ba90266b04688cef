"""Tokenizers in the files of the real ones and of their sizes, trained on the package's synthetic text in a second.

What they lack to the real size are pieces that no text has.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, ByteLevelBPETokenizer, Tokenizer, decoders, models, pre_tokenizers, processors

from bench.synthetic import generate, plain_text

END = "<|endoftext|>"


def texts() -> list[str]:
    chats = [record["dialogue"] for record in generate("samsum", ("validation",))["validation"]]
    pairs = [
        text for record in generate("iwslt", ("validation",))["validation"] for text in record["translation"].values()
    ]
    return [line for text in (*plain_text.generate(200), *pairs, *chats) for line in text.splitlines()]


@cache
def _trained(kind: str) -> bytes:
    file = io.BytesIO()
    how = {
        "unigram": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "character_coverage": 1.0},
        "bpe": {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1, "byte_fallback": True},
    }[kind]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts()),
        model_writer=file,
        model_type=kind,
        vocab_size=600,
        num_threads=1,
        minloglevel=2,
        **how,
    )
    return file.getvalue()


def _sentencepiece(kind: str, size: int) -> bytes:
    model = sentencepiece_model_pb2.ModelProto.FromString(_trained(kind))
    lowest = min(piece.score for piece in model.pieces)
    for index in range(len(model.pieces), size):
        model.pieces.add(piece=f"\u2581zqx{index}q", score=lowest - index, type=1)
    model.trainer_spec.vocab_size = size
    return model.SerializeToString()


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def t5(folder: Path, *, with_tokenizer_json: bool) -> None:
    """32,000 pieces and 100 sentinels; the checkpoints of v1.1 have no tokenizer.json."""
    sentinels = [f"<extra_id_{i}>" for i in range(100)]
    special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "additional_special_tokens": sentinels}
    (folder / "spiece.model").write_bytes(_sentencepiece("unigram", 32000))
    _write_json(folder / "special_tokens_map.json", special)
    settings = special | {"extra_ids": 100, "model_max_length": 512, "tokenizer_class": "T5Tokenizer"}
    _write_json(folder / "tokenizer_config.json", settings)
    if with_tokenizer_json:
        from transformers import AutoTokenizer

        AutoTokenizer.from_pretrained(str(folder)).backend_tokenizer.save(str(folder / "tokenizer.json"))


def mt5(folder: Path) -> None:
    """250,100 pieces, all in the SentencePiece file; no tokenizer.json, and a tokenizer class in config.json only."""
    special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    (folder / "spiece.model").write_bytes(_sentencepiece("unigram", 250100))
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(folder / "tokenizer_config.json", special | {"extra_ids": 0, "additional_special_tokens": None})


def open_llama(folder: Path) -> None:
    """32,000 pieces with bytes to fall back on; no tokenizer.json."""
    special = {
        name: {"content": text, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        for name, text in (("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>"))
    }
    (folder / "tokenizer.model").write_bytes(_sentencepiece("bpe", 32000))
    _write_json(folder / "special_tokens_map.json", special)
    settings = {name: {"__type": "AddedToken", **token} for name, token in special.items()}
    settings |= {"add_bos_token": True, "add_eos_token": False, "model_max_length": 2048, "pad_token": None}
    _write_json(folder / "tokenizer_config.json", settings | {"tokenizer_class": "LlamaTokenizer"})


@cache
def _byte_level() -> tuple[dict[str, int], str]:
    """Vocabulary of GPT-2's size, END last, and merges."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts(), vocab_size=600, show_progress=False)
    state = json.loads(trained.to_str())["model"]
    entries = sorted(state["vocab"], key=state["vocab"].__getitem__)
    entries += [f"zqx{index}q" for index in range(len(entries), 50256)]
    merges = "\n".join(" ".join(pair) for pair in state["merges"])
    return {entry: index for index, entry in enumerate((*entries, END))}, f"#version: 0.2\n{merges}\n"


def gpt2(folder: Path) -> None:
    """50,257 entries, in tokenizer.json and in vocab.json with merges.txt."""
    vocabulary, merges = _byte_level()
    _write_json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([AddedToken(END, special=True, normalized=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", {"model_max_length": 1024})


def opt(folder: Path) -> None:
    """50,265 entries in vocab.json and merges.txt, BOS in front of every text; no tokenizer.json."""
    vocabulary, merges = _byte_level()
    entries = ["<s>", "<pad>", "</s>", "<unk>", *(entry for entry in vocabulary if entry != END)]
    entries += [f"madeupword{index:04d}" for index in range(50265 - len(entries))]
    _write_json(folder / "vocab.json", {entry: index for index, entry in enumerate(entries)})
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True}
    special = {
        name: {"content": text} | plain
        for name, text in (("bos_token", "</s>"), ("eos_token", "</s>"), ("unk_token", "</s>"), ("pad_token", "<pad>"))
    }
    _write_json(folder / "special_tokens_map.json", special)
    settings: dict[str, object] = {name: {"__type": "AddedToken", **token} for name, token in special.items()}
    settings |= {"add_bos_token": True, "add_prefix_space": False, "errors": "replace"}
    _write_json(folder / "tokenizer_config.json", settings | {"tokenizer_class": "GPT2Tokenizer"})


Writer = Callable[[Path], None]
