"""Plain text as sequences of one length, and what is held out of it."""

from __future__ import annotations

import json

import pytest

from bench.config.sections import StudentPretraining
from bench.system.errors import BenchError
from bench.training.pretraining_text import pretraining_text, text_checksum

LINES = [f"the cat number {i} sat on the mat and the dog sat on the cat" for i in range(60)]


def made(tokenizer, **settings):
    given = StudentPretraining.model_validate({"length": 16, "steps": 1000, "held_out": 5, **settings})
    return pretraining_text(given, tokenizer, lambda done, total, what: None)


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_texts_follow_each_other_and_nothing_is_in_both_parts(kind, tokenizers, tmp_path):
    tokenizer = tokenizers[kind]
    (tmp_path / "text.txt").write_text("\n".join(LINES))
    text = made(tokenizer, file=str(tmp_path / "text.txt"))
    whole = [token for ids in tokenizer.responses_ids(LINES) for token in ids]
    pieces = [tuple(whole[start : start + 16]) for start in range(0, len(whole) - 15, 16)]
    train, held_out = ([s.prompt + s.response for s in part] for part in (text.train, text.held_out))
    assert sorted(train + held_out) == sorted(pieces)
    assert len(held_out) == 5
    assert {len(s.prompt) for s in text.train} == {1 if kind == "causal" else 8}


def test_a_folder_has_its_own_validation_and_only_as_much_is_read_as_is_trained_on(tokenizers, tmp_path):
    rows = "".join(json.dumps({"text": line}) + "\n" for line in LINES)
    (tmp_path / "train.jsonl").write_text(rows)
    before = text_checksum(str(tmp_path))
    (tmp_path / "valid.jsonl").write_text(json.dumps({"text": "something else altogether " * 9}) + "\n")
    assert text_checksum(str(tmp_path)) != before
    text = made(tokenizers["causal"], file=str(tmp_path), steps=3, batch_size=2)
    assert len(text.train) == 6
    first = text.held_out[0]
    assert tokenizers["causal"].text(first.prompt + first.response).startswith("something else")


def test_generated_text_is_there_without_a_file(tokenizers):
    text = made(tokenizers["causal"], file=None, steps=10, batch_size=4)
    assert len(text.train) == 40
    assert not {s.response for s in text.train} & {s.response for s in text.held_out}


@pytest.mark.parametrize("content", ["short", "a line\nof words"])
def test_too_little_text_is_told(content, tokenizers, tmp_path):
    (tmp_path / "text.txt").write_text(content)
    with pytest.raises(BenchError, match="too short"):
        made(tokenizers["causal"], file=str(tmp_path / "text.txt"), length=64)


def test_two_files_of_a_split_are_told(tmp_path):
    for name in ("train.txt", "train.jsonl"):
        (tmp_path / name).write_text("a line\n")
    with pytest.raises(BenchError, match=r"2 files for train: train\.jsonl, train\.txt; keep one"):
        text_checksum(str(tmp_path))


def test_a_folder_without_text_is_told(tmp_path):
    with pytest.raises(BenchError, match="has no file train"):
        text_checksum(str(tmp_path))
