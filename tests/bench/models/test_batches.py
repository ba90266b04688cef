"""Masks and positions of batches: they come from lengths, never from comparing ids with padding."""

import pytest
import torch

from bench.data import Example
from bench.models.batches import collate, pad
from bench.models.tokenizer import LengthLimits, TokenizerAdapter
from distillm import TokenSequence
from tests.tiny import CPU, sequences


def response_mask(batch):
    """Batch's positions as a (B, T) mask."""
    ids = batch.inputs.get("decoder_input_ids", batch.inputs["input_ids"])
    return torch.zeros(ids.numel(), dtype=torch.bool).index_fill(0, batch.positions, True).view_as(ids)


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
        assert response_mask(one).sum(1).tolist() == [len(s.response) for s in batch]
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
    assert response_mask(result).sum(1).tolist() == [4, 1, 6]
    assert result.tokens.tolist() == [t for s in batch for t in s.response]
    inputs = [s.prompt + s.response[:-1] if kind == "causal" else s.prompt for s in batch]
    assert result.inputs["attention_mask"].sum(1).tolist() == [len(row) for row in inputs]


def test_causal_positions(tokenizers):
    batch = collated([TokenSequence("a", (5, 6, 7), (8, 9, 2)), TokenSequence("b", (5,), (6, 2))], tokenizers["causal"])
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7, 8, 9], [5, 6, 0, 0, 0]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    # the last token of the prompt predicts the first of the response
    assert response_mask(batch).tolist() == [[False, False, True, True, True], [True, True, False, False, False]]
    assert batch.tokens.tolist() == [8, 9, 2, 6, 2]


def test_seq2seq_positions(tokenizers):
    batch = collated(
        [TokenSequence("a", (5, 6, 2), (8, 9, 2)), TokenSequence("b", (5, 2), (6, 2))], tokenizers["seq2seq"]
    )
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 2], [5, 2, 0]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.inputs["decoder_input_ids"].tolist() == [[0, 8, 9], [0, 6, 0]]
    assert batch.inputs["decoder_attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert response_mask(batch).tolist() == [[True, True, True], [True, True, False]]
    assert batch.tokens.tolist() == [8, 9, 2, 6, 2]


def test_padding_on_the_left():
    ids, mask = pad([(5, 6, 7), (8,)], 3, CPU, left=True)
    assert ids.tolist() == [[5, 6, 7], [3, 3, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma2", "t5"])
def test_padding_to_a_bucket_changes_no_logit(family, make_model):
    model = make_model(family)
    model.network.eval()
    batch = sequences(5, 0)
    plain = model.batch(batch)
    padded = collate(batch, model.tokenizer, model.start_id, CPU, bucket=24)
    assert {values.shape[1] for values in padded.inputs.values()} == {24}
    assert max(values.shape[1] for values in plain.inputs.values()) < 24
    torch.testing.assert_close(model.score(padded), model.score(plain), rtol=1e-5, atol=1e-6)
    assert torch.equal(padded.tokens, plain.tokens)


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_positions_are_in_the_order_of_the_tokens(kind, tokenizers):
    batch = collate(sequences(4, 1), tokenizers[kind], None if kind == "causal" else 0, CPU, bucket=8)
    ids = batch.inputs["input_ids" if kind == "causal" else "decoder_input_ids"].flatten()
    # each response token but the last of a sequence is read one position after the one that predicts it
    token_at = dict(zip((batch.positions + 1).tolist(), batch.tokens.tolist(), strict=True))
    places = [place for place in batch.positions.tolist() if place in token_at]
    assert len(places) >= len(batch.tokens) - 4
    assert [ids[place].item() for place in places] == [token_at[place] for place in places]


def test_a_bucket_is_not_over_the_positions_that_a_model_has(tokenizers):
    batch = [TokenSequence("a", (5,) * 9, (6,) * 10)]
    widths = [
        collate(batch, tokenizers["causal"], None, CPU, bucket=16, longest=longest).inputs["input_ids"].shape[1]
        for longest in (None, 40, 20, 12)
    ]
    assert widths == [32, 32, 20, 18]
