"""The output layer, wrapped once: scores against the plain forward pass, and what stays as it was."""

import pytest
import torch
from safetensors import safe_open

from baselines.sft import CrossEntropy
from bench.models.architectures import new_network
from bench.models.language_model import LanguageModel
from bench.models.output_head import ResponseHead
from bench.system.errors import BenchError
from distillm import TokenSequence, kld, token_losses
from tests.tiny import ARCHITECTURES, kind_of

FAMILIES = list(ARCHITECTURES)
BATCH = [
    TokenSequence("a", (5, 6, 7, 8), (9, 10, 2)),
    TokenSequence("b", (11,), (12, 13, 14, 15, 2)),
    TokenSequence("c", (16, 17), (2,)),
]
RESPONSE_TOKENS = 9


def gradients(model, logits):
    return gradients_of(model, (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum())


def gradients_of(model, total):
    model.network.zero_grad()
    total.backward()
    return {name: p.grad.clone() for name, p in model.network.named_parameters() if p.grad is not None}


# --- scores


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_the_logits_of_the_plain_forward_pass(family, make_model):
    model = make_model(family)
    model.network.eval()
    batch = model.batch(BATCH)
    plain = model.network(**batch.inputs, use_cache=False).logits.flatten(0, 1)[batch.positions]
    expected = gradients(model, plain)
    gathered = model.score(batch)
    assert gathered.shape == (RESPONSE_TOKENS, len(model.tokenizer.backend))
    torch.testing.assert_close(gathered, plain, rtol=1e-5, atol=1e-7)
    found = gradients(model, gathered)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    assert torch.equal(model.score(BATCH), gathered)  # sequences will do as well


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_sampled_from_is_not_rounded_to_8_bits(family, weights, make_model):
    """Nor is it under autocast, or where the weights are in bfloat16."""
    model = make_model(family, initializer_range=0.3)
    model.network.eval().to(weights)
    inputs, read = model.batch(BATCH).inputs, []
    model.head.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=weights == torch.float32):
        logits = model.head(torch.randn(3, 2, model.head.in_features).to(weights))
        model.network(**inputs, use_cache=False)
    expected = read[0].bfloat16().double() @ model.head.weight.bfloat16().double().t()
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-5)
    assert len(read) == 2


# --- logits that are not formed

AFTER = {
    "llama": {},
    "t5": {},
    "gemma2": {},
    "cohere": {"model_type": "cohere", "logit_scale": 0.25},
    "granite": {"model_type": "granite", "logits_scaling": 8.0},
    "gptj": {"model_type": "gptj", "n_embd": 16, "n_layer": 1, "n_head": 2, "rotary_dim": 4, "n_positions": 64},
    "marian": {"model_type": "marian", "d_model": 16},
}
"""Families by what they do to the output layer's logits: nothing, a cap, a scale, a bias of the layer, a shift."""


