"""Checkpoints and tokenizers that others made: what they lack is refused, what they name beside it is honoured."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig

from bench.experiment.identity import model_fingerprint
from bench.models.generation import stop_ids
from bench.models.language_model import LanguageModel
from bench.models.loading import load_generation_settings, load_network, load_tokenizer
from bench.models.sampling import Decoding
from bench.models.tokenizer import TokenizerAdapter
from bench.system.errors import BenchError
from distillm import TokenSequence
from tests.tiny import CPU


@pytest.fixture
def saved(make_model, tmp_path):
    """A model's folder and its tensors."""
    make_model("llama").save(tmp_path / "model")
    return tmp_path / "model", load_file(tmp_path / "model" / "model.safetensors")


def write(folder, tensors):
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


# --- checkpoints


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_named(saved, file):
    folder, _ = saved
    (folder / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n")
    with pytest.raises(BenchError, match=rf"{file} is only a pointer of Git LFS to the file: `git lfs pull` brings it"):
        load_network(str(folder), "causal") if file.startswith("model") else load_tokenizer(str(folder))


def test_a_missing_package_is_named_for_a_folder(saved):
    folder, _ = saved
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "torchao"}}))
    with pytest.raises(BenchError, match="the package torchao is not installed: pip install torchao"):
        load_network(str(folder), "causal")


def test_a_checkpoint_without_a_layer_is_refused(saved):
    folder, tensors = saved
    write(folder, {name: tensor for name, tensor in tensors.items() if ".layers.1." not in name})
    with pytest.raises(BenchError, match=r"does not hold the weights .*missing: model\.layers\.1\..* more"):
        load_network(str(folder), "causal")


def test_a_checkpoint_with_other_names_is_refused(saved):
    folder, tensors = saved
    write(folder, {f"module.{name}": tensor for name, tensor in tensors.items()})
    with pytest.raises(BenchError, match=r"missing: .*; unexpected: module\.model\."):
        load_network(str(folder), "causal")


def test_a_checkpoint_with_more_than_the_model_needs_loads(saved):
    folder, tensors = saved
    write(folder, {**tensors, "a.buffer": torch.zeros(2)})
    loaded = load_network(str(folder), "causal").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_proj.bias",  # of a layer that is there, and would compute otherwise
        "model.norm.bias",
        "model.layers.1.self_attn.q_norm.weight",  # a layer within a layer, as Qwen3 has it
        "model.layers.0.self_attn.q_proj.lora_A.weight",  # an adapter that was not merged
    ],
)
def test_a_checkpoint_with_weights_that_its_configuration_leaves_out_is_refused(saved, name):
    folder, tensors = saved
    write(folder, {**tensors, name: torch.zeros(2)})
    with pytest.raises(BenchError, match=f"unexpected: {name}"):
        load_network(str(folder), "causal")


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.bias", "model.layers.0.self_attn.rotary_emb.inv_freq", "v_head.summary.weight"]
)
def test_buffers_and_heads_of_other_tasks_are_left_out(saved, name):
    folder, tensors = saved
    write(folder, {**tensors, name: torch.zeros(2)})
    loaded = load_network(str(folder), "causal").state_dict()
    assert loaded.keys() == load_network(str(folder), "causal").state_dict().keys()
    assert name not in loaded


def test_a_checkpoint_with_more_layers_than_its_configuration_is_refused(saved):
    folder, _ = saved
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with pytest.raises(BenchError, match=r"unexpected: model\.layers\.1\."):
        load_network(str(folder), "causal")


def test_settings_of_a_checkpoint_that_ask_for_other_outputs_are_put_aside(saved, tokenizers, make_model):
    folder, _ = saved
    config = json.loads((folder / "config.json").read_text())
    others = {"return_dict": False, "output_hidden_states": True, "output_attentions": True}
    (folder / "config.json").write_text(json.dumps(config | others))
    batch = [TokenSequence("a", (5, 6), (7, 2))]
    loaded = LanguageModel.load(str(folder), tokenizers["causal"], CPU)
    assert torch.equal(loaded.score(batch), make_model("llama").score(batch))


def test_router_logits_are_not_asked_for(tokenizers):
    """Their loss is no method's, and is taken over tokens that are not projected."""
    architecture = {
        "model_type": "mixtral",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_local_experts": 2,
        "output_router_logits": True,
    }
    model = LanguageModel.from_scratch(architecture, tokenizers["causal"], CPU, 0)
    assert model.score([TokenSequence("a", (5, 6), (7, 2)), TokenSequence("b", (5,), (2,))]).shape == (3, 300)


