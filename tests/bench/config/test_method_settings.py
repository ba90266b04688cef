"""Settings that a preset gives one method alone: declared, and no bar to a comparison."""

import pytest

from bench.config.comparable import comparison_fields
from bench.config.resolve import resolve, resolve_again
from bench.config.sections import Config
from bench.system.errors import BenchError
from bench.system.hashing import digest

PRESET = """
extends: tiny
methods:
  minillm:
    training: {learning_rate: 5e-6, epochs: 3}
    plain_text: {batch_size: 2}
"""


@pytest.fixture
def preset(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(PRESET)
    return path


def resolved(preset, method, *assignments, task="dolly", models=None) -> Config:
    return resolve(preset=str(preset), task=task, method=method, models=models, assignments=assignments)[0]


def comparison_key(config: Config) -> str:
    return digest(comparison_fields({"config": config.identity(), "data": "d", "version": "1"}))


def test_they_hold_for_the_method_alone_and_are_declared(preset):
    usual = resolved("tiny", "minillm")
    config = resolved(preset, "minillm")
    assert (config.training.learning_rate, config.training.epochs, config.training.steps) == (5e-6, 3.0, None)
    assert config.plain_text.batch_size == 2
    assert config.training.batch_size == usual.training.batch_size
    assert config.method_settings == {
        "training.learning_rate": 5e-6,
        "training.epochs": 3.0,
        "training.steps": None,
        "plain_text.batch_size": 2,
    }
    assert config.shared_settings == {
        "training.learning_rate": usual.training.learning_rate,
        "training.epochs": None,
        "training.steps": usual.training.steps,
        "plain_text.batch_size": usual.plain_text.batch_size,
    }
    other = resolved(preset, "kld")
    assert (other.method_settings, other.shared_settings) == ({}, {})
    assert other.training == resolved("tiny", "kld").training


def test_declared_differences_do_not_stand_in_the_way_of_a_comparison(preset):
    first, second = resolved(preset, "minillm"), resolved(preset, "kld")
    assert comparison_key(first) == comparison_key(second)
    assert first.identity() != second.identity()
    undeclared = resolved(preset, "minillm", "training.weight_decay=0.1")
    assert comparison_key(undeclared) != comparison_key(second)
    assert comparison_key(undeclared) == comparison_key(resolved(preset, "kld", "training.weight_decay=0.1"))
    # the same numbers, set for MiniLLM's run only: nothing declares the difference
    by_hand = resolved("tiny", "minillm", "training.learning_rate=5e-6", "training.epochs=3", "plain_text.batch_size=2")
    assert by_hand.training == first.training
    assert comparison_key(by_hand) != comparison_key(resolved("tiny", "kld"))


def test_what_is_set_for_a_run_goes_for_all_methods_alike(preset):
    config = resolved(preset, "minillm", "training.learning_rate=1e-3")
    assert config.training.learning_rate == 1e-3
    assert "training.learning_rate" not in config.method_settings
    assert config.shared_settings.keys() == config.method_settings.keys() != set()
    assert comparison_key(config) == comparison_key(resolved(preset, "kld", "training.learning_rate=1e-3"))
    config = resolved(preset, "minillm", "training.steps=9")
    assert (config.training.steps, config.training.epochs) == (9, None)
    assert config.method_settings.keys() == {"training.learning_rate", "plain_text.batch_size"}


def test_a_method_s_own_go_over_task_and_pair(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: paper\nmethods: {kld: {training: {learning_rate: 0.5}}}\n")
    config = resolved(path, "kld", task="samsum", models="opt-2.7b-to-opt-125m")
    assert config.training.learning_rate == 0.5
    assert config.shared_settings == {"training.learning_rate": 5e-5}  # the pair's
    assert resolved(path, "minillm").method_settings == resolved("paper", "minillm").method_settings


def test_one_that_says_what_all_have_is_no_difference(tmp_path):
    path = tmp_path / "mine.yaml"
    rate = resolved("tiny", "kld").training.learning_rate
    path.write_text(f"extends: tiny\nmethods: {{kld: {{training: {{learning_rate: {rate}}}}}}}\n")
    assert resolved(path, "kld").method_settings == {}


def test_minillm_in_the_papers_preset():
    config, kld = resolved("paper", "minillm"), resolved("paper", "kld")
    length = {"training.epochs": None, "training.steps": 5000}
    assert config.method_settings == {"training.learning_rate": 5e-6, "training.warmup_steps": 100, **length}
    length = {"training.epochs": 20.0, "training.steps": None}
    assert config.shared_settings == {"training.learning_rate": 5e-4, "training.warmup_steps": 0, **length}
    assert comparison_key(config) == comparison_key(kld)


def test_a_preset_s_block_for_a_pair_holds_for_those_that_begin_from_it(tmp_path):
    preset = tmp_path / "mine.yaml"
    preset.write_text(
        "extends: tiny\nsgo: {capacity: 96}\nmethods: {kld: {training: {learning_rate: 0.1, warmup_steps: 3}}}\n"
        "pairs:\n  tiny-llama:\n    sgo: {epsilon: 0.4}\n    training: {steps: 77, learning_rate: 0.2}\n"
        "    methods: {kld: {training: {learning_rate: 0.3}}}\n"
    )
    own = tmp_path / "wider.yaml"
    own.write_text("extends: tiny-llama\nmodels: {vocab_size: 500}\ntraining: {learning_rate: 0.25}\n")
    kld, srkl = (resolved(preset, method, models=str(own)) for method in ("kld", "srkl"))
    assert (kld.training.steps, kld.training.learning_rate, kld.training.warmup_steps) == (77, 0.3, 3)
    assert kld.shared_settings["training.learning_rate"] == srkl.training.learning_rate == 0.25  # the pair's file
    assert (kld.models.vocab_size, kld.models.student_config) == (500, resolved("tiny", "kld").models.student_config)
    assert comparison_key(kld) == comparison_key(srkl)
    distillm = resolved(preset, "distillm", models=str(own))
    assert (distillm.sgo.epsilon, distillm.sgo.capacity) == (0.4, 96)
    other, usual = (resolved(one, "kld", task="samsum").training for one in (preset, "tiny"))
    assert (other.steps, other.learning_rate) == (usual.steps, 0.1)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("{methods: {kld: {data: {seed: 1}}}}", "pairs.tiny-llama.methods.kld.data.seed: a method can have settings"),
        ("{models: tiny-t5}", "models cannot stand here: put it at the top, or into the pair's file"),
        ("{trainign: {steps: 5}}", "unknown key 'trainign'"),
        ("5", "pairs.tiny-llama"),
    ],
)
def test_what_is_wrong_in_a_block_for_a_pair_is_told(tmp_path, block, words):
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: tiny\npairs: {{tiny-llama: {block}}}\n")
    with pytest.raises(BenchError) as caught:
        resolved(path, "kld")
    assert words in str(caught.value)


