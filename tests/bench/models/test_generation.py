"""Sampling with real tiny models: padding, seeds, EOS, the cache and the distribution sampled from."""

import pytest
import torch
from scipy import stats
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as tokenizer_models
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedTokenizerFast

from bench.models import output_head
from bench.models.sampling import Decoding
from bench.models.tokenizer import TokenizerAdapter
from distillm import TokenSequence

GREEDY = Decoding(8, temperature=0)


def asked(prompts):
    """Sequences whose prompts are to be answered, named by their place."""
    return [TokenSequence(f"example-{i}", prompt, ()) for i, prompt in enumerate(prompts)]


PROMPTS = asked([(5, 6, 7, 8, 9, 10), (11,), (12, 13, 14), (15, 16)])
# wide weights: the outputs of narrow ones hardly depend on their input
WIDE = {"gpt2": {"initializer_range": 0.5}, "llama": {"initializer_range": 0.5}, "t5": {"initializer_factor": 8.0}}


@pytest.fixture
def eight_tokens():
    """Tokenizers over eight tokens, so that frequencies can be counted and responses end by chance."""
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4, "c": 5, "d": 6, "e": 7}
    tokenizer = Tokenizer(tokenizer_models.WordLevel(vocabulary, unk_token="e"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="e"
    )
    return {kind: TokenizerAdapter(wrapped, kind) for kind in ("causal", "seq2seq")}


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_a_batch_gives_what_its_prompts_give_alone(family, make_model):
    model = make_model(family, **WIDE[family])
    together = model.sample(PROMPTS, GREEDY, 0)
    alone = [model.sample([prompt], GREEDY, 0)[0] for prompt in PROMPTS]
    assert together == alone
    assert len(set(alone)) > 1  # the prompts matter


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_greedy_tokens_are_those_of_plain_forward_passes(family, make_model):
    model = make_model(family, **WIDE[family])
    model.network.eval()
    for asked_for, response in zip(PROMPTS, model.sample(PROMPTS, GREEDY, 0), strict=True):
        prompt = asked_for.prompt
        tokens = []
        while len(tokens) < GREEDY.max_new_tokens and model.tokenizer.eos_id not in tokens:
            if family == "t5":
                decoder = torch.tensor([[model.start_id, *tokens]])
                logits = model.network(input_ids=torch.tensor([prompt]), decoder_input_ids=decoder).logits
            else:
                logits = model.network(torch.tensor([[*prompt, *tokens]])).logits
            tokens.append(int(logits[0, -1].argmax()))
        assert response == tuple(tokens)


@pytest.mark.parametrize("family", ["gpt2", "t5"])
@pytest.mark.parametrize("pad_is_eos", [False, True])
def test_responses_end_at_eos_or_at_the_limit(family, pad_is_eos, make_model, eight_tokens):
    tokenizer = eight_tokens["seq2seq" if family == "t5" else "causal"]
    if pad_is_eos:
        tokenizer.pad_id = tokenizer.eos_id
    model = make_model(family, tokenizer=tokenizer)
    responses = model.sample(asked([(3, 4)] * 64), Decoding(6), 0)
    ended = [r for r in responses if r[-1] == tokenizer.eos_id]
    cut = [r for r in responses if r[-1] != tokenizer.eos_id]
    assert ended
    assert cut
    assert all(r.count(tokenizer.eos_id) == 1 and len(r) <= 6 for r in ended)
    assert len({len(r) for r in ended}) > 1
    assert all(len(r) == 6 and tokenizer.eos_id not in r for r in cut)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_equal_seeds_give_equal_samples(family, make_model):
    model = make_model(family)
    first = model.sample(PROMPTS, Decoding(8), 3, "place")
    torch.rand(5)
    assert model.sample(PROMPTS, Decoding(8), 3, "place") == first
    assert model.sample(PROMPTS, Decoding(8), 4, "place") != first
    assert model.sample(PROMPTS, Decoding(8), 3, "elsewhere") != first
    assert model.sample(PROMPTS, GREEDY, 3) == model.sample(PROMPTS, GREEDY, 4)


@pytest.mark.parametrize(("family", "argument"), [("gpt2", "input_ids"), ("t5", "decoder_input_ids")])
def test_the_cache_is_used(family, argument, make_model):
    model = make_model(family)
    model.network.config.use_cache = model.network.generation_config.use_cache = False  # as a checkpoint may have it
    widths = []

    def record(_, args, kwargs):
        widths.append(kwargs[argument].shape[1])

    model.network.register_forward_pre_hook(record, with_kwargs=True)
    model.sample(PROMPTS, Decoding(5), 0)
    assert len(widths) == 5
    assert widths[1:] == [1] * 4


class Casts(TorchDispatchMode):
    """Shapes and precisions that tensors are cast to."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.dtype != getattr(args[0], "dtype", made.dtype):
            self.made.append((tuple(made.shape), made.dtype))
        return made


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("beams", [1, 2])
def test_the_output_layer_is_cast_once_a_call(weights, beams, make_model, monkeypatch):
    """Under autocast not at every token; and it is never brought to float32 whole."""
    monkeypatch.setattr(output_head, "_SLICE", 16)
    model = make_model("llama", tie_word_embeddings=False)
    model.network.to(weights)
    whole, decoding = tuple(model.head.weight.shape), Decoding(6, beams=beams)

    def sampled():
        with torch.autocast("cpu", torch.bfloat16, enabled=weights == torch.float32), Casts() as casts:
            responses = model.sample(PROMPTS, decoding, 0)
        assert casts.made.count((whole, torch.bfloat16)) == (weights == torch.float32)
        assert (whole, torch.float32) not in casts.made
        return responses

    before = sampled()
    with torch.no_grad():
        model.head.weight.mul_(-1.0)
    assert sampled() != before
    assert model.head.casts is None


@pytest.mark.parametrize("family", ["gpt2", "t5"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    "defaults",
    [
        {"temperature": 0.01, "top_k": 1, "top_p": 0.1, "do_sample": True},
        {"no_repeat_ngram_size": 1},
        {"repetition_penalty": 5.0},
        {"num_beams": 3},
        {"min_new_tokens": 8},
        {"min_p": 0.9},
        {"suppress_tokens": [3, 4]},
    ],
)
def test_defaults_of_the_checkpoint_do_not_leak_in(family, temperature, defaults, make_model, eight_tokens):
    tokenizer = eight_tokens["seq2seq" if family == "t5" else "causal"]
    model = make_model(family, tokenizer=tokenizer, **WIDE[family])
    decoding = Decoding(8, temperature=temperature)
    prompts = asked([(3, 4), (5,), (6, 7), (7,)] * 4)
    expected = model.sample(prompts, decoding, 1)
    for name, value in defaults.items():
        setattr(model.network.generation_config, name, value)
    own = model.network.generation_config
    assert model.sample(prompts, decoding, 1) == expected
    assert model.network.generation_config is own
    assert all(getattr(own, name) == value for name, value in defaults.items())


@pytest.mark.parametrize("training", [True, False])
def test_the_model_samples_in_eval_mode_and_goes_back(training, make_model):
    model = make_model("gpt2")  # it has dropout
    model.network.train(training)
    modes = []
    model.network.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    model.sample(PROMPTS, Decoding(2), 0)
    assert modes == [False, False]
    assert model.network.training is training
    with pytest.raises(IndexError):
        model.sample(asked([(10_000,)]), Decoding(2), 0)
    assert model.network.training is training
    assert all(p.requires_grad for p in model.network.parameters())


@pytest.mark.parametrize("family", ["gpt2", "t5"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_are_those_of_the_softmax(family, temperature, make_model, eight_tokens):
    tokenizer = eight_tokens["seq2seq" if family == "t5" else "causal"]
    model = make_model(family, tokenizer=tokenizer, initializer_range=0.15)
    model.network.eval()
    prompt = (3, 5, 4)
    with torch.no_grad():
        start = {"decoder_input_ids": torch.tensor([[model.start_id]])} if family == "t5" else {}
        logits = model.network(input_ids=torch.tensor([prompt]), **start).logits[0, -1]
    draws = 6000
    responses = model.sample(asked([prompt] * draws), Decoding(1, temperature=temperature), 0)
    counts = torch.bincount(torch.tensor([r[0] for r in responses]), minlength=8)
    expected = (logits.double() / temperature).softmax(0) * draws
    assert stats.chisquare(counts.numpy(), expected.numpy()).pvalue > 1e-3
    other = (logits.double() / temperature * 1.5).softmax(0) * draws  # the test can tell
    assert stats.chisquare(counts.numpy(), other.numpy()).pvalue < 1e-3


def test_top_k_and_top_p_restrict(make_model, eight_tokens):
    tokenizer = eight_tokens["causal"]
    model = make_model("gpt2", tokenizer=tokenizer, initializer_range=0.15)
    model.network.eval()
    with torch.no_grad():
        probabilities = model.network(torch.tensor([[3, 5]])).logits[0, -1].softmax(0)
    ranked = probabilities.argsort(descending=True)
    seen = {r[0] for r in model.sample(asked([(3, 5)] * 500), Decoding(1, top_k=2), 0)}
    assert seen == set(ranked[:2].tolist())
    three = float(probabilities[ranked[:3]].sum()) - 1e-4
    seen = {r[0] for r in model.sample(asked([(3, 5)] * 500), Decoding(1, top_p=three), 0)}
    assert seen == set(ranked[:3].tolist())
    assert len({r[0] for r in model.sample(asked([(3, 5)] * 500), Decoding(1), 0)}) == 8


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_repeated_ngrams_are_forbidden_on_demand(family, make_model):
    model = make_model(family)
    for forbidden in (0, 1):
        decoding = Decoding(60 if family == "t5" else 40, no_repeat_ngram=forbidden)
        responses = model.sample(asked([(5, 6, 7)] * 8), decoding, 1)
        repeats = any(len(set(response)) < len(response) for response in responses)
        assert repeats == (forbidden == 0)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_beam_search_does_not_depend_on_the_seed(family, make_model):
    model = make_model(family)
    prompts = asked([(5, 6, 7), (9,)])
    beams = [model.sample(prompts, Decoding(8, beams=3), seed) for seed in (1, 2)]
    sampled = [model.sample(prompts, Decoding(8), seed) for seed in (1, 2)]
    assert beams[0] == beams[1]
    assert sampled[0] != sampled[1]
