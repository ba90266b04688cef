"""Options and fidelity switches reach the run: each alone, on data of a few lines and models made here."""

import json
import random
from dataclasses import replace

import pytest
from rich.console import Console
from tokenizers.processors import TemplateProcessing

from bench.config.fidelity import NO_REPEAT_NGRAM, Fidelity
from bench.config.resolve import resolve
from bench.experiment import stages
from bench.experiment.context import RunContext, prepare
from bench.experiment.pair import load
from bench.experiment.run import STAGES, make
from bench.experiment.run import run as run_of
from bench.experiment.workshop import Workshop
from bench.models.loading import load_tokenizer
from bench.models.sampling import Decoding
from bench.record.record import RunRecord
from bench.record.store import Store
from bench.synthetic import plain_text
from bench.system.artifacts import ArtifactCache
from bench.system.progress import Reporter
from bench.training.auxiliary_loss import LanguageModelling
from bench.training.phase_timer import PHASES
from distillm import OutputSource, SourceOptions

WORDS = ["cat", "dog", "sat", "mat", "road", "land", "north", "long", "short", "text"]
ARCHITECTURE = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}
SETTINGS = {
    "models.teacher_config": ARCHITECTURE | {"num_hidden_layers": 2},
    "models.student_config": ARCHITECTURE,
    "data.max_response_length": 6,
    # a student that has learnt to answer briefly: its responses end
    "init_training": {"steps": 30, "batch_size": 8, "learning_rate": 0.02, "validations": 1},
    "teacher_training": {"steps": 10, "batch_size": 8, "learning_rate": 0.02, "validations": 1},
    "training": {"steps": 1, "batch_size": 8, "warmup_steps": 0, "validations": 1, "select_by": "loss"},
    "evaluation.seeds": [10],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer_folder):
    """Data, a tokenizer with BOS before prompts and EOS for padding (as Llama and OPT), and a cache for all runs."""
    root, rng = tmp_path_factory.mktemp("world"), random.Random(0)
    (root / "data").mkdir()
    for split, size in (("train", 16), ("validation", 4), ("test", 4)):
        rows = [
            {"id": f"{split}-{i}", "dialogue": " ".join(rng.choices(WORDS, k=5)), "summary": rng.choice("abcd")}
            for i in range(size)
        ]
        (root / "data" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = load_tokenizer(str(tokenizer_folder))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(root / "tokenizer")
    (root / "text.txt").write_text("\n".join(plain_text.generate(6)))
    return root


def workshop_in(world) -> Workshop:
    """With the cache of all runs here, and a reporter of one run's own."""
    reporter = Reporter(Console(stderr=True), quiet=True)
    return Workshop(ArtifactCache(world / "cache", reporter.note), reporter)


@pytest.fixture
def workshop(world) -> Workshop:
    return workshop_in(world)


@pytest.fixture(scope="module")
def context(world):
    """A function from a method and options (`a__b` stands for `a.b`) to a run's context."""

    def make_context(method="srkl", sgo=None, init="sft", **changes) -> RunContext:
        settings = SETTINGS | {"models.tokenizer": str(world / "tokenizer")}
        settings |= {name.replace("__", "."): value for name, value in changes.items()}
        config, found = resolve(
            preset="tiny",
            task="samsum",
            models="tiny-llama",
            method=method,
            sgo=sgo,
            init=init,
            device="cpu",
            data_dir=str(world / "data"),
            assignments=[f"{key}={json.dumps(value)}" for key, value in settings.items()],
        )
        return prepare(config, found, workshop_in(world).cache)

    return make_context


@pytest.fixture(scope="module")
def run(world, context):
    """A function that makes the run of such a context and gives its record."""

    def record(*arguments, **changes) -> RunRecord:
        one = context(*arguments, **changes)
        return run_of(one.config, one.method, Store(world / "out"), workshop_in(world)).record

    return record


def first(record: RunRecord) -> dict[str, float]:
    return record.curve[0]


# --- options


@pytest.mark.parametrize(
    ("method", "option", "value"),
    [("srkl", "alpha", 0.5), ("jsd", "beta", 0.7), ("seqkd", "loss", "kld"), ("abkd", "alpha", 1.0)],
)
def test_an_option_of_the_method_changes_what_is_minimised(method, option, value, run):
    given, changed = run(method), run(method, **{f"method__{option}": value})
    assert changed.config.method.options[option] == value
    assert first(changed)["loss"] != pytest.approx(first(given)["loss"], rel=1e-3)
    # and nothing before the first step
    assert changed.init_scores == given.init_scores
    assert changed.teacher_scores == given.teacher_scores
    assert changed.validations[0] == given.validations[0]


def source_of(context: RunContext) -> OutputSource:
    return stages.output_source(context, len(context.sequences["train"]))


def test_options_of_the_source_reach_it(context):
    options = {
        "probability": 0.25,
        "initial_phi": 0.3,
        "phi_step": 0.2,
        "epsilon": 0.7,
        "capacity": 11,
        "replay_ratio": "increasing",
        "final_data_share": 0.5,
        "rollouts": 24,
        "inner_epochs": 3,
        "beams": 2,
    }
    set_ = {f"sgo__{name}": value for name, value in options.items()}
    source = source_of(context("srkl", "adaptive-off-policy", **set_, training__steps=7))
    assert source.options == SourceOptions(**options)
    assert (source.phi, source.total_steps, source.buffer.capacity, source.replays_fresh) == (0.3, 7, 11, False)
    assert source_of(context("srkl", "mixed", **set_)).phi == 0.25


@pytest.mark.parametrize("beams", [1, 3])
def test_the_teachers_responses_are_searched_by_as_many_beams_as_asked_for(beams, context, workshop):
    one = context("seqkd", sgo__beams=beams)
    folder = stages.teacher(one, workshop)
    train, size = one.sequences["train"], one.config.evaluation.batch_size
    expected, other = (
        load(one, folder).sample(train, Decoding(6, beams=n), "teacher responses", batch_size=size)
        for n in (beams, 4 - beams)
    )
    responses = stages.training_sequences(one, stages.teacher_responses(one, workshop, folder))
    assert [s.response for s in responses] == expected != other
    assert [(s.id, s.prompt, s.sampled_at_step) for s in responses] == [(s.id, s.prompt, None) for s in train]


def test_the_auxiliary_loss_is_as_configured(world, context):
    text = {"plain_text__file": str(world / "text.txt")}
    assert context("kld", **text).auxiliary_loss is None
    sizes = {"plain_text__batch_size": 3, "plain_text__max_length": 9}
    auxiliary = context("kld", **text, **sizes, plain_text__weight=0.25, plain_text__kl_share=0.75).auxiliary_loss
    assert (auxiliary.objective, auxiliary.weight, auxiliary.batch_size) == (LanguageModelling(0.75), 0.25, 3)
    assert len(auxiliary.sequences) == 6
    assert {len(s.prompt) + len(s.response) for s in auxiliary.sequences} == {9}


def test_the_auxiliary_loss_is_taken_in_the_shares_asked_for(world, run):
    text = {"plain_text__file": str(world / "text.txt"), "plain_text__weight": 1.0}
    losses = [first(run("sft", **text, plain_text__kl_share=share)) for share in (0.0, 0.5, 1.0)]
    entropy, both, divergence = (row["plain_text_loss"] for row in losses)
    assert both == pytest.approx((entropy + divergence) / 2, rel=1e-5)
    assert 0.05 < divergence < entropy - 0.1
    assert len({row["gradient_norm"] for row in losses}) == 3
    assert len({row["loss"] for row in losses}) == 1


def test_the_phases_and_phi_of_a_run_are_recorded(run):
    record = run("srkl", "on-policy")
    assert list(record.time.phases) == list(PHASES)
    assert record.time.phases["generation"] > 0
    assert first(record)["phi"] == 1.0
    assert run("srkl").time.phases["generation"] == 0


# --- each fidelity switch alone


def test_every_switch_has_a_test_here():
    tested = {"sgo_first_token", "sgo_eos", "replayed_on_policy", "train_without_bos", "no_repeat_ngram"}
    assert set(Fidelity.model_fields) == tested


def test_uncounted_tokens_of_sgos(run):
    correct = run("sft", "on-policy")
    assert first(correct)["sgo_ended"] > 0.5
    switched = {name: run("sft", "on-policy", **{f"fidelity__{name}": True}) for name in ("sgo_first_token", "sgo_eos")}
    for record in switched.values():
        # the same responses, made from the same start
        for key in ("sgo_length", "sgo_ended", "student_entropy"):
            assert first(record)[key] == first(correct)[key]
        assert record.training.tokens_trained == correct.training.tokens_trained
        assert record.validations[0] == correct.validations[0]
    losses = [first(record)["loss"] for record in (correct, *switched.values())]
    assert len({round(loss, 4) for loss in losses}) == 3
    # the data set's responses lose nothing
    on_references = [first(run("sft", **{f"fidelity__{name}": True})) for name in switched]
    assert on_references == [first(run("sft"))] * 2


def test_replayed_on_policy(context, run):
    assert source_of(context("srkl", "on-policy")).replays_fresh is False
    changed = {"fidelity__replayed_on_policy": True, "sgo__capacity": 16}
    assert source_of(context("srkl", "on-policy", **changed)).buffer.capacity == 16
    record = run("srkl", "on-policy", **changed)
    assert (first(record)["share_replay"], first(record)["buffer"]) == (1.0, 8)
    assert first(run("srkl", "on-policy"))["share_generate"] == 1.0


def test_train_without_bos(world, context, workshop):
    # a length of its own, so that no other test's artifacts are counted below
    with_bos, without = (
        context("seqkd", data__max_response_length=5, fidelity__train_without_bos=switch) for switch in (False, True)
    )
    bos = with_bos.tokenizer.backend.bos_token_id
    assert all(s.prompt[0] == bos for s in with_bos.sequences["train"])
    assert [s.prompt for s in without.sequences["train"]] == [s.prompt[1:] for s in with_bos.sequences["train"]]
    for split in ("validation", "test"):
        assert without.sequences[split] == with_bos.sequences[split]
    # models trained and responses made from other prompts are others, and are not taken from the cache
    for trained in (stages.teacher, stages.init_student):
        assert trained(with_bos, workshop) != trained(without, workshop)
    folder = stages.teacher(with_bos, workshop)

    def kept():
        return {path for path in (world / "cache" / "teacher-responses").glob("*") if path.is_dir()}

    before = kept()
    for one in (with_bos, without):
        responses = stages.training_sequences(one, stages.teacher_responses(one, workshop, folder))
        assert [s.prompt for s in responses] == [s.prompt for s in one.sequences["train"]]
    assert len(kept() - before) == 2


class Noting:
    """A metric that notes the texts it scores for some examples."""

    def __init__(self, metric, examples, texts) -> None:
        self.metric, self.texts = metric, texts
        self.noted = [example.references for example in examples]

    def __getattr__(self, name):
        return getattr(self.metric, name)

    def example(self, prediction, references):
        if any(references is one for one in self.noted):  # those of other examples may be equal
            self.texts.append(prediction)
        return self.metric.example(prediction, references)


def test_no_repeat_ngram(world, context, workshop):
    """Greedy and untrained, the student says one thing over and over; the switch forbids it at test only."""
    start = {"init": "pretrained", "training__learning_rate": 1e-30, "evaluation__temperature": 0}
    lengths = {"data__max_response_length": 16, "training__select_by": "metric"}
    predictions, validated = {}, {False: [], True: []}
    for switch in (False, True):
        one = context("srkl", **start, **lengths, fidelity__no_repeat_ngram=switch)
        noting = Noting(one.metrics[0], one.data.splits["validation"], validated[switch])
        folder = world / "runs" / f"noted-{switch}"
        with workshop.reporter.session(list(STAGES)):
            _, rows = make(replace(one, metrics=(noting,)), workshop, folder)
        predictions[switch] = [row["prediction"] for row in rows]
    one = context("srkl", **start, **lengths)
    student = load(one, str(folder / "student"))
    size = one.config.evaluation.batch_size
    for switch, ngram in ((False, 0), (True, NO_REPEAT_NGRAM)):
        decoding = Decoding(16, temperature=0, no_repeat_ngram=ngram)
        responses = student.sample(one.sequences["test"], decoding, "evaluation", "test", 10, batch_size=size)
        assert predictions[switch] == [one.tokenizer.text(response) for response in responses]
        grams = [[r[i : i + NO_REPEAT_NGRAM] for i in range(len(r) - NO_REPEAT_NGRAM + 1)] for r in responses]
        assert any(len(set(found)) < len(found) for found in grams) is not switch
    assert predictions[True] != predictions[False]
    assert validated[True] == validated[False] != []
    for switch in (False, True):  # nor do shared models' scores come from the cache of the other
        other = context("srkl", **lengths, fidelity__no_repeat_ngram=switch)
        stages.scores(other, workshop, str(folder / "student"), "both-ways")
    assert len([path for path in (world / "cache" / "both-ways-scores").iterdir() if path.is_dir()]) == 2
