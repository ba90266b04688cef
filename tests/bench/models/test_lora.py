"""LoRA adapters: the update that they stand for, in scores, gradients and responses, trained, saved and loaded."""

import json
import math
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.pytorch_utils import Conv1D

from bench.config.sections import LoraConfig
from bench.experiment.identity import model_fingerprint
from bench.models.batches import Batch, pad
from bench.models.captured import CapturedDecoders
from bench.models.decoding import Ending, Reader, Request, decode
from bench.models.language_model import LanguageModel
from bench.models.loading import parameter_count
from bench.models.lora import WEIGHTS, SavedAdapter, base_of, find_adapter
from bench.models.sampling import Decoding
from bench.system.errors import BenchError
from bench.system.seeding import uniform_numbers
from distillm import token_losses
from distillm.methods import SRKL
from tests import tiny

LORA = LoraConfig(rank=4, alpha=16, dropout=0.0)
FAMILIES = {  # with the layers that peft takes by default
    "llama": ("q_proj", "v_proj"),
    "gpt2": ("c_attn",),
    "opt": ("q_proj", "v_proj"),
    "t5": ("q", "v"),
}
TARGETS = {"llama": ["down_proj"], "gpt2": ["c_fc", "c_proj"], "opt": ["fc1"], "t5": "all-linear"}
STILL = {"gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}, "opt": {"dropout": 0.0}}
SEQUENCES = tiny.sequences(3, 1)


@pytest.fixture
def make_adapted(make_model, tmp_path):
    """A function that saves a random model of a family and loads it with adapters, none of them zero."""

    def make(family: str, lora: LoraConfig = LORA) -> LanguageModel:
        base = tmp_path / f"{family}-base"
        # wide weights: the outputs of narrow ones hardly depend on their input
        wide = {"initializer_range": 0.3} if family != "t5" else {"initializer_factor": 1.0}
        made = make_model(family, **wide, **STILL.get(family, {}))
        made.save(base)
        model = LanguageModel.load(str(base), made.tokenizer, tiny.CPU)
        model.add_adapter(lora, 3)
        generator = torch.Generator().manual_seed(1)
        for name, weight in model.network.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(0.0, 0.1, generator=generator)
        return model

    return make


def adapters(model: LanguageModel) -> dict[str, nn.Parameter]:
    return {name: weight for name, weight in model.network.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("default", [True, False], ids=["default", "chosen"])
def test_only_adapters_of_the_layers_are_trained(family, default, make_adapted):
    model = make_adapted(family, LORA if default else LORA.model_copy(update={"targets": TARGETS[family]}))
    layers = {name.partition(".lora_")[0].rpartition(".")[2] for name in adapters(model)}
    if default:
        assert layers == set(FAMILIES[family])
    elif family == "t5":
        assert layers == {"q", "k", "v", "o", "wi", "wo"}
    else:
        assert layers == set(TARGETS[family])
    assert all("lora_" in name for name in adapters(model))
    assert model.trained_parameters == sum(weight.numel() for weight in adapters(model).values())
    assert model.parameters == parameter_count(model.name, model.kind) + model.trained_parameters
    assert base_of(model.name) == model.name


@pytest.mark.parametrize("family", FAMILIES)
def test_new_adapters_change_nothing_and_depend_on_the_seed(family, make_adapted):
    model = make_adapted(family)
    plain = LanguageModel.load(model.name, model.tokenizer, tiny.CPU)
    seen = []
    for seed in (3, 3, 4):
        fresh = LanguageModel.load(model.name, model.tokenizer, tiny.CPU)
        fresh.add_adapter(LORA, seed)
        assert torch.allclose(fresh.score(SEQUENCES), plain.score(SEQUENCES), atol=1e-4)
        seen.append(torch.cat([weight.flatten() for weight in adapters(fresh).values()]))
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert not torch.allclose(model.score(SEQUENCES), plain.score(SEQUENCES), atol=0.02)


def by_hand(model: LanguageModel) -> tuple[LanguageModel, dict[str, Tensor], dict[str, Tensor]]:
    """The base, the names of its weights with W + alpha / r x B A in their place, and A and B with gradients."""
    base = LanguageModel.load(model.name, model.tokenizer, tiny.CPU)
    factors = {name: weight.detach().clone().requires_grad_() for name, weight in adapters(model).items()}
    modules, weights = dict(base.network.named_modules()), dict(base.network.named_parameters())
    changed = {}
    for name, a in factors.items():
        if "lora_A" in name:
            path = name.partition(".lora_A")[0]
            update = LORA.alpha / LORA.rank * factors[name.replace("lora_A", "lora_B")] @ a
            given = weights[f"{path}.weight"].detach()
            changed[f"{path}.weight"] = given + (update.T if isinstance(modules[path], Conv1D) else update)
    assert 2 * len(changed) == len(factors)
    return base, changed, factors


def logits_by_hand(base: LanguageModel, changed: dict[str, Tensor], batch: Batch) -> Tensor:
    output = torch.func.functional_call(base.network, changed, kwargs={**batch.inputs, "use_cache": False})
    return output.logits.flatten(0, -2)[batch.positions].float()


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_the_low_rank_update_written_out(family, make_adapted, make_model):
    model = make_adapted(family)
    model.network.train()
    teacher = make_model(family, "teacher")
    teacher.network.eval()
    batch = model.batch(SEQUENCES)
    with torch.no_grad():
        theirs = teacher.project(batch)
    ours = model.project(batch)
    loss, _ = token_losses(SRKL(), ours, theirs, batch.tokens, SEQUENCES, torch.full((len(batch.tokens),), 0.1))
    loss.backward()

    base, changed, factors = by_hand(model)
    logits = logits_by_hand(base, changed, batch)
    assert torch.allclose(model.score(batch), logits, atol=1e-4)
    with torch.no_grad():
        teacher_logits = teacher.score(batch)
    expected = 0.1 * SRKL().divergence(logits, teacher_logits).sum()
    expected.backward()
    assert math.isclose(float(loss.detach()), float(expected.detach()), rel_tol=1e-5)
    for name, weight in adapters(model).items():
        scale = float(factors[name].grad.abs().max())
        assert scale > 0
        assert torch.allclose(weight.grad, factors[name].grad, atol=1e-3 * scale), name
    assert all(weight.grad is None for weight in model.network.parameters() if not weight.requires_grad)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_saved_loads_as_the_same_model(family, make_adapted, tmp_path):
    model = make_adapted(family)
    scores = model.score(SEQUENCES)
    responses = model.sample(SEQUENCES, Decoding(6), "seed")
    model.save(tmp_path / "adapter")
    assert base_of(str(tmp_path / "adapter")) == model.name
    assert parameter_count(str(tmp_path / "adapter"), model.kind) == parameter_count(model.name, model.kind)
    load = (model.tokenizer, tiny.CPU)
    further = LanguageModel.load_adapted(str(tmp_path / "adapter"), *load)
    assert further.trained_parameters == model.trained_parameters
    assert torch.equal(further.score(SEQUENCES), scores)
    assert further.sample(SEQUENCES, Decoding(6), "seed") == responses
    again = tmp_path / "again"
    further.save(again)
    assert (again / WEIGHTS).read_bytes() == (tmp_path / "adapter" / WEIGHTS).read_bytes()

    model.save(tmp_path / "merged", merge=True)
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    for name in ("adapter", "merged"):
        plain = LanguageModel.load(str(tmp_path / name), *load)
        assert plain.adapted is None
        assert plain.parameters == plain.trained_parameters == parameter_count(model.name, model.kind)
        assert torch.allclose(plain.score(SEQUENCES), scores, atol=1e-4)
        assert plain.sample(SEQUENCES, Decoding(6), "seed") == responses
    auto = AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM
    batch = model.batch(SEQUENCES)
    for name in ("adapter", "merged"):  # as anybody else would load it
        logits = auto.from_pretrained(tmp_path / name).eval()(**batch.inputs).logits.flatten(0, -2)[batch.positions]
        assert torch.allclose(logits, scores, atol=1e-4)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_loop_over_fixed_buffers_reads_adapters(family, precision, make_adapted):
    model = make_adapted(family)
    ids, mask = pad([s.prompt for s in SEQUENCES], model.tokenizer.pad_id, tiny.CPU, left=family != "t5")
    numbers, ending = uniform_numbers(8, [(1, i) for i in range(len(ids))]), Ending(torch.tensor([2]))
    request = Request(ids, mask, numbers, Decoding(8, 0.7), ending)
    with torch.inference_mode(), torch.autocast("cpu", precision, enabled=precision != torch.float32):
        expected, found = (
            loop([Reader(model.network, model.start_id)], request) for loop in (decode, CapturedDecoders().decode)
        )
    cut = [row[: row.index(2) + 1] if 2 in row else row for row in found]
    same = 8 if precision == torch.float32 else 3  # until bfloat16's rounding shows
    assert [row[:same] for row in cut] == [row[:same] for row in expected]


def test_frozen_weights_in_bfloat16_have_adapters_in_float32(make_adapted, tmp_path):
    made = make_adapted("llama")
    model = LanguageModel.load(made.name, made.tokenizer, tiny.CPU, torch.bfloat16)
    model.add_adapter(LORA, 3)
    assert {weight.dtype for weight in adapters(model).values()} == {torch.float32}
    for weight in adapters(model).values():
        weight.data.normal_(0.0, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        scores = model.score(SEQUENCES)
        model.log_probs(model.batch(SEQUENCES))
        model.sample(SEQUENCES, Decoding(4), "seed")
    model.save(tmp_path / "merged", merge=True)
    plain = LanguageModel.load(str(tmp_path / "merged"), made.tokenizer, tiny.CPU)
    weights = torch.cat([weight.flatten() for weight in plain.network.state_dict().values()])
    assert not torch.equal(weights, weights.bfloat16().float())  # the update is not rounded away
    off = (plain.score(SEQUENCES) - scores).detach()
    assert float(off.abs().mean() / scores.detach().std()) < 0.03


def test_an_adapters_fingerprint_is_of_the_adapter_and_its_base(make_adapted, tmp_path):
    model = make_adapted("llama")
    model.save(tmp_path / "adapter")
    before = model_fingerprint(str(tmp_path / "adapter"))
    base = tmp_path / "llama-base"
    (base / "generation_config.json").write_text("{}")
    changed_base = model_fingerprint(str(tmp_path / "adapter"))
    assert changed_base != before
    for weight in adapters(model).values():
        weight.data += 1.0
    model.save(tmp_path / "adapter")
    assert model_fingerprint(str(tmp_path / "adapter")) not in (before, changed_base)


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (["q_prj"], "no layer of {base} is named 'q_prj'; its layers: q_proj, k_proj"),
        (["q_proj", "absent"], "is named 'absent'"),
        (["lm_head"], "an adapter cannot sit in the embeddings or the output layer"),
        (["embed_tokens"], "an adapter cannot sit in the embeddings or the output layer"),
        (["mlp"], "choose some with --set models.lora.targets"),
    ],
)
def test_targets_that_cannot_be_are_refused(targets, words, make_adapted):
    made = make_adapted("llama")
    model = LanguageModel.load(made.name, made.tokenizer, tiny.CPU)
    with pytest.raises(BenchError) as caught:
        model.add_adapter(LORA.model_copy(update={"targets": targets}), 3)
    assert words.format(base=made.name) in str(caught.value)


def rewrite(folder, **changes) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_adapters_that_do_not_fit_are_refused(make_adapted, make_model, tmp_path):
    model = make_adapted("llama")
    folder = tmp_path / "adapter"
    model.save(folder)
    make_model("llama", num_hidden_layers=3).save(tmp_path / "deeper")
    make_model("llama", hidden_size=8).save(tmp_path / "narrower")

    def refused(words: str) -> None:
        with pytest.raises(BenchError, match=words):
            LanguageModel.load(str(folder), model.tokenizer, tiny.CPU)

    for other in ("deeper", "narrower"):
        rewrite(folder, base_model_name_or_path=str(tmp_path / other))
        refused("adapter .* does not fit its base model")
    rewrite(folder, base_model_name_or_path=str(tmp_path / "absent"))
    refused("absent: there is no such folder")
    rewrite(folder, base_model_name_or_path=None)
    refused("names no base model: set base_model_name_or_path")
    rewrite(folder, base_model_name_or_path=model.name)
    (folder / "config.json").write_text("{}")
    refused("holds a whole model and an adapter")
    (folder / "config.json").unlink()
    (folder / WEIGHTS).unlink()
    refused("adapter .* does not fit its base model|cannot be loaded")


def test_an_adapter_on_the_hub_is_found_in_its_cache_and_names_its_base(make_adapted, monkeypatch, tmp_path):
    for name, value in {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": True}.items():
        monkeypatch.setattr(constants, name, value)

    def downloaded(repository: str, commit: str) -> Path:
        folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(commit)
        return folder / "snapshots" / commit

    made = make_adapted("llama")
    LanguageModel.load(made.name, made.tokenizer, tiny.CPU).save(downloaded("org/base", "a" * 40))
    model = LanguageModel.load("org/base", made.tokenizer, tiny.CPU)
    model.add_adapter(LORA, 3)
    for weight in adapters(model).values():
        weight.data.normal_(0.0, 0.1)
    model.save(downloaded("org/adapter", "b" * 40))

    for name in ("org/adapter", "org/adapter@main"):
        assert find_adapter(name) == SavedAdapter("org/base", "b" * 40)
    assert (find_adapter("org/base"), find_adapter("org/absent")) == (None, None)
    assert model_fingerprint("org/adapter") == f"org/adapter@{'b' * 40} on org/base@{'a' * 40}"
    found = LanguageModel.load("org/adapter", made.tokenizer, tiny.CPU)
    assert torch.allclose(found.score(SEQUENCES), model.score(SEQUENCES), atol=1e-5)
    assert parameter_count("org/adapter", "causal") == found.parameters