@pytest.mark.parametrize("unfit", [{"do_sample": False, "temperature": 0.6}, {"pad_token_id": -1}])
def test_generation_settings_that_cannot_be_saved_are_mended_at_loading(unfit, saved, tokenizers, tmp_path):
    folder, _ = saved
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | unfit))
    model = LanguageModel.load(str(folder), tokenizers["causal"], CPU)
    model.save(tmp_path / "again")
    kept = GenerationConfig.from_pretrained(tmp_path / "again")
    assert kept.eos_token_id == settings["eos_token_id"]
    assert kept.temperature in (None, 1.0)


@pytest.mark.parametrize("text", ["[1]", "null", "{", '{"num_return_sequences": 4}', '{"eos_token_id": [2, "x"]}'])
def test_generation_settings_that_would_stop_a_run_later_are_refused(text, saved):
    folder, _ = saved
    (folder / "generation_config.json").write_text(text)
    with pytest.raises(BenchError, match=r"generation_config\.json: "):
        load_generation_settings(folder)


def test_a_response_ends_at_any_eos_of_the_checkpoint(make_model):
    model = make_model("llama")
    decoding, prompts = Decoding(12), [TokenSequence(str(i), (5, 6, 7), ()) for i in range(40)]
    before = model.sample(prompts, decoding, 0)
    other = next(token for response in before for token in response[:3] if token != model.tokenizer.eos_id)
    model.network.generation_config.eos_token_id = [model.tokenizer.eos_id, other]
    assert stop_ids([model.network], model.tokenizer) == sorted([model.tokenizer.eos_id, other])
    after = model.sample(prompts, decoding, 0)
    assert any(other in response for response in before)
    for response in after:
        assert other not in response
        # training knows one EOS: the response is closed by it
        assert response[-1] == model.tokenizer.eos_id or len(response) == 12


def test_a_list_in_the_configuration_and_the_teachers_of_a_mixture_count(make_model):
    model, teacher = make_model("llama"), make_model("llama", seed=1)
    model.network.config.eos_token_id = [2, 9]
    teacher.network.generation_config.eos_token_id = [2, 11, 10**6]  # the last one no tokenizer has
    assert stop_ids([model.network], model.tokenizer) == [2, 9]
    assert stop_ids([model.network, teacher.network], model.tokenizer) == [2, 9, 11]


# --- tokenizers


@pytest.mark.parametrize("text", ["He wrote </s> in the page", "<s>", "<pad> twice <pad>", "</s></s>"])
@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_text_that_spells_a_special_token_stays_text(text, kind, tokenizers):
    tokenizer = tokenizers[kind]
    special = {tokenizer.eos_id, tokenizer.pad_id, tokenizer.backend.bos_token_id}
    response = tokenizer.response_ids(text)
    assert response[-1] == tokenizer.eos_id
    assert not special & set(response[:-1])
    assert not special & set(tokenizer.prompt_ids(text))
    assert tokenizer.text(response) == text


@pytest.mark.parametrize(
    "change",
    [
        {"eos_token": "<s>", "bos_token": "</s>"},
        {"pad_token": "</s>"},
        {"chat_template": "{{ messages[0]['content'] }}"},
    ],
    ids=["eos", "pad", "template"],
)
def test_the_fingerprint_covers_all_that_changes_ids_or_outputs(change, tokenizer_folder, tmp_path):
    folder = tmp_path / "tokenizer"
    shutil.copytree(tokenizer_folder, folder)
    first = TokenizerAdapter(load_tokenizer(str(folder)), "causal").fingerprint
    assert TokenizerAdapter(load_tokenizer(str(folder)), "causal").fingerprint == first
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | change))
    assert TokenizerAdapter(load_tokenizer(str(folder)), "causal").fingerprint != first


def test_the_fingerprint_does_not_hang_on_the_folder_or_on_use(tokenizer_folder, tmp_path):
    shutil.copytree(tokenizer_folder, tmp_path / "elsewhere")
    tokenizer, other = (
        TokenizerAdapter(load_tokenizer(str(folder)), "causal") for folder in (tokenizer_folder, tmp_path / "elsewhere")
    )
    tokenizer.prompt_ids("the cat")
    assert tokenizer.fingerprint == other.fingerprint


def test_a_models_fingerprint_covers_its_generation_settings(saved):
    folder, _ = saved
    before = model_fingerprint(str(folder))
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": [2, 5]}))
    assert model_fingerprint(str(folder)) != before
