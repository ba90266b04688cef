"""Layers left out of a model: what stays computes as before, and saves and loads as a model of that depth."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from bench.models.cut import check_layers, keep_layers, kept_layers
from bench.system.errors import BenchError
from tests.tiny import ARCHITECTURES

DEEP = {
    "llama": {"num_hidden_layers": 6},
    "gpt2": {"n_layer": 6},
    "gemma2": {"num_hidden_layers": 6},
    "t5": {"num_layers": 6, "num_decoder_layers": 4},
}


@pytest.mark.parametrize(
    ("depth", "layers", "kept"),
    [(30, 3, list(range(0, 30, 3))), (5, 2, [0, 2, 4]), (4, 1, [0, 1, 2, 3]), (4, [1, 3], [1, 3])],
)
def test_which_layers_stay(depth, layers, kept):
    assert kept_layers(depth, layers) == kept


@pytest.mark.parametrize("layers", [0, [], [0, 4], [-1], [1, 1], [2, 1]])
def test_layers_that_are_not_there_are_refused(layers):
    with pytest.raises(BenchError, match="student_layers"):
        kept_layers(4, layers)


def test_the_layer_with_t5s_relative_positions_stays():
    config = AutoConfig.for_model("t5", num_layers=4)
    check_layers(config, [0, 2])
    with pytest.raises(BenchError, match="begin with 0"):
        check_layers(config, [1, 3])


@pytest.mark.parametrize("family", DEEP)
def test_a_cut_model_is_the_rest_of_it(family, tmp_path):
    given = {**ARCHITECTURES[family], **DEEP[family], "vocab_size": 40}
    config = AutoConfig.for_model(given.pop("model_type"), **given)
    auto = AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM
    torch.manual_seed(0)
    network = auto.from_config(config).eval()
    before = sum(p.numel() for p in network.parameters())
    keep_layers(network, 2)
    ids = torch.tensor([[3, 4, 5, 6, 7]])
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if family == "t5" else {})
    with torch.no_grad():
        logits = network(**inputs).logits
        # keys and values of the layers that stay are found again
        how = {"pad_token_id": 0} | ({"decoder_start_token_id": 0} if family == "t5" else {})
        made = network.generate(ids, max_new_tokens=4, do_sample=False, **how)
        uncached = network.generate(ids, max_new_tokens=4, do_sample=False, **how, use_cache=False)
    assert torch.equal(made, uncached)
    network.save_pretrained(tmp_path)
    again, found = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    with torch.no_grad():
        assert torch.equal(again.eval()(**inputs).logits, logits)
    assert sum(p.numel() for p in again.parameters()) < before
    depths = {name: getattr(again.config, name) for name in DEEP[family]}
    assert depths == {name: (depth + 1) // 2 for name, depth in DEEP[family].items()}
