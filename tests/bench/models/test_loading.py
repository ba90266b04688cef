"""The one forward pass against the plain one, and making, loading and checking models."""

import pytest
import torch

from bench.models import loading as models
from bench.models.batches import collate
from bench.models.loading import load_model, load_tokenizer, new_model, response_logits, save_model
from bench.models.tokenizer import Codec, train_tokenizer
from bench.system.errors import BenchError
from distillm import TokenSequence, kld

CPU = torch.device("cpu")
FAMILIES = ["gpt2", "llama", "opt", "gemma2", "t5"]
BATCH = [
    TokenSequence("a", (5, 6, 7, 8), (9, 10, 2)),
    TokenSequence("b", (11,), (12, 13, 14, 15, 2)),
    TokenSequence("c", (16, 17), (2,)),
]
RESPONSE_TOKENS = 9


def collated(model, codec):
    return collate(BATCH, codec, models.decoder_start(model), CPU)


def gradients(model, logits):
    model.zero_grad()
    (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_response_logits_are_those_of_the_plain_forward_pass(family, make_model):
    model, codec = make_model(family)
    model.eval()
    batch = collated(model, codec)
    plain = model(**batch.inputs, use_cache=False).logits[batch.predicts]
    expected = gradients(model, plain)
    gathered = response_logits(model, batch)
    assert gathered.shape == (RESPONSE_TOKENS, len(codec.tokenizer))
    torch.testing.assert_close(gathered, plain, rtol=1e-5, atol=1e-7)
    found = gradients(model, gathered)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_soft_capping_and_scaling_are_kept(make_model):
    model, codec = make_model("gemma2")
    capped = response_logits(model, collated(model, codec))
    model.config.final_logit_softcapping = None
    uncapped = response_logits(model, collated(model, codec))
    torch.testing.assert_close(capped, 0.05 * torch.tanh(uncapped / 0.05))
    assert uncapped.abs().max() > 0.05  # so the capping mattered

    model, codec = make_model("t5")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    seen = []
    model.get_output_embeddings().register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    model.eval()
    batch = collated(model, codec)
    response_logits(model, batch)
    encoded = model.encoder(batch.inputs["input_ids"], batch.inputs["attention_mask"]).last_hidden_state
    decoded = model.decoder(
        batch.inputs["decoder_input_ids"],
        attention_mask=batch.inputs["decoder_attention_mask"],
        encoder_hidden_states=encoded,
        encoder_attention_mask=batch.inputs["attention_mask"],
    ).last_hidden_state
    torch.testing.assert_close(seen[0][batch.predicts], (decoded * 16**-0.5)[batch.predicts])  # d_model ** -0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_not_rounded_under_autocast_nor_by_weights_in_bfloat16(family, make_model):
    model, codec = make_model(family)
    model.eval()
    batch = collated(model, codec)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        autocast = response_logits(model, batch)
    model.bfloat16()
    with torch.no_grad():
        weights = response_logits(model, batch)
    for logits in (autocast, weights):
        assert logits.dtype == torch.float32
        rounded = logits == logits.bfloat16().float()
        assert rounded.float().mean() < 0.1


def test_gradients_under_autocast_are_those_of_float64(make_model):
    """Teacher and student close together, logits far from 0: where rounded logits bend the gradient most."""
    model, codec = make_model("llama", tie_word_embeddings=False)
    model.eval()
    head = model.get_output_embeddings()
    torch.nn.init.normal_(head.weight, std=5.0)
    batch, seen = collated(model, codec), []
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        student = response_logits(model, batch)
    handle.remove()
    exact = seen[0][batch.predicts].detach().double() @ head.weight.detach().double().T
    noise = torch.randn(exact.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.05
    found, wanted = student.detach().requires_grad_(), exact.requires_grad_()
    kld(found, (exact + noise).detach().float()).sum().backward()
    kld(wanted, (exact + noise).detach()).sum().backward()
    error = (found.grad.double() - wanted.grad).norm() / wanted.grad.norm()
    assert error < 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_only_response_positions_are_projected_and_the_model_stays_as_it_was(family, make_model):
    model, codec = make_model(family)
    batch = collated(model, codec)
    shapes = []
    handle = model.get_output_embeddings().register_forward_hook(lambda _, i, output: shapes.append(output.shape))
    response_logits(model, batch)
    model(**batch.inputs)
    handle.remove()
    assert shapes == [(RESPONSE_TOKENS, 300), (*batch.predicts.shape, 300)]


def test_the_model_stays_as_it_was_after_an_error(make_model):
    model, codec = make_model("llama")
    batch = collated(model, codec)
    good = batch.inputs["input_ids"].clone()
    batch.inputs["input_ids"][0, 0] = 10_000
    with pytest.raises(IndexError):
        response_logits(model, batch)
    assert model(input_ids=good).logits.shape == (*good.shape, 300)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_random_weights_depend_on_the_seed_only(family, make_model):
    first, _ = make_model(family, seed=1)
    torch.rand(17)
    again, _ = make_model(family, seed=1)
    other, _ = make_model(family, seed=2)
    pairs = list(zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    name = max(first.state_dict(), key=lambda n: first.state_dict()[n].numel())
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_a_new_model_has_the_special_ids_of_its_tokenizer(make_model):
    model, codec = make_model("t5")
    config = model.config
    assert (config.pad_token_id, config.eos_token_id, config.decoder_start_token_id) == (0, 2, 0)
    assert config.vocab_size == len(codec.tokenizer)
    assert models.decoder_start(model) == 0
    assert models.decoder_start(make_model("gpt2")[0]) is None


@pytest.mark.parametrize(
    "architecture", [{"model_type": "no-such"}, {}, {"model_type": "t5", "d_model": 16, "d_ff": 16}]
)
def test_an_architecture_that_cannot_be_made_is_refused(architecture, codecs):
    with pytest.raises(BenchError, match="cannot make a causal model from"):
        new_model("causal", architecture, codecs["causal"], 0)


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_saving_and_loading(family, make_model, tmp_path):
    model, codec = make_model(family)
    model.eval()
    save_model(model, codec, tmp_path)
    loaded = load_model(str(tmp_path), codec.kind)
    batch = collated(model, codec)
    assert torch.equal(response_logits(model, batch), response_logits(loaded, batch))
    assert models.parameters(loaded) == models.parameters(model)
    assert models.parameter_count(str(tmp_path), codec.kind) == models.parameters(model)
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.get_vocab() == codec.tokenizer.get_vocab()
    assert tokenizer.eos_token_id == codec.eos_id


def test_a_folder_that_is_not_there(tmp_path):
    missing = str(tmp_path / "missing")
    with pytest.raises(BenchError, match="missing: there is no such folder, so no model can be loaded"):
        load_model(missing, "causal")
    with pytest.raises(BenchError, match="missing: there is no such folder, so no tokenizer can be loaded"):
        load_tokenizer(missing)


def test_a_folder_that_is_no_model(tmp_path, make_model):
    with pytest.raises(BenchError, match=r"no model transformers can load .*needs config\.json and model\.safetensors"):
        load_model(str(tmp_path), "causal")
    with pytest.raises(BenchError, match=r"no tokenizer transformers can load .*needs tokenizer\.json"):
        load_tokenizer(str(tmp_path))
    model, codec = make_model("gpt2")
    save_model(model, codec, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(BenchError, match=r"no model transformers can load .*needs config\.json and model\.safetensors"):
        load_model(str(tmp_path), "causal")


@pytest.mark.parametrize(("family", "wanted", "is_a"), [("gpt2", "seq2seq", "causal"), ("t5", "causal", "seq2seq")])
def test_a_model_of_the_other_kind(family, wanted, is_a, make_model, tmp_path):
    model, codec = make_model(family)
    save_model(model, codec, tmp_path)
    with pytest.raises(BenchError, match=f"is a {is_a} model, the pair is {wanted}: choose another --models"):
        load_model(str(tmp_path), wanted)


def test_different_vocabularies_are_refused(codecs, tmp_path):
    models.check_same_vocabulary(codecs["causal"], codecs["causal"], "T", "S")
    train_tokenizer(["other words make other merges"] * 5, 290, tmp_path)
    other = Codec(load_tokenizer(str(tmp_path)), "causal")
    with pytest.raises(BenchError, match=r"T \(300 tokens\) and S \(\d+ tokens\) have different vocabularies"):
        models.check_same_vocabulary(codecs["causal"], other, "T", "S")


def test_different_output_sizes_are_refused(make_model):
    teacher, _ = make_model("gpt2")
    student, _ = make_model("llama")
    models.check_output_sizes(teacher, student)
    student.resize_token_embeddings(320)
    with pytest.raises(BenchError, match="output layer has 300 entries, the student's 320"):
        models.check_output_sizes(teacher, student)
