"""Making, loading and checking networks and tokenizers."""

import pytest
import torch
from transformers.activations import GELUTanh, NewGELUActivation

from bench.models.architectures import new_network
from bench.models.loading import check_same_vocabulary, load_network, load_tokenizer
from bench.models.tokenizer import TokenizerAdapter, train_tokenizer
from bench.system.errors import BenchError


def test_a_new_model_has_the_special_ids_of_its_tokenizer(make_model):
    model = make_model("t5")
    config = model.network.config
    assert (config.pad_token_id, config.eos_token_id, config.decoder_start_token_id) == (0, 2, 0)
    assert config.vocab_size == len(model.tokenizer.backend)


@pytest.mark.parametrize(
    "architecture", [{"model_type": "no-such"}, {}, {"model_type": "t5", "d_model": 16, "d_ff": 16}]
)
def test_an_architecture_that_cannot_be_made_is_refused(architecture, tokenizers):
    with pytest.raises(BenchError, match="cannot make a causal model from"):
        new_network(architecture, tokenizers["causal"], 0)


@pytest.mark.parametrize("made", ["new", "loaded"])
def test_gelu_in_one_kernel_is_the_one_written_out(made, make_model, tmp_path):
    model = make_model("gpt2")
    network, inputs = model.network, {"input_ids": torch.arange(3, 40)[None]}
    if made == "loaded":
        model.save(tmp_path)
        network = load_network(str(tmp_path), "causal")
    network.eval()
    found = network(**inputs).logits
    activations = [(block.mlp, block.mlp.act) for block in network.transformer.h]
    assert {type(act) for _, act in activations} == {GELUTanh}
    for mlp, _ in activations:
        mlp.act = NewGELUActivation()
    torch.testing.assert_close(found, network(**inputs).logits, rtol=1e-5, atol=1e-6)
    assert network.config.activation_function == "gelu_new"


def test_a_folder_that_is_not_there(tmp_path):
    missing = str(tmp_path / "missing")
    with pytest.raises(BenchError, match="missing: there is no such folder, so no model can be loaded"):
        load_network(missing, "causal")
    with pytest.raises(BenchError, match="missing: there is no such folder, so no tokenizer can be loaded"):
        load_tokenizer(missing)


def test_a_folder_that_is_no_model(tmp_path, make_model):
    with pytest.raises(BenchError, match=r"no model transformers can load .*needs config\.json and model\.safetensors"):
        load_network(str(tmp_path), "causal")
    with pytest.raises(BenchError, match=r"no tokenizer transformers can load .*needs tokenizer\.json"):
        load_tokenizer(str(tmp_path))
    model = make_model("gpt2")
    model.save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(BenchError, match=r"no model transformers can load .*needs config\.json and model\.safetensors"):
        load_network(str(tmp_path), "causal")


@pytest.mark.parametrize(("family", "wanted", "is_a"), [("gpt2", "seq2seq", "causal"), ("t5", "causal", "seq2seq")])
def test_a_model_of_the_other_kind(family, wanted, is_a, make_model, tmp_path):
    model = make_model(family)
    model.save(tmp_path)
    with pytest.raises(BenchError, match=f"is a {is_a} model, the pair is {wanted}: choose another --models"):
        load_network(str(tmp_path), wanted)


def test_different_vocabularies_are_refused(tokenizers, tmp_path):
    check_same_vocabulary(tokenizers["causal"], tokenizers["causal"], "T", "S")
    train_tokenizer(["other words make other merges"] * 5, 290, tmp_path)
    other = TokenizerAdapter(load_tokenizer(str(tmp_path)), "causal")
    with pytest.raises(BenchError, match=r"T \(300 tokens\) and S \(\d+ tokens\) have different vocabularies"):
        check_same_vocabulary(tokenizers["causal"], other, "T", "S")