@pytest.mark.parametrize("section", ["data", "teacher_training", "init_training", "evaluation", "models", "trainign"])
def test_what_all_methods_share_cannot_be_given_to_one(tmp_path, section):
    path = tmp_path / "mine.yaml"
    for settings in ("seed: 3", ""):
        path.write_text(f"extends: tiny\nmethods: {{minillm: {{{section}: {{{settings}}}}}}}\n")
        for method in ("minillm", "kld"):  # also where it is not the method asked for
            with pytest.raises(BenchError) as caught:
                resolved(path, method)
            assert str(path) in str(caught.value)
            assert f"methods.minillm.{section}" in str(caught.value)
            assert "training and plain_text" in str(caught.value)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("plain_text: {file: text.txt}", "methods.minillm.plain_text.file"),
        ("training: 5", "methods.minillm.training"),
        ("5", "methods.minillm"),
        ("training: {stepz: 5}", "unknown key 'training.stepz': did you mean 'training.steps'?"),
        ("training: {steps: many}", "training.steps"),
    ],
)
def test_what_is_wrong_in_them_is_told(tmp_path, block, words):
    path = tmp_path / "mine.yaml"
    inner = block if block == "5" else f"{{{block}}}"
    path.write_text(f"extends: tiny\nmethods: {{minillm: {inner}}}\n")
    with pytest.raises(BenchError) as caught:
        resolved(path, "minillm")
    assert words in str(caught.value)


@pytest.mark.parametrize("key", ["method_settings", "shared_settings"])
def test_they_cannot_be_set_for_a_run(key):
    for assignment in (f"{key}={{training.steps: 3}}", f"{key}.training=3"):
        with pytest.raises(BenchError, match=f"{key} cannot be set: a preset gives it"):
            resolved("tiny", "minillm", assignment)


def test_they_come_back_from_a_configuration(preset):
    config = resolved(preset, "minillm")
    assert resolve_again(config.canonical())[0] == config
    again, _ = resolve_again(config.canonical(), assignments=["training.learning_rate=1e-3"])
    assert again == resolved(preset, "minillm", "training.learning_rate=1e-3")
    again, _ = resolve_again(config.canonical(), assignments=["training.steps=9"])
    assert again == resolved(preset, "minillm", "training.steps=9")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shared_settings": {}}, "shared_settings: expected the same keys as in method_settings"),
        (
            {"method_settings": {"training.steps": 1}, "shared_settings": {"training.steps": 2}},
            "training.steps is None, but method_settings has 1",
        ),
        ({"method_settings": {"data.seed": 0}, "shared_settings": {"data.seed": 1}}, "data.seed is no setting of"),
        ({"method_settings": {"training.x": 0}, "shared_settings": {"training.x": 1}}, "training.x is no setting of"),
        ({"method_settings": {"training": 0}, "shared_settings": {"training": 1}}, "training is no setting of"),
    ],
)
def test_a_configuration_that_declares_what_is_not_so_is_refused(preset, changes, words):
    with pytest.raises(BenchError) as caught:
        resolve_again(resolved(preset, "minillm").canonical() | changes)
    assert words in str(caught.value)
    values = resolved(preset, "minillm").canonical()
    del values["shared_settings"]
    with pytest.raises(BenchError, match=r"^shared_settings: expected the same keys as in method_settings"):
        resolve_again(values)
