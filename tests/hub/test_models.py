"""Models and tokenizers by hub id: their true layouts, revisions, what is recorded, and what a failure says."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from bench.config.resolve import resolve
from bench.experiment.identity import model_fingerprint
from bench.experiment.planning.shapes import shape_of
from bench.models import loading
from bench.models.language_model import LanguageModel
from bench.models.loading import load_network, load_tokenizer
from bench.models.tokenizer import TokenizerAdapter, train_tokenizer
from bench.system import hub as bench_hub
from bench.system.errors import BenchError
from distillm import TokenSequence
from tests.hub.conftest import Impatient, forget, offline
from tests.hub.models_of import ADAPTER, BASE
from tests.hub.server import Hub, commit_of

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "kind", "tokens", "entries", "begins"),
    [
        ("openai-community/gpt2", "causal", 50257, 50257, ()),
        pytest.param("MiniLLM/teacher-gpt2-1.5B", "causal", 50257, 50257, (), marks=pytest.mark.slow),
        ("facebook/opt-350m", "causal", 50265, 50272, (2,)),
        ("openlm-research/open_llama_7b_v2", "causal", 32000, 32000, (1,)),
        ("google-t5/t5-small", "seq2seq", 32100, 32128, ()),
        ("google/t5-v1_1-small", "seq2seq", 32100, 32128, ()),
        pytest.param("google/mt5-small", "seq2seq", 250100, 250112, (), marks=pytest.mark.slow),
    ],
)
def test_each_family_is_loaded_as_it_lies_on_the_hub(hub: Hub, name, kind, tokens, entries, begins):
    tokenizer = TokenizerAdapter(load_tokenizer(name), kind)
    text = "Ann's cat, 3 dogs."
    ids = tokenizer.prompt_ids(text)
    assert tokenizer.size == tokens
    assert ids[: len(begins)] == begins
    assert tokenizer.text(ids) == text
    model = LanguageModel.load(name, tokenizer, CPU)
    assert model.head.out_features == entries
    assert all(parameter.dtype == torch.float32 for parameter in model.network.parameters())
    assert model_fingerprint(name) == f"{name}@{commit_of('models', name, 'main')}"
    assert not [line for line in hub.requests if "discussions" in line], "nobody is asked to convert weights"


@pytest.mark.parametrize(
    "name", ["google/t5-v1_1-small", "google-t5/t5-small", pytest.param("google/mt5-small", marks=pytest.mark.slow)]
)
def test_logits_are_those_of_the_checkpoint_and_of_transformers(hub: Hub, tmp_path, name):
    """T5's own output layer is its embeddings, on scaled states; that of v1.1 and mT5 is another one, unscaled."""
    tokenizer = TokenizerAdapter(load_tokenizer(name), "seq2seq")
    model = LanguageModel.load(name, tokenizer, CPU)
    sequence = TokenSequence("one", tokenizer.prompt_ids("How many cats?"), tokenizer.response_ids("Three."))
    with torch.no_grad():
        ours = model.score([sequence])
        ids = torch.tensor([sequence.response])
        reference = AutoModelForSeq2SeqLM.from_pretrained(name).eval()
        given = {"input_ids": torch.tensor([sequence.prompt]), "labels": ids}
        theirs = reference(**given, output_hidden_states=True)
    torch.testing.assert_close(ours, theirs.logits[0])
    hidden = theirs.decoder_hidden_states[-1][0]
    weights = reference.state_dict()
    if name == "google-t5/t5-small":
        expected = hidden * hidden.shape[-1] ** -0.5 @ weights["shared.weight"].T
    else:
        assert not torch.equal(weights["lm_head.weight"], weights["shared.weight"])
        expected = hidden @ weights["lm_head.weight"].T
    torch.testing.assert_close(ours, expected)
    model.save(tmp_path / "saved")
    again = LanguageModel.load(str(tmp_path / "saved"), tokenizer, CPU)
    with torch.no_grad():
        torch.testing.assert_close(again.score([sequence]), ours)


