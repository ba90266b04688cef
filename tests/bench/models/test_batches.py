"""Masks and positions of batches: they come from lengths, never from comparing ids with padding."""

import pytest
import torch

from bench.data import Example
from bench.models.batches import collate, pad
from bench.models.tokenizer import LengthLimits, TokenizerAdapter
from distillm import TokenSequence
from tests.tiny import CPU


def collated(batch, tokenizer):
    return collate(batch, tokenizer, None if tokenizer.kind == "causal" else 0, CPU)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_student_output_equal_to_the_reference_costs_the_same(family, make_model):
    model = make_model(family)
    tokenizer = model.tokenizer
    examples = (Example("a", "the cat", ("sat on the mat",)), Example("b", "a long", ("road",)))
    dataset, _ = tokenizer.encode(examples, LengthLimits(100, 100), drop_long=True)
    own = [s.with_response(tokenizer.response_ids(e.references[0]), 7) for s, e in zip(dataset, examples, strict=True)]
    losses = []
    for batch in (dataset, own):
        one = model.batch(batch)
        logits = model.score(one)
        losses.append(torch.nn.functional.cross_entropy(logits, one.tokens, reduction="none"))
        assert one.response_mask.sum(1).tolist() == [len(s.response) for s in batch]
    assert torch.equal(*losses)
    assert len(losses[0]) == sum(len(s.response) for s in dataset)


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_eos_counts_though_it_is_the_padding_too(kind, backend):
    backend.pad_token = None
    tokenizer = TokenizerAdapter(backend, kind)
    eos = tokenizer.eos_id
    assert tokenizer.pad_id == eos
    batch = [
        TokenSequence("inside", (5, eos, 6), (7, eos, 8, eos)),
        TokenSequence("alone", (5,), (eos,)),
        TokenSequence("long", (5, 6, 7, 8), (9, 10, 11, 12, 13, eos)),
    ]
    result = collated(batch, tokenizer)
    assert result.response_mask.sum(1).tolist() == [4, 1, 6]
    assert result.tokens.tolist() == [t for s in batch for t in s.response]
    inputs = [s.prompt + s.response[:-1] if kind == "causal" else s.prompt for s in batch]
    assert result.inputs["attention_mask"].sum(1).tolist() == [len(row) for row in inputs]


def test_causal_positions(tokenizers):
    batch = collated([TokenSequence("a", (5, 6, 7), (8, 9, 2)), TokenSequence("b", (5,), (6, 2))], tokenizers["causal"])
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7, 8, 9], [5, 6, 0, 0, 0]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    # the last token of the prompt predicts the first of the response
    assert batch.response_mask.tolist() == [[False, False, True, True, True], [True, True, False, False, False]]
    assert batch.tokens.tolist() == [8, 9, 2, 6, 2]


def test_seq2seq_positions(tokenizers):
    batch = collated(
        [TokenSequence("a", (5, 6, 2), (8, 9, 2)), TokenSequence("b", (5, 2), (6, 2))], tokenizers["seq2seq"]
    )
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 2], [5, 2, 0]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.inputs["decoder_input_ids"].tolist() == [[0, 8, 9], [0, 6, 0]]
    assert batch.inputs["decoder_attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.response_mask.tolist() == [[True, True, True], [True, True, False]]
    assert batch.tokens.tolist() == [8, 9, 2, 6, 2]


def test_padding_on_the_left():
    ids, mask = pad([(5, 6, 7), (8,)], 3, CPU, left=True)
    assert ids.tolist() == [[5, 6, 7], [3, 3, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
