"""From text to ids and back: cutting, marks, and the tokenizer trained on a task."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from bench.data import Example
from bench.models.loading import load_tokenizer
from bench.models.tokenizer import LengthLimits, TokenizerAdapter
from bench.system.errors import BenchError

WIDE = LengthLimits(100, 100)


def marked(backend, template: str):
    """The tokenizer with marks around each text, as Llama ("<s> $A") and T5 ("$A </s>") have them."""
    special = [(token, backend.convert_tokens_to_ids(token)) for token in ("<s>", "</s>")]
    backend.backend_tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=special)
    return backend


def test_the_middle_of_a_long_prompt_is_cut(tokenizers):
    tokenizer = tokenizers["causal"]
    example = Example("a", "abcdefghijklmnopqrstuvwxyz" * 3, ("x",))
    whole = tokenizer.prompt_ids(example.prompt)
    (sequence,), counts = tokenizer.encode((example,), LengthLimits(9, 100), drop_long=False)
    assert sequence.prompt == whole[:5] + whole[-4:]
    assert counts == {"prompts_dropped": 0, "prompts_cut": 1, "responses_cut": 0}


def test_long_prompts_are_dropped_from_training(tokenizers):
    tokenizer = tokenizers["causal"]
    limit = len(tokenizer.prompt_ids("the cat"))
    examples = (Example("long", "the cat sat", ("x",)), Example("fits", "the cat", ("y",)))
    sequences, counts = tokenizer.encode(examples, LengthLimits(limit, 100), drop_long=True)
    assert [s.id for s in sequences] == ["fits"]
    assert counts == {"prompts_dropped": 1, "prompts_cut": 0, "responses_cut": 0}


def test_a_long_response_is_cut_and_has_no_eos(tokenizers):
    tokenizer = tokenizers["causal"]
    example = Example("a", "the", ("the cat sat on the mat",))
    whole = tokenizer.response_ids(example.references[0])
    assert whole[-1] == tokenizer.eos_id
    (cut,), counts = tokenizer.encode((example,), LengthLimits(100, len(whole) - 1), drop_long=True)
    assert cut.response == whole[:-1]
    assert tokenizer.eos_id not in cut.response
    assert counts["responses_cut"] == 1
    (fits,), counts = tokenizer.encode((example,), LengthLimits(100, len(whole)), drop_long=True)
    assert fits.response == whole
    assert counts["responses_cut"] == 0


@pytest.mark.parametrize("template", ["$A", "<s> $A", "$A </s>", "<s> $A </s>"])
@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_training_and_evaluation_prompts_are_marked_alike(kind, template, backend):
    tokenizer = TokenizerAdapter(marked(backend, template), kind)
    example = Example("a", "the cat", ("sat",))
    (trained,), _ = tokenizer.encode((example,), WIDE, drop_long=True)
    (evaluated,), _ = tokenizer.encode((example,), WIDE, drop_long=False)
    assert trained == evaluated
    bos, plain = backend.bos_token_id, tuple(backend("the cat", add_special_tokens=False)["input_ids"])
    opening = (bos,) if "<s>" in template else ()
    closing = (tokenizer.eos_id,) if "</s>" in template and kind == "seq2seq" else ()
    assert trained.prompt == opening + plain + closing
    assert bos not in trained.response
    assert trained.response.count(tokenizer.eos_id) == 1


def test_text_leaves_out_special_tokens(tokenizers):
    tokenizer = tokenizers["causal"]
    assert tokenizer.text((*tokenizer.response_ids("sat on"), tokenizer.pad_id)) == "sat on"
    assert tokenizer.text((tokenizer.eos_id,)) == ""


def test_a_tokenizer_without_eos_is_refused(backend):
    backend.eos_token = None
    with pytest.raises(BenchError, match="no EOS token"):
        TokenizerAdapter(backend, "causal")


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_the_trained_tokenizer_gives_every_text_back(text, tokenizer_folder):
    backend = load_tokenizer(str(tokenizer_folder))
    ids = backend(text, add_special_tokens=False)["input_ids"]
    assert backend.decode(ids, clean_up_tokenization_spaces=False) == text


def test_the_trained_tokenizer_has_the_size_and_marks_asked_for(backend):
    assert len(backend) == 300
    assert backend.convert_ids_to_tokens([0, 1, 2]) == ["<pad>", "<s>", "</s>"]
    assert (backend.pad_token_id, backend.bos_token_id, backend.eos_token_id) == (0, 1, 2)