def test_a_revision_is_loaded_as_it_was(fresh_hub: Hub, monkeypatch):
    name = "openai-community/gpt2"
    first = commit_of("models", name, "main")
    assert model_fingerprint(name) == f"{name}@{first}"
    moved = fresh_hub.publish("models", name, {"README.md": "new"})
    assert model_fingerprint(name) == f"{name}@{first}", "a process stays at what it saw first"
    forget()
    assert model_fingerprint(name) == f"{name}@{moved}"
    fresh_hub.requests.clear()
    load_network(f"{name}@{first}", "causal")
    load_tokenizer(f"{name}@{first}")
    # whether there is an adapter, transformers asks of the main branch
    resolved = [line for line in fresh_hub.requests if "/resolve/" in line and "adapter_config" not in line]
    assert resolved
    assert [line for line in resolved if f"/resolve/{first}/" not in line] == []
    assert model_fingerprint(f"{name}@{first}") == f"{name}@{first}"


@pytest.mark.parametrize("how", ["HF_HUB_OFFLINE", "down"])
def test_what_was_downloaded_is_loaded_without_the_hub(fresh_hub: Hub, monkeypatch, how):
    name = "facebook/opt-125m"  # of a .bin file, and without a tokenizer.json
    load_network(name, "causal")
    load_tokenizer(name)
    forget()
    if how == "down":
        fresh_hub.stop()
    else:
        offline(monkeypatch)
    assert model_fingerprint(name) == f"{name}@{commit_of('models', name, 'main')}"
    load_network(name, "causal")
    load_tokenizer(name)


def test_a_hub_out_of_reach_is_known_within_seconds_and_for_a_while(fresh_hub: Hub, monkeypatch):
    load_network(BASE, "causal")
    forget()
    fresh_hub.stop()
    for _ in range(2):
        load_network(BASE, "causal")
        with pytest.raises(BenchError, match=r"cannot be reached now \(ConnectError"):
            load_network("facebook/opt-125m", "causal")
    assert Impatient.slept == 3
    fresh_hub.start()
    monkeypatch.setattr(bench_hub, "_TRUSTED_FOR", 0)
    load_network("facebook/opt-125m", "causal")


def test_a_hub_that_answered_is_asked_again_and_again(fresh_hub: Hub):
    load_network(BASE, "causal")
    fresh_hub.stop()
    with pytest.raises(BenchError, match="cannot be reached now"):
        load_network("facebook/opt-125m", "causal")
    assert Impatient.slept >= 20


@pytest.mark.parametrize("how", ["online", "HF_HUB_OFFLINE", "at its commit"])
def test_a_tokenizer_of_no_family_keeps_its_own_rules_as_in_a_folder(fresh_hub: Hub, tmp_path, monkeypatch, how):
    """A student of Qwen2's family with a tokenizer that was trained here, as it was pushed."""
    train_tokenizer(iter(["Ben. wrote it", "she wrote"]), 60, tmp_path)
    AutoConfig.for_model("qwen2").save_pretrained(tmp_path)
    given = TokenizerAdapter(load_tokenizer(str(tmp_path)), "causal")
    commit = fresh_hub.publish("models", "me/student", {path.name: path.read_text() for path in tmp_path.iterdir()})
    name = f"me/student@{commit}" if how == "at its commit" else "me/student"
    load_tokenizer(name)
    offline(monkeypatch, on=how == "HF_HUB_OFFLINE")
    loaded = TokenizerAdapter(load_tokenizer(name), "causal")
    assert loaded.fingerprint == given.fingerprint
    assert loaded.response_ids("Ben. wrote it 7") == given.response_ids("Ben. wrote it 7")


def folds(network) -> torch.Tensor:
    """Weights that the adapter changes."""
    return network.transformer.h[0].attn.c_attn.weight.detach().clone()


