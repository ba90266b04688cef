"""The decode loop against `generate`, plain forward passes and the exact distribution, for every family it is for."""

import math

import pytest
import torch
from scipy import stats
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import GenerationConfig

from bench.models import cache, captured, decoding, fixed_buffers
from bench.models.batches import pad
from bench.models.captured import CAPTURED_FAMILIES, CapturedDecoders
from bench.models.decoding import Ending, NonFiniteLogits, Reader, Request, decode, still_running
from bench.models.generation import engine_of
from bench.models.sampling import Decoding, draw, forbid_repeats
from bench.system.cuda_graphs import NotCaptured
from bench.system.seeding import uniform_numbers
from distillm import TokenSequence
from tests.families import CAUSAL, GENERATE, SEQ2SEQ, VOCABULARY, make_family

CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
PROMPTS = [tuple(torch.randint(3, VOCABULARY, (n,), generator=torch.manual_seed(1)).tolist()) for n in (7, 1, 4, 12, 3)]
STOPS = [5, 6, 7, 8, 9, 10, 11]  # several, so that rows end at different times
NEW = 16


def inputs(family, device=CPU):
    network = make_family(family).to(device)
    ids, mask = pad(PROMPTS, 0, device, left=family not in SEQ2SEQ)
    return network, ids, mask, 0 if family in SEQ2SEQ else None


def until_stop(row):
    return next((row[: i + 1] for i, token in enumerate(row) if token in STOPS), row)


@pytest.mark.parametrize("family", [*CAUSAL, *SEQ2SEQ])
def test_greedy_text_is_that_of_generate(family):
    network, ids, mask, start = inputs(family)
    assert engine_of(network.config) == "decode loop"
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=NEW, eos_token_id=STOPS, pad_token_id=0, decoder_start_token_id=start
    )
    output = network.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
    expected = [until_stop(row) for row in output[:, ids.shape[1] if start is None else 1 :].tolist()]
    numbers = torch.zeros(2 * len(ids), NEW, dtype=torch.float64)
    ending, greedy = Ending(torch.tensor(STOPS)), Decoding(NEW, temperature=0)
    with torch.inference_mode():
        found = decode([Reader(network, start)], Request(ids, mask, numbers, greedy, ending))
    assert found == [row for row in expected for _ in range(2)]
    assert len(set(map(tuple, expected))) > 1  # the prompts matter


@pytest.mark.parametrize("family", [*CAUSAL, *SEQ2SEQ])
def test_prompts_read_in_parts_of_like_length_get_the_same_responses(family, monkeypatch):
    network, ids, mask, start = inputs(family)
    numbers = uniform_numbers(NEW, [(1, i) for i in range(2 * len(ids))])
    part_of, read = network if start is None else network.get_encoder(), []
    part_of.register_forward_pre_hook(lambda _, args, kwargs: read.append(kwargs["input_ids"].shape), with_kwargs=True)
    found = []
    for worth in (decoding._WORTH_SPLITTING, 1):
        monkeypatch.setattr(decoding, "_WORTH_SPLITTING", worth)
        with torch.inference_mode():
            reader, ending = Reader(network, start), Ending(torch.tensor(STOPS))
            found.append(decode([reader], Request(ids, mask, numbers, Decoding(NEW, no_repeat_ngram=2), ending)))
    assert found[1] == found[0]
    assert read[0] == (5, 12)
    assert {tuple(shape) for shape in read} >= {(1, 12), (1, 7), (1, 4), (1, 3), (1, 1)}


def test_prompts_are_parted_where_that_saves_much():
    parts = decoding._alike([30, 200, 10, 190, 20], 10**8)
    assert parts == [[1, 3], [0, 4, 2]]
    assert decoding._alike([30, 200, 10, 190, 20], 10**5) == [[1, 3, 0, 4, 2]]


def check_captured(family, device):
    """The loop over fixed buffers gives what the plain loop gives: when buffers are new, and when they are used."""
    network, ids, mask, start = inputs(family, device)
    numbers = uniform_numbers(NEW, [(1, i) for i in range(3 * len(ids))]).to(device)
    ending, graphs = Ending(torch.tensor(STOPS, device=device)), CapturedDecoders()
    with torch.inference_mode():
        for decoding in (Decoding(NEW), Decoding(NEW, 0.7, 0.9, 20, no_repeat_ngram=2)):
            expected = decode([Reader(network, start)], Request(ids, mask, numbers, decoding, ending))
            for _ in range(2):
                found = graphs.decode([Reader(network, start)], Request(ids, mask, numbers, decoding, ending))
                assert [until_stop(row) for row in found] == expected
    assert len(set(map(tuple, expected))) > 1


