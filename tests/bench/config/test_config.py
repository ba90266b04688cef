"""Layers, `--set`, and the errors that a mistake in either gives."""

import contextlib
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from bench.config.comparable import comparison_fields
from bench.config.layers import merge
from bench.config.presets import read_pair, read_preset, shipped
from bench.config.registry import methods
from bench.config.resolve import parse_assignment, resolve, resolve_again
from bench.config.sections import Config
from bench.data import TASKS
from bench.system import yaml_text
from bench.system.errors import BenchError
from bench.system.hashing import digest
from distillm import SOURCES


def resolved(*assignments: str, preset="tiny", task="dolly", method="srkl", **options) -> Config:
    return resolve(preset=preset, task=task, method=method, assignments=assignments, **options)[0]


# --- what is shipped ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("preset", "task"), list(itertools.product(shipped("presets"), TASKS)))
def test_every_preset_resolves_for_every_task_and_method(preset, task):
    for name, method in methods().items():
        config = resolved(preset=preset, task=task, method=name)
        assert (config.preset, config.task, config.method.name) == (preset, task, name)
        assert config.sgo.source == method.source
        assert config.models.name in shipped("pairs")
    assert read_preset(preset).summary


@pytest.mark.parametrize("models", shipped("pairs"))
def test_every_model_pair_resolves(models):
    config = resolved(models=models)
    assert config.models.name == models
    loaded = read_pair(models).settings["models"]
    assert (config.models.kind, config.models.student) == (loaded["kind"], loaded["student"])
    if config.models.student == "scratch":
        assert config.models.student_config


# --- layers ---------------------------------------------------------------------------------------------------------


def test_layers_override_in_order():
    usual, other = read_pair("gpt2-xl-to-gpt2"), read_pair("opt-2.7b-to-opt-125m")
    preset, pair = read_preset("paper").settings("another task", usual), other.settings
    layers = (preset, read_preset("paper").settings("samsum", usual), pair)
    rates = [layer["training"]["learning_rate"] for layer in layers]
    assert len(set(rates)) == 3
    paper = {"preset": "paper"}
    assert resolved(**paper, task="dolly").training.learning_rate == rates[0]
    assert resolved(**paper, task="samsum").training.learning_rate == rates[1]
    both = {**paper, "task": "samsum", "models": "opt-2.7b-to-opt-125m"}
    assert resolved(**both).training.learning_rate == rates[2]
    assert resolved("training.learning_rate=7e-4", **both).training.learning_rate == 7e-4
    last = resolved("training.learning_rate=7e-4", "training.learning_rate=8e-4", **both)
    assert last.training.learning_rate == 8e-4
    assert last.training.batch_size == preset["training"]["batch_size"]


def test_options_of_the_command_override_presets_and_yield_to_set():
    config = resolved(seed=3, init="pretrained", sgo="mixed", device="cpu")
    assert (config.seed, config.init, config.sgo.source, config.device) == (3, "pretrained", "mixed", "cpu")
    assert resolved("seed=4", seed=3).seed == 4
    assert resolved("sgo.source=adaptive", sgo="mixed").sgo.source == "adaptive"


def test_the_init_student_of_the_paper_is_the_methods_own():
    for name, method in methods().items():
        assert resolved(preset="paper", method=name).init == method.init
        assert resolved(preset="tiny", method=name).init == "sft"


def test_a_length_in_steps_replaces_one_in_epochs_and_the_other_way_round():
    given = resolved("training.epochs=2.5").training
    assert (given.steps, given.epochs) == (None, 2.5)
    given = resolved("training.steps=7", preset="paper").training
    assert (given.steps, given.epochs) == (7, None)
    given = resolved("training.epochs=2", "training.steps=null").training
    assert (given.steps, given.epochs) == (None, 2.0)


def test_epochs_replace_the_usual_steps_of_a_pretraining():
    for preset in ("tiny", "real"):
        assignments = ("student_pretraining.epochs=2", "data.synthetic=true")
        given = resolved(*assignments, preset=preset, task="dolly").student_pretraining
        assert (given.steps, given.epochs) == (None, 2)


def test_architectures_are_replaced_whole():
    config = resolved("models.student_config={model_type: gpt2, n_embd: 8}")
    assert config.models.student_config == {"model_type": "gpt2", "n_embd": 8}
    layer = {"a": {"x": 1, "y": 2}, "b_config": {"x": 1}, "c": 1}
    merged = merge(layer, {"a": {"y": 3}, "b_config": {"z": 1}, "c": {"w": 1}})
    assert merged == {"a": {"x": 1, "y": 3}, "b_config": {"z": 1}, "c": {"w": 1}}
    assert layer == {"a": {"x": 1, "y": 2}, "b_config": {"x": 1}, "c": 1}


