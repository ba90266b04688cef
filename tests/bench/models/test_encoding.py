"""Masks and positions of batches, cutting of texts, data order, and the tokenizer trained on a task."""

import itertools
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from bench.data import Example
from bench.models.batches import collate, pad
from bench.models.loading import decoder_start, load_tokenizer, response_logits
from bench.models.tokenizer import Codec, Limits
from bench.system.errors import BenchError
from bench.training.data_order import batch_order
from distillm import TokenSequence

CPU = torch.device("cpu")
WIDE = Limits(100, 100)


def marked(tokenizer, template: str):
    """The tokenizer with marks around each text, as Llama ("<s> $A") and T5 ("$A </s>") have them."""
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "</s>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=special)
    return tokenizer


def collated(batch, codec):
    return collate(batch, codec, None if codec.kind == "causal" else 0, CPU)


# --- masks come from lengths


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_student_output_equal_to_the_reference_costs_the_same(family, make_model):
    model, codec = make_model(family)
    examples = (Example("a", "the cat", ("sat on the mat",)), Example("b", "a long", ("road",)))
    dataset, _ = codec.encode(examples, WIDE, drop_long=True)
    own = [s.with_response(codec.response_ids(e.references[0]), 7) for s, e in zip(dataset, examples, strict=True)]
    losses = []
    for batch in (dataset, own):
        one = collate(batch, codec, decoder_start(model), CPU)
        logits = response_logits(model, one)
        losses.append(torch.nn.functional.cross_entropy(logits, one.tokens, reduction="none"))
        assert one.predicts.sum(1).tolist() == [len(s.response) for s in batch]
    assert torch.equal(*losses)
    assert len(losses[0]) == sum(len(s.response) for s in dataset)


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_eos_counts_though_it_is_the_padding_too(kind, tokenizer):
    tokenizer.pad_token = None
    codec = Codec(tokenizer, kind)
    eos = codec.eos_id
    assert codec.pad_id == eos
    batch = [
        TokenSequence("inside", (5, eos, 6), (7, eos, 8, eos)),
        TokenSequence("alone", (5,), (eos,)),
        TokenSequence("long", (5, 6, 7, 8), (9, 10, 11, 12, 13, eos)),
    ]
    result = collated(batch, codec)
    assert result.predicts.sum(1).tolist() == [4, 1, 6]
    assert result.tokens.tolist() == [t for s in batch for t in s.response]
    inputs = [s.prompt + s.response[:-1] if kind == "causal" else s.prompt for s in batch]
    assert result.inputs["attention_mask"].sum(1).tolist() == [len(row) for row in inputs]


def test_causal_positions(codecs):
    batch = collated([TokenSequence("a", (5, 6, 7), (8, 9, 2)), TokenSequence("b", (5,), (6, 2))], codecs["causal"])
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7, 8, 9], [5, 6, 0, 0, 0]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    # the last token of the prompt predicts the first of the response
    assert batch.predicts.tolist() == [[False, False, True, True, True], [True, True, False, False, False]]
    assert batch.tokens.tolist() == [8, 9, 2, 6, 2]