@pytest.fixture
def make_after(tokenizers):
    def make(family):
        small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        coder = {f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")}
        architecture = ARCHITECTURES.get(family, small | coder | AFTER[family])
        kind = "seq2seq" if family in ("t5", "marian") else "causal"
        model = LanguageModel.from_scratch(architecture, tokenizers[kind], torch.device("cpu"), 0)
        if family == "marian":
            model.network.final_logits_bias.normal_(generator=torch.Generator().manual_seed(0))
        if family == "gptj":
            torch.nn.init.normal_(model.head.bias, std=0.5)
        model.network.eval()
        return model

    return make


@pytest.mark.parametrize("family", AFTER)
def test_a_projection_is_what_the_scores_are_made_of(family, make_after):
    model = make_after(family)
    batch = model.batch(BATCH)
    scores = model.score(batch)
    losses = torch.nn.functional.cross_entropy(scores, batch.tokens, reduction="none")
    wanted = gradients_of(model, losses.sum())
    projection = model.project(batch)
    total, found = token_losses(CrossEntropy(), projection, None, batch.tokens, BATCH)
    torch.testing.assert_close(found, losses, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients_of(model, total).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    torch.testing.assert_close(model.log_probs(batch), -losses, rtol=1e-5, atol=1e-6)
    after = model.after_head
    assert (after.scale, after.shift is not None) == (
        {"cohere": 0.25, "granite": 0.125}.get(family, 1.0),
        family == "marian",
    )
    assert after.softcap == (pytest.approx(0.05) if family == "gemma2" else None)


def test_the_probe_leaves_the_model_as_it_was(make_model):
    model = make_model("gpt2")
    model.network.train()
    state = torch.get_rng_state()
    assert model.after_head is not None
    assert model.network.training
    assert model.head.stand_in is None
    assert torch.equal(torch.get_rng_state(), state)


def test_logits_that_are_changed_in_another_way_are_formed_at_once(make_model):
    model = make_model("llama")
    model.network.eval()
    model.head.register_forward_hook(lambda module, inputs, logits: logits**3)
    batch = model.batch(BATCH)
    assert model.after_head is None
    assert model.project(batch) is None
    expected = model.score(batch).log_softmax(-1).gather(-1, batch.tokens[:, None]).squeeze(-1)
    torch.testing.assert_close(model.log_probs(batch), expected)


def test_soft_capping_and_scaling_are_kept(make_model):
    model = make_model("gemma2")
    capped = model.score(BATCH)
    model.network.config.final_logit_softcapping = None
    uncapped = model.score(BATCH)
    torch.testing.assert_close(capped, 0.05 * torch.tanh(uncapped / 0.05))
    assert uncapped.abs().max() > 0.05  # so the capping mattered

    model = make_model("t5")
    network = model.network.eval()
    assert network.get_output_embeddings().weight is network.get_input_embeddings().weight
    seen = []
    network.get_output_embeddings().register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    batch = model.batch(BATCH)
    model.score(batch)
    encoded = network.encoder(batch.inputs["input_ids"], batch.inputs["attention_mask"]).last_hidden_state
    decoded = network.decoder(
        batch.inputs["decoder_input_ids"],
        attention_mask=batch.inputs["decoder_attention_mask"],
        encoder_hidden_states=encoded,
        encoder_attention_mask=batch.inputs["attention_mask"],
    ).last_hidden_state
    read, expected = (states.flatten(0, 1)[batch.positions] for states in (seen[0], decoded * 16**-0.5))
    torch.testing.assert_close(read, expected)  # d_model ** -0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_not_rounded_under_autocast_nor_by_weights_in_bfloat16(family, make_model):
    model = make_model(family)
    model.network.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        autocast = model.score(BATCH)
    model.network.bfloat16()
    with torch.no_grad():
        weights = model.score(BATCH)
    for logits in (autocast, weights):
        assert logits.dtype == torch.float32
        rounded = logits == logits.bfloat16().float()
        assert rounded.float().mean() < 0.1


def test_gradients_under_autocast_are_those_of_float64(make_model):
    """Teacher and student close together, logits far from 0: where rounded logits bend the gradient most."""
    model = make_model("llama", tie_word_embeddings=False)
    model.network.eval()
    torch.nn.init.normal_(model.head.weight, std=5.0)
    batch, seen = model.batch(BATCH), []
    handle = model.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        student = model.score(batch)
    handle.remove()
    exact = seen[0].flatten(0, 1)[batch.positions].detach().double() @ model.head.weight.detach().double().T
    noise = torch.randn(exact.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.05
    found, wanted = student.detach().requires_grad_(), exact.requires_grad_()
    kld(found, (exact + noise).detach().float()).sum().backward()
    kld(wanted, (exact + noise).detach()).sum().backward()
    error = (found.grad.double() - wanted.grad).norm() / wanted.grad.norm()
    assert error < 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_only_response_positions_are_projected_and_the_model_stays_as_it_was(family, make_model):
    model = make_model(family)
    batch = model.batch(BATCH)
    shapes = []
    head = model.network.get_output_embeddings()
    handle = head.register_forward_hook(lambda _, inputs, output: shapes.append(output.shape))
    model.score(batch)
    model.network(**batch.inputs)
    handle.remove()
    ids = batch.inputs.get("decoder_input_ids", batch.inputs["input_ids"])
    assert shapes == [(RESPONSE_TOKENS, 300), (*ids.shape, 300)]


def test_the_model_stays_as_it_was_after_an_error(make_model):
    model = make_model("llama")
    batch = model.batch(BATCH)
    good = batch.inputs["input_ids"].clone()
    batch.inputs["input_ids"][0, 0] = 10_000
    with pytest.raises(IndexError):
        model.score(batch)
    assert model.network(input_ids=good).logits.shape == (*good.shape, 300)


# --- the wrap


def make_up(network):
    """Every module with its class and the method a call runs, and whether that is its own instead of its class's."""
    return [
        (path, id(module), type(module), module.forward.__func__, "forward" in vars(module))
        for path, module in network.named_modules()
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_module_or_method_is_exchanged_while_a_model_scores(family, make_model):
    model = make_model(family)
    before, during = make_up(model.network), []
    for module in model.network.modules():
        module.register_forward_hook(lambda module, *_: during.append((module, make_up(model.network))))
    model.score(BATCH)
    assert model.head in [module for module, _ in during]
    assert all(seen == before for _, seen in during)
    assert make_up(model.network) == before
    assert not any(own for *_, own in before)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_is_wrapped_once(family, make_model):
    model = make_model(family)
    model.network.eval()
    assert isinstance(model.head, ResponseHead)
    assert model.network.get_output_embeddings() is model.head
    again = LanguageModel(model.network, model.tokenizer, "again")
    assert again.head is model.head
    assert model.network.get_output_embeddings() is model.head
    assert torch.equal(again.score(BATCH), model.score(BATCH))


def tensors_in(folder) -> dict[str, list[int]]:
    """Shapes of the tensors in a saved model, by name."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize(
    ("family", "tied"),
    [
        *((family, True) for family in FAMILIES),
        *((family, False) for family in FAMILIES if family != "t5"),
    ],  # T5 always
)
def test_tied_embeddings_stay_tied_and_tensors_keep_their_names(family, tied, tokenizers, tmp_path):
    tokenizer = tokenizers[kind_of(family)]
    network = new_network(ARCHITECTURES[family] | {"tie_word_embeddings": tied}, tokenizer, 0)
    assert (network.get_output_embeddings().weight is network.get_input_embeddings().weight) == tied
    names, parameters = list(network.state_dict()), [(name, id(p)) for name, p in network.named_parameters()]
    network.save_pretrained(tmp_path / "plain")

    model = LanguageModel(network, tokenizer, family)
    assert list(network.state_dict()) == names
    assert [(name, id(p)) for name, p in network.named_parameters()] == parameters
    model.save(tmp_path / "wrapped")
    loaded = LanguageModel.load(str(tmp_path / "wrapped"), tokenizer, model.device)
    loaded.save(tmp_path / "again")
    plain, wrapped, again = (tensors_in(tmp_path / name) for name in ("plain", "wrapped", "again"))
    assert wrapped == plain
    assert again == plain

    for one in (model, loaded):
        embeddings = one.network.get_input_embeddings()
        assert (one.head.weight is embeddings.weight) == tied
        before = one.head.weight.detach().clone()
        with torch.no_grad():
            embeddings.weight.add_(1.0)
        assert torch.equal(one.head.weight, before + 1.0) == tied


class Adapter(torch.nn.Module):
    """What an adapter puts in the place of an output layer: the layer inside, its weight outside."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.low, self.high = torch.nn.Linear(base.in_features, 2), torch.nn.Linear(2, base.out_features)

    @property
    def weight(self):
        return self.base.weight

    def forward(self, hidden):
        return self.base(hidden) + self.high(self.low(hidden))


class Scaled(torch.nn.Linear):
    """A linear layer by its class, and not by what it does."""

    def forward(self, hidden):
        return 2.0 * super().forward(hidden)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (Adapter, r"a .*test_output_head\.Adapter"),
        (lambda layer: Scaled(layer.in_features, layer.out_features, bias=False), r"a .*test_output_head\.Scaled"),
        (lambda layer: None, "none"),
    ],
    ids=["adapter", "own-forward", "none"],
)
def test_an_output_layer_that_is_not_plainly_linear_is_refused_by_its_class(make, named, tokenizers):
    network = new_network(ARCHITECTURES["llama"], tokenizers["causal"], 0)
    layer = make(network.get_output_embeddings())
    network.set_output_embeddings(layer)
    with pytest.raises(BenchError, match=rf"^models/mine: its output layer is {named}; .*merge_and_unload"):
        LanguageModel(network, tokenizers["causal"], "models/mine")
    assert network.get_output_embeddings() is layer