@pytest.mark.parametrize("family", sorted(CAPTURED_FAMILIES | {"t5v1.1"}))
def test_fixed_buffers_change_nothing(family, monkeypatch):
    monkeypatch.setattr(captured, "_FEWEST_ROWS", 1)
    monkeypatch.setattr(captured, "_LENGTH_BUCKET", 16)
    monkeypatch.setattr(captured, "_STEPS_BETWEEN_CHECKS", 3)
    check_captured(family, CPU)


@pytest.mark.parametrize("family", sorted(CAPTURED_FAMILIES | {"t5v1.1"}))
def test_a_captured_step_looks_at_no_value(family):
    """Else it would wait for the device, which a capture does not allow: tensors without contents are enough for it."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        network, ids = make_family(family), torch.ones(5, 12, dtype=torch.long)
        readers, ending = [Reader(network, 0 if family in SEQ2SEQ else None)], Ending(torch.tensor([1]))
        numbers = torch.zeros(5, NEW, dtype=torch.float64)
        request = Request(ids, torch.ones_like(ids), numbers, Decoding(NEW), ending)
        readers[0].prefill(request.ids, request.mask)
        decoder, size = CapturedDecoders().decoder(readers, request)
        decoder.fill(readers, request)
        decoder.step(size)
    assert size in decoder.steps


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("family", sorted(CAPTURED_FAMILIES | {"t5v1.1"}))
def test_graphs_change_nothing(family, monkeypatch):
    monkeypatch.setattr(captured, "_FEWEST_ROWS", 1)
    check_captured(family, torch.device("cuda"))


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_prompts_of_another_width_use_the_same_buffers(family):
    network, _, _, start = inputs(family)
    ending, graphs = Ending(torch.tensor(STOPS)), CapturedDecoders()
    for prompts in (PROMPTS, [*PROMPTS[1:3], PROMPTS[4], (3,), (9, 9)], [prompt * 2 for prompt in PROMPTS]):
        ids, mask = pad(prompts, 0, CPU, left=start is None)
        numbers = uniform_numbers(NEW, [(2, i) for i in range(len(ids))])
        with torch.inference_mode():
            expected = decode([Reader(network, start)], Request(ids, mask, numbers, Decoding(NEW), ending))
            found = graphs.decode([Reader(network, start)], Request(ids, mask, numbers, Decoding(NEW), ending))
        assert [until_stop(row) for row in found] == expected
    assert len(graphs.made) == 1


class Counted(CapturedDecoders):
    """Samples with fixed buffers on a CPU, and tells in `buffers` how often buffers were made."""

    def __init__(self):
        super().__init__()
        self.buffers = []

    def sample(self, family, network, prompts, ending=STOPS, temperature=1.0):
        start = 0 if family in SEQ2SEQ else None
        ids, mask = pad(prompts, 0, CPU, left=start is None)
        numbers, decoding = uniform_numbers(NEW, [(2, i) for i in range(len(ids))]), Decoding(NEW, temperature)
        with torch.inference_mode():
            request = Request(ids, mask, numbers, decoding, Ending(torch.tensor(ending)))
            made = self.decode([Reader(network, start)], request)
        (decoder, *_) = reversed(self.made.values())
        if not any(decoder is one for one in self.buffers):
            self.buffers.append(decoder)
        return made


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_batches_of_many_widths_share_buffers_and_steps(family, monkeypatch):
    """As dialogues come in training: their widths lie in several buckets, in any order, and a last batch is small."""
    monkeypatch.setattr(captured, "_LENGTH_BUCKET", 16)
    monkeypatch.setattr(captured, "_FEWEST_ROWS", 1)
    network, graphs, steps = make_family(family), Counted(), []
    widths = torch.distributions.LogNormal(2.7, 0.5)
    torch.manual_seed(0)
    rounds = 40
    for at in range(rounds):
        rows = 3 if at % 10 == 9 else 8
        prompts = [(5,) * int(width) for width in widths.sample((rows,)).clamp(1, 64)]
        graphs.sample(family, network, prompts, ending=[1])
        steps.append(len(graphs.buffers[-1].steps))
    assert len(graphs.made) == 1
    assert len(graphs.buffers) <= 4  # they grow to the greatest width and stay
    captures = sum(len(one.steps) for one in graphs.buffers)
    assert captures <= 16  # sizes, that is, of which a batch of 16 new tokens has at least one each
    assert steps[-1] == steps[rounds // 2]  # the second half finds every step made


def test_buffers_are_kept_up_to_a_number_of_bytes(monkeypatch):
    network, graphs = make_family("llama"), Counted()
    for temperature in (0.5, 0.7, 0.9, 0.5):
        graphs.sample("llama", network, PROMPTS, temperature=temperature)
    assert len(graphs.buffers) == len(graphs.made) == 3
    monkeypatch.setattr(captured, "MOST_BYTES", 2 * graphs.buffers[0].bytes)
    for temperature in (0.7, 0.5, 0.3):
        graphs.sample("llama", network, PROMPTS, temperature=temperature)
    assert [kind.decoding.temperature for kind in graphs.made] == [0.5, 0.3]
    graphs.shrink()
    assert len(graphs.made) == 2
    monkeypatch.setattr(captured, "MOST_BYTES", 2 * graphs.buffers[0].bytes - 1)
    graphs.shrink()
    assert len(graphs.made) == 1
    monkeypatch.setattr(captured, "MOST_BYTES", 0)
    graphs.sample("llama", network, PROMPTS, temperature=0.1)
    assert [kind.decoding.temperature for kind in graphs.made] == [0.1]


def test_weights_are_copied_once_in_the_precision_of_autocast(monkeypatch):
    network, graphs = make_family("llama"), Counted()
    with torch.autocast("cpu", torch.bfloat16):
        first = [graphs.sample("llama", network, PROMPTS, temperature=t) for t in (0.7, 1.0)]
        copies = [reader.weights for one in graphs.buffers for reader in one.readers]
        assert len(copies) == 2
        assert copies[0] is copies[1]
        assert {one.dtype for one in copies[0].values()} == {torch.bfloat16}
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(-1.0)
        assert [graphs.sample("llama", network, PROMPTS, temperature=t) for t in (0.7, 1.0)] != first
    graphs.shrink()  # all that there is takes little
    assert graphs.weights
    monkeypatch.setattr(captured, "MOST_BYTES", 0)
    graphs.shrink()
    assert not graphs.made
    assert not graphs.weights


@pytest.mark.parametrize("family", [*CAUSAL, *SEQ2SEQ])
def test_keys_lie_in_the_precision_of_autocast(family, monkeypatch):
    """They are attended to in it anyway: responses are those with keys as the layers give them."""
    network, ids, mask, start = inputs(family)
    numbers, ending = uniform_numbers(NEW, [(1, i) for i in range(len(ids))]), Ending(torch.tensor(STOPS))
    seen = []
    begun = cache.RoomyLayer.spread

    def spread(self, *given):
        begun(self, *given)
        seen.append(self.keys.dtype)

    monkeypatch.setattr(cache.RoomyLayer, "spread", spread)

    def responses():
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            plain = decode([Reader(network, start)], Request(ids, mask, numbers, Decoding(NEW), ending))
            if not captured.is_captured(network.config):
                return [plain]
            graphs = CapturedDecoders()
            fixed = graphs.decode([Reader(network, start)], Request(ids, mask, numbers, Decoding(NEW), ending))
            (decoder,) = graphs.made.values()
            seen.extend(one.dtype for pair in decoder.readers[0].growing for one in pair)
            return [plain, [until_stop(row) for row in fixed]]

    found = responses()
    assert set(seen) == {torch.bfloat16}
    for module in (cache, fixed_buffers):
        monkeypatch.setattr(module, "attended_in", lambda keys: keys.dtype)
    assert responses() == found


def test_what_is_not_finite_does_not_stay_in_buffers():
    """Of long prompts, where shorter ones do not write over it."""
    network, graphs = make_family("llama"), Counted()
    expected = graphs.sample("llama", network, PROMPTS)
    sound = network.model.embed_tokens.weight[9].clone()
    with torch.no_grad():
        network.model.embed_tokens.weight[9] = torch.nan
    with pytest.raises(NonFiniteLogits):
        graphs.sample("llama", network, [(9,) * 40 for _ in PROMPTS])
    with torch.no_grad():
        network.model.embed_tokens.weight[9] = sound
    assert graphs.sample("llama", network, PROMPTS) == expected


@pytest.mark.gpu
@needs_cuda
def test_graphs_follow_the_weights(make_model):
    """Under autocast the weights of matrix products are cast once a call: training in between must show."""
    model = make_model("gpt2", device=torch.device("cuda"), initializer_range=0.3)
    asked = [TokenSequence(str(i), (5, 6, 7), ()) for i in range(8)]
    with torch.autocast("cuda", torch.bfloat16):
        before = model.sample(asked, Decoding(12), 0)
        assert model.sample(asked, Decoding(12), 0) == before
        with torch.no_grad():
            for parameter in model.network.parameters():
                parameter.mul_(-1.0)
        assert model.sample(asked, Decoding(12), 0) != before


def test_a_mixture_is_read_with_the_teachers_own_cache():
    student, ids, mask, start = inputs("gpt2")
    teacher = make_family("llama")
    numbers = uniform_numbers(NEW, [(1, i) for i in range(len(ids))])
    request = Request(ids, mask, numbers, Decoding(NEW), Ending(torch.tensor(STOPS)), teacher_mix=0.4)
    with torch.inference_mode():
        found, fixed = (
            loop([Reader(student, start), Reader(teacher, start)], request)
            for loop in (decode, CapturedDecoders().decode)
        )
        assert [until_stop(row) for row in fixed] == found
        for prompt, row, response in zip(PROMPTS, numbers, found, strict=True):
            for position, token in enumerate(response):
                so_far = torch.tensor([[*prompt, *response[:position]]])
                q, p = (model(so_far).logits[0, -1].double().softmax(-1) for model in (student, teacher))
                below = (0.6 * q + 0.4 * p).cumsum(-1)
                assert below[token] - 1e-5 >= row[position] - 2e-5
                assert (below[token - 1] if token else 0.0) <= row[position] + 2e-5


@pytest.mark.parametrize("family", list(GENERATE))
def test_what_keeps_more_than_keys_and_values_has_generate(family, make_model):
    assert engine_of(make_family(family).config) == "transformers generate"


def test_families_with_generate_are_sampled_from_alike(make_model, monkeypatch):
    """The same random numbers choose the same tokens, whichever engine runs; mixtures and lengths included."""
    asked = [TokenSequence(str(i), prompt, ()) for i, prompt in enumerate(PROMPTS)]
    model, teacher = make_model("gpt2", initializer_range=0.3), make_model("llama", seed=1, initializer_range=0.3)
    settings = (
        (Decoding(8), {}),
        (Decoding(8), {"mixture": teacher.mixture(0.5)}),
        (Decoding(8), {"lengths": [3, 1, 8, 5, 2]}),
        (Decoding(16, 0.3, no_repeat_ngram=1), {}),
        (Decoding(16, 0.3, no_repeat_ngram=1), {"mixture": teacher.mixture(0.5)}),
    )
    ours = [model.sample(asked, decoding, 0, **one) for decoding, one in settings]
    monkeypatch.setattr("bench.models.generation.engine_of", lambda config: "transformers generate")
    assert [model.sample(asked, decoding, 0, **one) for decoding, one in settings] == ours
    assert [len(response) for response in ours[2]] == [3, 1, 8, 5, 2]
    assert len({str(one) for one in ours}) == len(settings)


def test_a_capture_that_fails_costs_time_and_nothing_else(make_model, monkeypatch):
    asked = [TokenSequence(str(i), prompt, ()) for i, prompt in enumerate(PROMPTS)]
    model = make_model("gpt2", initializer_range=0.3)
    expected, tried, notes = model.sample(asked, Decoding(8), 0), [], []
    assert model.graphs.ways == {"plain steps"}
    model.tell_of_graphs(notes.append)

    def fail(self, size):
        tried.append(size)
        raise NotCaptured("operation failed\nat some line")

    monkeypatch.setattr("bench.models.generation.can_capture", lambda networks: True)
    monkeypatch.setattr("bench.models.captured.CapturedDecoder.step", fail)
    assert [model.sample(asked, Decoding(8), 0) for _ in range(2)] == [expected, expected]
    assert len(tried) == 1
    assert not model.graphs.made
    assert notes == [
        f"{model.name}: its decoding steps are not captured as CUDA graphs, and take longer: operation failed"
    ]
    assert model.graphs.ways == {"plain steps"}


def test_the_way_of_decoding_is_told(make_model, monkeypatch):
    asked = [TokenSequence(str(i), prompt, ()) for i, prompt in enumerate(PROMPTS)]
    model = make_model("gpt2", initializer_range=0.3)
    monkeypatch.setattr("bench.models.generation.can_capture", lambda networks: True)
    model.sample(asked, Decoding(8), 0)
    assert model.graphs.ways == {"captured steps"}
    model.sample(asked, Decoding(8, beams=2), 0)
    assert model.graphs.ways == {"captured steps", "transformers generate"}


@pytest.mark.parametrize("vocabulary", [8, 256, 1000, 50_257])
def test_tokens_are_drawn_from_the_exact_distribution(vocabulary):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(1, vocabulary, generator=generator)
    logits[:, ::7] = -torch.inf
    count = 40_000
    uniform = uniform_numbers(1, [(0, i) for i in range(count)])
    tokens = torch.cat([draw(logits.expand(len(part), -1), part)[0] for part in uniform.split(400)])
    p = logits[0].double().softmax(-1)
    assert (p[tokens] > 0).all()
    order = p.argsort(descending=True)
    groups = (p[order].cumsum(0) * 30).long().clamp(max=29)  # some thirty groups of like probability
    group_of = torch.empty(vocabulary, dtype=torch.long).scatter_(0, order, groups)
    seen = torch.bincount(group_of[tokens], minlength=30).double()
    expected = torch.zeros(30, dtype=torch.float64).scatter_add_(0, group_of, p) * count
    kept = expected > 5
    assert (
        stats.chisquare(seen[kept].numpy(), (expected[kept] / expected[kept].sum() * seen[kept].sum()).numpy()).pvalue
        > 1e-3
    )
    # by hand: the first token whose cumulative probability is above the number
    below = p.cumsum(0)
    for number, token in zip(uniform[:200, 0], tokens[:200], strict=True):
        assert below[token] > number - 1e-6
        assert below[token] - p[token] < number + 1e-6


def test_the_ends_of_the_unit_interval_give_tokens_that_can_be_drawn():
    logits = torch.full((2, 600), -torch.inf)
    logits[:, [3, 290, 520]] = torch.tensor([0.0, -30.0, -60.0])
    uniform = torch.tensor([[0.0], [1.0 - 2.0**-53]], dtype=torch.float64)
    tokens, sound = draw(logits, uniform)
    assert tokens[0] == 3
    assert tokens[1] in (3, 290, 520)
    assert sound.all()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_repeats_are_forbidden_as_a_list_of_ngrams_says(size):
    rows = [[-1, -1, 4, 5, 4, 5, 6, 4], [1, 1, 1, 1, 1, 1, 1, 1], [-1, 2, 3, 2, 3, 2, 2, 3]]
    history = torch.tensor([[*row, -1, -1] for row in rows])
    found = forbid_repeats(torch.zeros(3, 8), history, torch.tensor(8), size)
    for row, logits in zip(rows, found, strict=True):
        real = [token for token in row if token >= 0]
        grams = {tuple(real[i : i + size]) for i in range(len(real) - size + 1)}
        tail = real[len(real) - size + 1 :]
        assert [bool(x == -math.inf) for x in logits] == [(*tail, token) in grams for token in range(8)]


def test_rows_that_go_on_stay_or_fill_gaps():
    assert still_running(torch.tensor([True, False, True, False, True, True])).tolist() == [0, 4, 2, 5]
    assert still_running(torch.tensor([True, True])).tolist() == [0, 1]


@pytest.mark.parametrize("loop", ["plain", "fixed"])
def test_logits_that_are_no_distribution_are_refused(loop):
    network, ids, mask, start = inputs("gpt2")
    with torch.no_grad():
        network.transformer.ln_f.weight.fill_(torch.nan)
    run = decode if loop == "plain" else CapturedDecoders().decode
    numbers = torch.zeros(len(ids), NEW, dtype=torch.float64)
    with pytest.raises(NonFiniteLogits), torch.inference_mode():
        run([Reader(network, start)], Request(ids, mask, numbers, Decoding(NEW), Ending(torch.tensor(STOPS))))


def test_ended_rows_are_no_longer_computed():
    network, ids, mask, start = inputs("llama")
    rows = []
    network.register_forward_pre_hook(lambda _, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True)
    numbers = torch.zeros(len(ids), NEW, dtype=torch.float64)
    lengths = torch.tensor([2, 9, 4, 2, 6])
    with torch.inference_mode():
        ending = Ending(torch.tensor([5]), lengths)
        decode([Reader(network, start)], Request(ids, mask, numbers, Decoding(NEW), ending))
    # the prompts, then at each position the rows that go on after it
    assert rows == [5, 5, 3, 3, 2, 2, 1, 1, 1]