def test_an_adapter_is_loaded_at_the_commit_that_was_seen_first(fresh_hub: Hub):
    first, base = commit_of("models", ADAPTER, "main"), commit_of("models", BASE, "main")
    fingerprint = f"{ADAPTER}@{first} on {BASE}@{base}"
    old = folds(load_network(ADAPTER, "causal"))
    assert not torch.equal(old, folds(load_network(BASE, "causal")))
    fresh_hub.requests.clear()
    assert model_fingerprint(ADAPTER) == fingerprint
    assert not [line for line in fresh_hub.requests if ADAPTER in line], "its settings are asked for once"
    other = json.loads((fresh_hub.folder("models", ADAPTER, "main")[0] / "adapter_config.json").read_text())
    moved = fresh_hub.publish("models", ADAPTER, {"adapter_config.json": json.dumps(other | {"lora_alpha": 40})})
    assert model_fingerprint(ADAPTER) == fingerprint, "a process stays at what it saw first"
    assert torch.equal(folds(load_network(ADAPTER, "causal")), old)
    forget()
    new = folds(load_network(ADAPTER, "causal"))
    assert model_fingerprint(ADAPTER) == f"{ADAPTER}@{moved} on {BASE}@{base}"
    assert not torch.equal(new, old)
    assert torch.equal(folds(load_network(f"{ADAPTER}@{first}", "causal")), old)
    assert model_fingerprint(f"{ADAPTER}@{first}") == fingerprint


def test_an_adapter_that_cannot_be_had(fresh_hub: Hub, monkeypatch):
    def told(asked: str = ADAPTER) -> str:
        forget()
        with pytest.raises(BenchError) as caught:
            load_network(asked, "causal")
        assert "does not fit" not in str(caught.value)
        return str(caught.value)

    fresh_hub.gated.add(ADAPTER)
    assert f"is gated: accept its terms at {fresh_hub.url}/{ADAPTER}, then log in" in told()
    fresh_hub.gated.clear()
    assert "has no revision 'v9'" in told(f"{ADAPTER}@v9")
    fresh_hub.cut.add("adapter_model.safetensors")
    assert f"the adapter '{ADAPTER}' is no local folder, and was downloaded in part only: the connection" in told()
    fresh_hub.stop()
    assert f"{fresh_hub.url} cannot be reached now" in told()
    offline(monkeypatch)
    assert "HF_HUB_OFFLINE=1 forbids it now" in told()
    offline(monkeypatch, on=False)
    fresh_hub.cut.clear()
    fresh_hub.start()
    forget()
    whole = folds(load_network(ADAPTER, "causal"))
    fresh_hub.stop()
    forget()
    assert torch.equal(folds(load_network(ADAPTER, "causal")), whole)
    offline(monkeypatch)
    forget()
    assert torch.equal(folds(load_network(ADAPTER, "causal")), whole)


def test_a_pointer_in_the_place_of_an_adapter(fresh_hub: Hub):
    fresh_hub.publish("models", ADAPTER, {"adapter_model.safetensors": POINTER})
    with pytest.raises(BenchError, match=r"adapter_model\.safetensors is only a pointer of Git LFS"):
        load_network(ADAPTER, "causal")


NETWORK = ("reach", "network", "connect", "internet")


@pytest.mark.parametrize(
    "load", [load_tokenizer, lambda name: load_network(name, "causal")], ids=["tokenizer", "model"]
)
def test_a_failure_says_what_really_failed(fresh_hub: Hub, monkeypatch, load):
    name = "openai-community/gpt2"

    def told(asked: str) -> str:
        with pytest.raises(BenchError) as caught:
            load(asked)
        return str(caught.value)

    fresh_hub.gated.add(name)
    fresh_hub.publish("models", "someone/empty", {"README.md": "nothing"})
    for asked, expected in {
        name: f"is gated: accept its terms at {fresh_hub.url}/{name}, then log in with `hf auth login`",
        "openai-community/gpt3": f"is not on the hub ({fresh_hub.url}/openai-community/gpt3); did you mean '{name}'?",
        "facebook/opt-125m@v9": "has no revision 'v9'; ",
        "someone/empty": "someone/empty",
        "gpt2 xl": "is neither a local folder nor an id of the hub",
    }.items():
        message = told(asked)
        assert expected in message
        assert asked in message
        assert not [word for word in NETWORK if word in message]
    fresh_hub.gated.clear()
    fresh_hub.stop()
    assert f"was not downloaded before (or not all of it), and {fresh_hub.url} cannot be reached now" in told(name)
    offline(monkeypatch)
    assert "HF_HUB_OFFLINE=1" in told(name)


