"""Models and tokenizers by hub id: their true layouts, revisions, what is recorded, and what a failure says."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from bench.config.resolve import resolve
from bench.experiment.identity import model_fingerprint
from bench.experiment.planning.shapes import shape_of
from bench.models import loading
from bench.models.language_model import LanguageModel
from bench.models.loading import load_network, load_tokenizer
from bench.models.tokenizer import TokenizerAdapter
from bench.system.errors import BenchError
from distillm import TokenSequence
from tests.hub.conftest import offline
from tests.hub.server import Hub, commit_of

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _forgotten():
    """As in a new process."""
    loading._COMMITS.clear()
    yield
    loading._COMMITS.clear()


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
    loading._COMMITS.clear()
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
    loading._COMMITS.clear()
    if how == "down":
        fresh_hub.stop()
    else:
        offline(monkeypatch)
    assert model_fingerprint(name) == f"{name}@{commit_of('models', name, 'main')}"
    load_network(name, "causal")
    load_tokenizer(name)


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
    assert f"was not downloaded before, and {fresh_hub.url} cannot be reached now" in told(name)
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