def test_the_shipped_teacher_serves_the_synthetic_data_only(tmp_path):
    folder = str(tmp_path)
    assert (resolved().models.teacher, resolved().models.tokenizer) == ("shipped", "shipped")
    for other in (resolved(data_dir=folder), resolved("data.seed=1"), resolved("data.hub=true")):
        assert (other.models.teacher, other.models.tokenizer) == ("scratch", "trained")
    assert resolved("models.teacher=org/name").models.tokenizer == "teacher"
    assert resolved(data_dir=folder).models.teacher_config == resolved().models.teacher_config
    assert resolved(models="tiny-t5-small").models.student == "shipped-small"
    assert resolved(models="tiny-t5-small", data_dir=folder).models.student == "scratch"


@pytest.mark.parametrize("preset", shipped("presets"))
def test_a_data_folder_replaces_the_hub(preset, tmp_path):
    data = resolved(preset=preset, data_dir=str(tmp_path)).data
    assert (data.dir, data.hub) == (str(tmp_path), False)


@pytest.mark.parametrize("word", ["init", "sft"])
def test_init_is_another_word_for_sft(word):
    assert resolved(init=word, preset="paper", method="sft").init == "sft"
    assert resolved(f"init={word}", preset="paper", method="sft").init == "sft"


def test_one_more_defect_goes_over_all_of_them():
    faithful = resolved("fidelity=faithful", "fidelity.sgo_eos=false").fidelity
    assert {name for name, on in faithful if not on} == {"sgo_eos"}
    assert not any(on for _, on in resolved("fidelity.sgo_eos=true", "fidelity=corrected").fidelity)


# --- --set ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("training.learning_rate=1e-3", ["training", "learning_rate"], 1e-3),
        ("training.steps=100", ["training", "steps"], 100),
        ("training.steps=null", ["training", "steps"], None),
        ("data.hub=true", ["data", "hub"], True),
        ("evaluation.seeds=[1, 2]", ["evaluation", "seeds"], [1, 2]),
        ("evaluation.seeds=[]", ["evaluation", "seeds"], []),
        ("models.teacher_config={model_type: gpt2}", ["models", "teacher_config"], {"model_type": "gpt2"}),
        ("models.teacher=org/name", ["models", "teacher"], "org/name"),
        ("data.dir=a=b", ["data", "dir"], "a=b"),
        (' data.dir="12"', ["data", "dir"], "12"),
    ],
)
def test_assignments_are_read(text, path, value):
    got = parse_assignment(text)
    assert got == (path, value)
    assert type(got[1]) is type(value)


@pytest.mark.parametrize("text", ["training.steps", "=3", "training..steps=3", ".steps=3", "", "training.steps=["])
def test_what_is_no_assignment_is_refused(text):
    with pytest.raises(BenchError) as caught:
        parse_assignment(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("assignment", "near"),
    [
        ("training.stepz=3", "'training.steps'"),
        ("init_training.batchsize=3", "'init_training.batch_size'"),
        ("data.maxtrain=3", "'data.max_train'"),
        ("models.studnet=x", "'models.student'"),
        ("evaluation.topp=1", "'evaluation.top_p'"),
        ("method.alhpa=0.2", "'method.alpha'"),
        ("sgo.capacitee=3", "'sgo.capacity'"),
    ],
)
def test_unknown_keys_offer_the_nearest(assignment, near):
    with pytest.raises(BenchError) as caught:
        resolved(assignment)
    assert str(caught.value) == f"unknown key {assignment.partition('=')[0]!r}: did you mean {near}?"