def test_half_a_download_is_told_and_taken_up_again(fresh_hub: Hub):
    name = "openlm-research/open_llama_3b_v2"
    fresh_hub.cut.add("pytorch_model.bin")
    with pytest.raises(BenchError, match="downloaded in part only: the connection broke off; the same command goes on"):
        load_network(name, "causal")
    fresh_hub.cut.clear()
    load_network(name, "causal")


def test_a_missing_package_is_named_and_not_the_network(hub: Hub, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(
        BenchError, match=r"needs the package sentencepiece, which is not installed: pip install"
    ) as caught:
        load_tokenizer("openlm-research/open_llama_3b_v2")
    assert not [word for word in (*NETWORK, "tiktoken") if word in str(caught.value)]


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        (
            "openlm-research/open_llama_3b_v2",
            "tokenizer.model",
            POINTER,
            "tokenizer.model is only a pointer of Git LFS",
        ),
        (
            *("openlm-research/open_llama_3b_v2", "tokenizer.model", "damaged"),
            "tokenizer.model cannot be read as a SentencePiece file: it is damaged",
        ),
        ("openai-community/gpt2", "tokenizer.json", POINTER, "tokenizer.json is only a pointer of Git LFS"),
        ("openai-community/gpt2", "model.safetensors", POINTER, "model.safetensors is only a pointer of Git LFS"),
        ("facebook/opt-125m", "pytorch_model.bin", POINTER, "pytorch_model.bin is only a pointer of Git LFS"),
    ],
)
def test_a_damaged_file_is_named(fresh_hub: Hub, name, file, text, message):
    fresh_hub.publish("models", name, {file: text})
    with pytest.raises(BenchError, match=message) as caught:
        load_network(name, "causal") if file.endswith(("safetensors", "bin")) else load_tokenizer(name)
    assert "its owner has to push" in str(caught.value) or "copy it again" in str(caught.value)
    assert "the package" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        # the error of transformers names no module
        ("gptq", "cannot be loaded with the packages that are installed here: Loading a GPTQ quantized model requires"),
        ("torchao", "needs the package torchao, which is not installed: pip install torchao"),
    ],
)
def test_what_a_quantized_model_needs_is_told_once(fresh_hub: Hub, method, message):
    name = "openai-community/gpt2"
    config = json.loads((fresh_hub.folder("models", name, "main")[0] / "config.json").read_text())
    given = {"quantization_config": {"quant_method": method, "bits": 4}}
    fresh_hub.publish("models", name, {"config.json": json.dumps(config | given)})
    with pytest.raises(BenchError, match=message) as caught:
        load_network(name, "causal")
    assert "needs the package Loading" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("google/t5-v1_1-small", True),
        ("google-t5/t5-small", False),
        pytest.param("google/mt5-small", True, marks=pytest.mark.slow),
    ],
)
def test_an_output_layer_is_planned_before_weights_are_fetched(fresh_hub: Hub, name, own):
    """Of an id whose architecture does not ship."""
    folder, _ = fresh_hub.folder("models", name, "main")
    fresh_hub.publish("models", "someone/else", {"config.json": (folder / "config.json").read_text()})
    given = ("models.kind=seq2seq", "models.teacher=someone/else", "models.student=someone/else")
    config, _ = resolve(preset="tiny", task="samsum", method="sft", assignments=given)
    planned = shape_of(config, "teacher")
    assert not [line for line in fresh_hub.requests if ".bin" in line]
    loaded = load_network(name, "seq2seq")
    assert planned.parameters == sum(weight.numel() for weight in loaded.parameters())
    assert planned.untied == own == loading.has_own_head(name, "seq2seq")


def test_parts_of_a_checkpoint_count_as_none(fresh_hub: Hub):
    name = "openlm-research/open_llama_7b_v2"
    fresh_hub.cut.add("pytorch_model-00002-of-00002.bin")
    with pytest.raises(BenchError, match="in part only"):
        load_network(name, "causal")
    assert loading.has_own_head(name, "causal")


def test_parameters_at_a_revision_are_counted_with_the_output_layers_own(hub: Hub):
    for name in ("google/t5-v1_1-small", "google/t5-v1_1-small@main"):
        loaded = sum(weight.numel() for weight in load_network(name, "seq2seq").parameters())
        assert loading.parameter_count(name, "seq2seq") == loaded
