"""One object for a model: made from scratch, saved and loaded, and sampled from in batches."""

import pytest
import torch

from bench.models.language_model import LanguageModel
from bench.models.loading import load_tokenizer, parameter_count
from bench.models.sampling import Decoding
from bench.models.tokenizer import TokenizerAdapter
from distillm import TokenSequence
from tests.tiny import same, weights

SEQUENCES = [
    TokenSequence("a", (5, 6, 7, 8), (9, 10, 2)),
    TokenSequence("b", (11,), (12, 13, 14, 15, 2)),
    TokenSequence("c", (16, 17), (2,)),
]
PROMPTS = [(5, 6, 7, 8, 9, 10), (11,), (12, 13, 14), (15, 16)]


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_random_weights_depend_on_the_seed_only(family, make_model):
    first = weights(make_model(family, seed=1))
    torch.rand(17)
    again, other = weights(make_model(family, seed=1)), weights(make_model(family, seed=2))
    assert same(first, again)
    name = max(first, key=lambda n: first[n].numel())
    assert not torch.equal(first[name], other[name])


def test_a_decoder_starts_from_the_models_own_token(make_model):
    model = make_model("t5")
    assert model.start_id == 0
    model.network.config.decoder_start_token_id = 5
    assert model.start_id == 5
    model.network.config.decoder_start_token_id = None  # then from the padding token
    assert model.start_id == model.network.config.pad_token_id == 0
    assert make_model("gpt2").start_id is None


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_saving_and_loading(family, make_model, tmp_path):
    model = make_model(family)
    model.network.eval()
    model.save(tmp_path)
    tokenizer = TokenizerAdapter(load_tokenizer(str(tmp_path)), model.kind)
    loaded = LanguageModel.load(str(tmp_path), tokenizer, torch.device("cpu"))
    assert not loaded.network.training
    assert same(weights(loaded), weights(model))
    assert torch.equal(model.score(SEQUENCES), loaded.score(SEQUENCES))
    counted = sum(p.numel() for p in {id(p): p for p in model.network.parameters()}.values())
    assert loaded.parameters == model.parameters == counted
    assert parameter_count(str(tmp_path), model.kind) == model.parameters
    assert tokenizer.backend.get_vocab() == model.tokenizer.backend.get_vocab()
    assert tokenizer.eos_id == model.tokenizer.eos_id


def test_a_model_is_loaded_in_the_precision_asked_for(make_model, tmp_path):
    model = make_model("llama")
    model.save(tmp_path)
    loaded = LanguageModel.load(str(tmp_path), model.tokenizer, torch.device("cpu"), torch.bfloat16)
    assert {p.dtype for p in loaded.network.parameters()} == {torch.bfloat16}
    assert loaded.score(SEQUENCES).dtype == torch.float32


def test_responses_come_in_the_order_of_the_sequences(make_model):
    model = make_model("gpt2", initializer_range=0.5)
    sequences = [TokenSequence(str(i), prompt, (2,)) for i, prompt in enumerate(PROMPTS * 2)]
    done = []
    found = model.sample(sequences, Decoding(8, temperature=0), 0, batch_size=3, progress=done.append)
    assert found == [model.sample([s], Decoding(8, temperature=0), 0)[0] for s in sequences]
    assert done == [3, 6, 8]


def test_one_prompt_asked_under_several_ids_has_draws_of_its_own_for_each(make_model):
    model = make_model("gpt2")
    sequences = [TokenSequence(str(i), (5, 6), (2,)) for i in range(4)]
    found = model.sample(sequences, Decoding(8), 0, batch_size=2)
    assert len(set(found)) == 4
    assert model.sample(sequences, Decoding(8), 0, batch_size=2) == found
    assert model.sample(sequences, Decoding(8), 1, batch_size=2) != found


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_a_response_depends_on_seed_and_example_alone(family, make_model):
    model = make_model(family, **({"initializer_factor": 6.0} if family == "t5" else {"initializer_range": 0.3}))
    sequences = [TokenSequence(f"example-{i}", PROMPTS[i % 4], (2,)) for i in range(12)]
    found = dict(zip([s.id for s in sequences], model.sample(sequences, Decoding(10), 3, "here"), strict=True))
    for size in (1, 5):
        assert model.sample(sequences, Decoding(10), 3, "here", batch_size=size) == list(found.values())
    turned = sequences[::-1]
    assert model.sample(turned, Decoding(10), 3, "here") == [found[s.id] for s in turned]
    assert model.sample(sequences[7:9], Decoding(10), 3, "here") == [found[s.id] for s in sequences[7:9]]
    # seeds sampled together share the reading of prompts and nothing else
    others = model.sample(sequences, Decoding(10), 4, "here")
    assert model.sample_each(sequences, Decoding(10), [(4, "here"), (3, "here")]) == [others, list(found.values())]
    assert others != list(found.values())
    # a lower limit cuts a response and changes none of its tokens
    assert model.sample(sequences, Decoding(4), 3, "here") == [response[:4] for response in found.values()]