def test_seq2seq_positions(codecs):
    batch = collated([TokenSequence("a", (5, 6, 2), (8, 9, 2)), TokenSequence("b", (5, 2), (6, 2))], codecs["seq2seq"])
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 2], [5, 2, 0]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.inputs["decoder_input_ids"].tolist() == [[0, 8, 9], [0, 6, 0]]
    assert batch.inputs["decoder_attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.predicts.tolist() == [[True, True, True], [True, True, False]]
    assert batch.tokens.tolist() == [8, 9, 2, 6, 2]


def test_padding_on_the_left():
    ids, mask = pad([(5, 6, 7), (8,)], 3, CPU, left=True)
    assert ids.tolist() == [[5, 6, 7], [3, 3, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


# --- from text to ids


def test_the_middle_of_a_long_prompt_is_cut(codecs):
    codec = codecs["causal"]
    example = Example("a", "abcdefghijklmnopqrstuvwxyz" * 3, ("x",))
    whole = codec.prompt_ids(example.prompt)
    (sequence,), counts = codec.encode((example,), Limits(9, 100), drop_long=False)
    assert sequence.prompt == whole[:5] + whole[-4:]
    assert counts == {"prompts_dropped": 0, "prompts_cut": 1, "responses_cut": 0}


def test_long_prompts_are_dropped_from_training(codecs):
    codec = codecs["causal"]
    limit = len(codec.prompt_ids("the cat"))
    examples = (Example("long", "the cat sat", ("x",)), Example("fits", "the cat", ("y",)))
    sequences, counts = codec.encode(examples, Limits(limit, 100), drop_long=True)
    assert [s.id for s in sequences] == ["fits"]
    assert counts == {"prompts_dropped": 1, "prompts_cut": 0, "responses_cut": 0}


def test_a_long_response_is_cut_and_has_no_eos(codecs):
    codec = codecs["causal"]
    example = Example("a", "the", ("the cat sat on the mat",))
    whole = codec.response_ids(example.references[0])
    assert whole[-1] == codec.eos_id
    (cut,), counts = codec.encode((example,), Limits(100, len(whole) - 1), drop_long=True)
    assert cut.response == whole[:-1]
    assert codec.eos_id not in cut.response
    assert counts["responses_cut"] == 1
    (fits,), counts = codec.encode((example,), Limits(100, len(whole)), drop_long=True)
    assert fits.response == whole
    assert counts["responses_cut"] == 0


@pytest.mark.parametrize("template", ["$A", "<s> $A", "$A </s>", "<s> $A </s>"])
@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_training_and_evaluation_prompts_are_marked_alike(kind, template, tokenizer):
    codec = Codec(marked(tokenizer, template), kind)
    example = Example("a", "the cat", ("sat",))
    (trained,), _ = codec.encode((example,), WIDE, drop_long=True)
    (evaluated,), _ = codec.encode((example,), WIDE, drop_long=False)
    assert trained == evaluated
    bos, plain = tokenizer.bos_token_id, tuple(tokenizer("the cat", add_special_tokens=False)["input_ids"])
    opening = (bos,) if "<s>" in template else ()
    closing = (codec.eos_id,) if "</s>" in template and kind == "seq2seq" else ()
    assert trained.prompt == opening + plain + closing
    assert bos not in trained.response
    assert trained.response.count(codec.eos_id) == 1


def test_text_leaves_out_special_tokens(codecs):
    codec = codecs["causal"]
    assert codec.text((*codec.response_ids("sat on"), codec.pad_id)) == "sat on"
    assert codec.text((codec.eos_id,)) == ""


def test_a_tokenizer_without_eos_is_refused(tokenizer):
    tokenizer.eos_token = None
    with pytest.raises(BenchError, match="no EOS token"):
        Codec(tokenizer, "causal")


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_the_trained_tokenizer_gives_every_text_back(text, tokenizer_folder):
    tokenizer = load_tokenizer(str(tokenizer_folder))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_the_trained_tokenizer_has_the_size_and_marks_asked_for(tokenizer):
    assert len(tokenizer) == 300
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<pad>", "<s>", "</s>"]
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)


# --- data order


def dataset(size: int) -> list[TokenSequence]:
    rng = random.Random(1)
    return [TokenSequence(str(i), (5,) * rng.randint(1, 30), (6,) * rng.randint(1, 30)) for i in range(size)]


def ids(batches) -> list[list[str]]:
    return [[s.id for s in batch] for batch in batches]


def padding(batches) -> int:
    lengths = [[len(s.prompt) + len(s.response) for s in batch] for batch in batches]
    return sum(max(row) * len(row) - sum(row) for row in lengths)


def test_the_order_depends_on_the_seed_only():
    first, again, other = (ids(itertools.islice(batch_order(dataset(64), 4, seed), 40)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_an_epoch_has_every_example_once_and_each_epoch_another_order():
    batches = ids(itertools.islice(batch_order(dataset(96), 8, 3), 24))
    epochs = [batches[:12], batches[12:]]
    for epoch in epochs:
        assert sorted(itertools.chain(*epoch), key=int) == [str(i) for i in range(96)]
    assert epochs[0] != epochs[1]


def test_a_last_incomplete_batch_is_left_out_unless_it_is_the_only_one():
    assert [len(b) for b in itertools.islice(batch_order(dataset(10), 4, 0), 6)] == [4] * 6
    for epoch in itertools.islice(batch_order(dataset(3), 4, 0), 2):
        assert sorted(s.id for s in epoch) == ["0", "1", "2"]


def test_like_lengths_stand_together_and_batches_do_not_come_by_length():
    sequences = dataset(512)
    batches = list(itertools.islice(batch_order(sequences, 8, 0), 64))
    shuffled = random.Random(0).sample(sequences, len(sequences))
    at_random = [shuffled[i : i + 8] for i in range(0, len(shuffled), 8)]
    assert padding(batches) < 0.5 * padding(at_random)
    longest = [max(len(s.prompt) + len(s.response) for s in batch) for batch in batches]
    rises = sum(a < b for a, b in itertools.pairwise(longest))
    assert 16 < rises < 48


@pytest.mark.parametrize("done", [1, 7, 8, 19])
def test_skipping_what_is_done_resumes(done):
    whole = ids(itertools.islice(batch_order(dataset(32), 4, 5), 24))
    assert ids(itertools.islice(batch_order(dataset(32), 4, 5), done, 24)) == whole[done:]