def keys(section: type[BaseModel] = Config, path: str = "") -> list[str]:
    """Every key of a configuration by its dotted name, sections too."""
    found = []
    for name, field in section.model_fields.items():
        found.append(path + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += keys(field.annotation, f"{path}{name}.")
    return found


@pytest.mark.parametrize("value", ["{a: 1}", "[1, 2]", "[[1]]", "{}"])
def test_no_key_breaks_on_a_value_that_is_a_list_or_a_mapping(value):
    for key in keys():
        with contextlib.suppress(BenchError):  # said in words; any other error is ours
            resolved(f"{key}={value}")


def test_an_unknown_section_offers_the_nearest():
    with pytest.raises(BenchError, match=r"^unknown key 'trainign': did you mean 'training'\?$"):
        resolved("trainign.steps=3")


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("training.steps=abc", "'abc'"),
        ("training.steps=1.5", "1.5"),
        ("training.steps=true", "True"),
        ("training.steps=0", "greater than 0"),
        ("training.batch_size=0", "greater than 0"),
        ("training.learning_rate=.inf", "finite"),
        ("training.learning_rate=.nan", "nan"),
        ("training.schedule=cosin", "'cosine', 'linear' or 'constant'"),
        ("training=5", "expected options such as training.steps="),
        ("training={steps: 5, epochs: 2}", "exactly one of steps and epochs"),
        ("evaluation.seeds=[]", "at least one value"),
        ("evaluation.seeds=[1, x]", "evaluation.seeds.1"),
        ("evaluation.top_p=1.2", "less than or equal to 1"),
        ("data.max_prompt_length=null", "None"),
        ("data.dir=12", "string"),
        ("seed=-1", "greater than or equal to 0"),
        ("device=gpu", "'cuda'"),
        ("precision=fp16", "'bf16'"),
        ("method.alpha=1.5", "[0, 1]"),
        ("method.alpha=x", "number"),
        ("method=5", "--method"),
        ("method.name=skl", "--method"),
        ("sgo.capacity=0", "at least 1"),
        ("sgo.capacity=1.5", "integer"),
        ("sgo.epsilon=.inf", "finite"),
        ("sgo.replay_ratio=rising", "'increasing'"),
        ("sgo.source=mixd", "did you mean 'mixed'"),
        ("sgo.source=[mixed]", "unknown output source"),
        ("sgo=5", "--sgo"),
        ("preset=paper", "--preset"),
        ("task=samsum", "--task"),
        ("models.name=other", "--models"),
    ],
)
def test_wrong_values_are_told_with_their_key(assignment, words):
    with pytest.raises(BenchError) as caught:
        resolved(assignment)
    key = assignment.partition("=")[0].split(".")
    assert all(part in str(caught.value) for part in (*key, words)), str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preset": "tinny"}, "unknown preset 'tinny': did you mean 'tiny'"),
        ({"task": "samsun"}, "unknown task 'samsun': did you mean 'samsum'"),
        ({"models": "tiny-lama"}, "unknown model pair 'tiny-lama': did you mean 'tiny-llama'"),
        ({"sgo": "onpolicy"}, "unknown output source 'onpolicy': did you mean 'on-policy'"),
        ({"init": "warm"}, "'pretrained' or 'sft'"),
    ],
)
def test_unknown_names_offer_the_nearest(options, words):
    with pytest.raises(BenchError) as caught:
        resolved(**options)
    assert words in str(caught.value)


def test_every_mistake_is_told_at_once():
    with pytest.raises(BenchError) as caught:
        resolved("training.stepz=3", "data.max_train=0", "seed=x")
    assert len(str(caught.value).splitlines()) == 3


# --- hashes ---------------------------------------------------------------------------------------------------------


def test_the_digest_depends_on_values_and_not_on_the_order_of_keys():
    config = resolved().canonical()
    assert digest(config) == digest(dict(reversed(config.items())))
    assert digest(config) == digest(resolved().canonical())
    assert digest(config) != digest(resolved("seed=11").canonical())
    assert digest({"a": 1}) != digest({"a": "1"})
    assert digest(resolved("training.steps=5", "seed=1").canonical()) == digest(
        resolved("seed=1", "training.steps=5").canonical()
    )


def test_runs_in_one_table_may_differ_in_method_source_start_and_seed_alone():
    key = {
        "config": resolved().canonical(),
        "data": "fingerprint",
        "models": {"teacher": "x"},
        "generation": "g",
        "version": "1",
    }
    fields = comparison_fields(key)
    assert key["config"].keys() - fields["config"].keys() == {
        *("method", "sgo", "init", "seed", "method_settings", "shared_settings")
    }
    own = {"weight", "kl_share"}  # the auxiliary loss is the method's; the text it is taken on is everyone's
    assert key["config"]["plain_text"].keys() - fields["config"]["plain_text"].keys() == own
    for name, value in fields["config"].items():
        whole = key["config"][name]
        assert value == (whole if name != "plain_text" else {k: v for k, v in whole.items() if k not in own})
    assert {name: value for name, value in fields.items() if name != "config"} == {
        name: value for name, value in key.items() if name != "config"
    }


@settings(max_examples=60, deadline=None)
@given(
    task=st.sampled_from(sorted(TASKS)),
    method=st.sampled_from(sorted(methods())),
    preset=st.sampled_from(shipped("presets")),
    sgo=st.sampled_from([None, *SOURCES]),
    seed=st.integers(0, 2**63),
    rate=st.floats(1e-300, 1e300),
    template=st.none() | st.text(min_size=1),
    seeds=st.lists(st.integers(), min_size=1, unique=True),
)
def test_canonical_values_are_the_configuration(task, method, preset, sgo, seed, rate, template, seeds):
    sets = [f"training.learning_rate={rate!r}", f"evaluation.seeds={seeds}"]
    template = template if len(TASKS[task].templates) == 1 else None  # where there is no choice, any name will do
    sets.append(f"data.template={json.dumps(template)}")
    config = resolved(*sets, preset=preset, task=task, method=method, sgo=sgo, seed=seed)
    assert (config.training.learning_rate, config.evaluation.seeds) == (rate, seeds)
    assert config.data.template == template
    again = Config.model_validate_json(config.model_dump_json())
    assert again == config
    assert digest(again.canonical()) == digest(config.canonical())
    for printed in (json.dumps(config.canonical()), yaml_text.dump(config.canonical())):
        assert resolve_again(yaml_text.parse(printed))[0] == config


@pytest.mark.parametrize(
    ("sgo", "settings", "capacity"),
    [
        ("adaptive-off-policy", (), 32),
        ("off-policy", (), 32),
        ("off-policy", ("sgo.capacity=99",), 99),
        ("dataset", (), 1000),
        ("on-policy", (), 1000),
        ("on-policy", ("fidelity=faithful",), 32),
    ],
)
def test_a_presets_buffer_is_for_sources_that_have_one(sgo, settings, capacity):
    config, _ = resolve(preset="tiny", task="dolly", method="srkl", sgo=sgo, assignments=settings)
    assert config.sgo.capacity == capacity
    paper, _ = resolve(preset="paper", task="dolly", method="srkl", sgo=sgo)
    assert paper.sgo.capacity == 1000


@pytest.mark.parametrize("method", ["imitkd", "minillm"])
def test_mixed_is_not_on_policy_under_another_name(method):
    def probability(sgo, *assignments):
        return resolved(*assignments, task="samsum", method=method, sgo=sgo).sgo.probability

    assert probability("mixed") == 0.5
    assert probability("mixed", "sgo.probability=1.0") == 1.0
    assert probability("off-policy") == 1.0  # the buffer takes the place of fresh outputs, at the same probability
    assert probability(None) == 1.0


# --- what can be told without data and models -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "assignments", "words"),
    [
        ({"method": "distillm"}, ["sgo.capacity=4"], "sgo.capacity 4 is smaller than the batch of 8"),
        ({"sgo": "off-policy"}, ["training.batch_size=99"], "sgo.capacity 32 is smaller than the batch of 99"),
        ({"method": "minillm"}, ["sgo.rollouts=4"], "sgo.rollouts 4 are fewer than the batch of 8"),
        (
            {"sgo": "on-policy"},
            ["fidelity.replayed_on_policy=true", "sgo.capacity=4"],
            "sgo.capacity 4 is smaller than the batch of 8",
        ),
        ({"data_dir": "no/folder"}, [], "data.dir=no/folder: there is no such folder"),
        ({}, ["data.dir=no/folder"], "data.dir=no/folder: there is no such folder"),
        ({"data_dir": "."}, ["data.hub=true"], "data.dir=. and data.hub=true"),
        ({"data_dir": "."}, ["data.train_file=no.jsonl"], "data.train_file=no.jsonl: there is no such file"),
        ({"data_dir": "."}, ["data.test_file=no.jsonl"], "data.test_file=no.jsonl: there is no such file"),
        ({}, ["data.train_file=no.jsonl"], "data.train_file=no.jsonl: no folder for the other splits is given"),
        ({}, ["plain_text.file=no.txt"], "plain_text.file=no.txt: there is no such file"),
        ({}, ["models.teacher=./no"], "models.teacher=./no: there is no such folder, so no model can be loaded"),
        ({}, ["models.student=/no/model"], "models.student=/no/model: there is no such folder, so no model"),
        ({}, ["models.tokenizer=./no"], "models.tokenizer=./no: there is no such folder, so no tokenizer"),
        ({"preset": "paper"}, ["models.student=scratch"], "models.student=scratch needs an architecture"),
        ({}, ["fidelity=[1]"], "fidelity: expected faithful, corrected or one defect"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(options, assignments, words):
    with pytest.raises(BenchError) as caught:
        resolved(*assignments, **options)
    assert words in str(caught.value)


def test_options_that_fit_are_taken():
    assert resolved("sgo.capacity=16", method="distillm").sgo.capacity == 16
    assert resolved("sgo.rollouts=16", method="minillm").sgo.rollouts == 16
    assert resolved("sgo.capacity=4").sgo.capacity == 4  # the data set needs no buffer


def test_a_teacher_from_scratch_has_no_tokenizer_to_give():
    architecture = "{model_type: gpt2, n_embd: 8}"
    config = resolved(
        *("models.teacher=scratch", f"models.teacher_config={architecture}"), preset="small", models="gpt2-xl-to-gpt2"
    )
    assert config.models.tokenizer == "trained"
