"""Presets and model pairs from a user's files, and a pair given directly."""

import textwrap

import pytest

from bench.config.presets import read_pair, read_preset, shipped
from bench.config.resolve import resolve
from bench.config.sections import Config
from bench.synthetic import shipped_teacher
from bench.system.errors import BenchError
from distillm.methods import SRKL, Method


def resolved(*assignments: str, preset="tiny", task="dolly", method="srkl", **options) -> Config:
    return resolve(preset=str(preset), task=task, method=method, assignments=assignments, **options)[0]


@pytest.fixture
def write(tmp_path):
    def written(name: str, text: str):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return written


WHOLE = """
    summary: "an afternoon on one card"
    models: gpt2-medium-to-gpt2
    init: pretrained
    precision: bf16
    data: {hub: true, max_prompt_length: 100, max_response_length: 50}
    teacher_training: {epochs: 1, batch_size: 4, learning_rate: 1e-4}
    init_training: {epochs: 1, batch_size: 4, learning_rate: 1e-4}
    training: {steps: 30, batch_size: 8, learning_rate: 2e-4}
    evaluation: {seeds: [1]}
    tasks:
      samsum: {models: t5-base-to-t5-small, training: {steps: 40}}
"""


# --- presets --------------------------------------------------------------------------------------------------------


def test_a_preset_of_the_users(write):
    path = write("afternoon.yaml", WHOLE)
    config = resolved(preset=path)
    assert (config.preset, config.models.name, config.init) == ("afternoon", "gpt2-medium-to-gpt2", "pretrained")
    assert (config.training.steps, config.training.learning_rate) == (30, 2e-4)
    config = resolved(preset=path, task="samsum")
    assert (config.models.name, config.training.steps, config.training.batch_size) == ("t5-base-to-t5-small", 40, 8)
    assert read_preset(str(path)).summary == "an afternoon on one card"


def test_a_preset_may_begin_from_another_and_say_what_differs(write):
    path = write("longer.yaml", "extends: tiny\ntraining: {steps: 500}\nevaluation: {seeds: [7]}\n")
    for task in ("dolly", "samsum"):
        usual, config = resolved(task=task), resolved(task=task, preset=path)
        changed = {
            "preset": "longer",
            "training": usual.training.model_copy(update={"steps": 500}),
            "evaluation": usual.evaluation.model_copy(update={"seeds": [7]}),
        }
        assert usual.training.steps != 500
        assert config == usual.model_copy(update=changed)


def test_a_preset_may_begin_from_another_file_beside_it(write):
    write("own/base.yaml", "extends: tiny\ninit: pretrained\ntraining: {steps: 50, batch_size: 4}\n")
    path = write("own/mine.yml", "extends: ./base.yaml\ntraining: {epochs: 2}\ntasks: {iwslt: {data: {seed: 3}}}\n")
    config = resolved(preset=path)
    assert (config.preset, config.init) == ("mine", "pretrained")
    assert (config.training.steps, config.training.epochs, config.training.batch_size) == (None, 2.0, 4)
    assert (config.data.seed, resolved(preset=path, task="iwslt").data.seed) == (0, 3)


def test_a_preset_gives_options_to_the_output_sources_that_read_them(write):
    path = write("mine.yaml", "extends: tiny\nsgo: {rollouts: 32, capacity: 128, probability: 0.25}\n")
    assert resolved(preset=path, sgo="roll-outs").sgo.rollouts == 32
    assert resolved(preset=path, sgo="roll-outs").sgo.capacity == resolved(sgo="roll-outs").sgo.capacity
    assert resolved(preset=path, sgo="off-policy").sgo.capacity == 128
    assert resolved(preset=path, sgo="mixed").sgo.probability == 0.25
    assert resolved(preset=path, method="gkd").sgo.probability == 0.5  # the method's own


def test_a_preset_may_repeat_the_authors_defects(write):
    path = write("authors.yaml", "extends: tiny\nfidelity: faithful\n")
    assert all(on for _, on in resolved(preset=path).fidelity)
    assert not resolved("fidelity.sgo_eos=false", preset=path).fidelity.sgo_eos
    assert resolved("fidelity.sgo_eos=false", preset=path).fidelity.no_repeat_ngram


def test_the_init_student_of_a_preset():
    pretrained = Method("x", SRKL, "dataset", "pretrained", "nowhere", "a try")
    assert read_preset("paper").init(pretrained) == "pretrained"
    assert read_preset("paper").init(None) == "sft"
    assert read_preset("tiny").init(pretrained) == "sft"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training: [1, 2", ["mine.yaml, line 1", "neither YAML nor JSON"]),
        ("- a\n- b\n", ["mine.yaml", "expected keys with values", "['a', 'b']"]),
        ("", ["mine.yaml", "expected keys with values"]),
        ("extends: tinny", ["unknown preset 'tinny'", "did you mean 'tiny'"]),
        ("extends: ./absent.yaml", ["absent.yaml", "no such file"]),
        ("extends: ./mine.yaml", ["mine.yaml", "extends itself: mine -> mine"]),
        ("extends: tiny\nmodels: tiny-lama", ["unknown model pair 'tiny-lama'", "did you mean 'tiny-llama'"]),
        ("extends: tiny\nmodels: {kind: causal}", ["mine.yaml: models", "string"]),
        ("extends: tiny\ntasks: {dolly: {models: 5}}", ["mine.yaml: tasks.dolly.models", "string"]),
        ("extends: tiny\ninit: warm", ["mine.yaml: init", "'paper', 'pretrained' or 'sft'"]),
        ("extends: tiny\ntasks: {dolly: {init: sft}}", ["mine.yaml: init cannot stand here", "put it at the top"]),
        ("extends: tiny\nmethod: {alpha: 1}", ["mine.yaml: method cannot stand here", "--set method.OPTION=VALUE"]),
        ("extends: tiny\ntrainign: {steps: 5}", ["unknown key 'trainign'", "did you mean 'training'"]),
        ("extends: tiny\ntraining: {stepz: 5}", ["unknown key 'training.stepz'", "did you mean 'training.steps'"]),
        ("extends: tiny\ntraining: 5", ["training: expected options such as training.steps"]),
        ("extends: tiny\nplain_text: 5", ["plain_text: expected options such as plain_text.weight=0"]),
        ("models: tiny-llama\ntraining: {steps: 5}", ["data.max_prompt_length", "training.batch_size"]),
        ("data: {hub: true}", ["preset mine has no models for dolly", "--models"]),
    ],
)
def test_what_is_wrong_in_a_preset_is_told(write, text, words):
    path = write("mine.yaml", text)
    with pytest.raises(BenchError) as caught:
        resolved(preset=path)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_files_that_are_not_there_or_have_a_name_that_is_taken(write, tmp_path):
    with pytest.raises(BenchError, match=r"^preset .*absent\.yaml: there is no such file$"):
        resolved(preset=tmp_path / "absent.yaml")
    with pytest.raises(BenchError, match=r"^preset some/folder: there is no such file$"):
        resolved(preset="some/folder")
    with pytest.raises(BenchError, match=r"tiny\.yaml: a preset named tiny ships with the package; give the file anot"):
        resolved(preset=write("tiny.yaml", "extends: tiny"))
    with pytest.raises(BenchError, match=r"unknown preset 'mine'.*\nA preset of your own: --preset path/to/file.yaml"):
        resolved(preset="mine")


# --- pairs ----------------------------------------------------------------------------------------------------------

PAIR = """
    models:
      kind: causal
      teacher: ./teacher
      student: org/student
    training: {learning_rate: 3e-5}
"""


def test_a_pair_of_the_users(write, tmp_path):
    path = write("own/big-to-small.yaml", PAIR)
    (tmp_path / "own" / "teacher").mkdir()
    config = resolved(models=str(path))
    assert config.models.name == "big-to-small"
    assert (config.models.kind, config.models.tokenizer) == ("causal", "teacher")
    assert config.models.teacher == str(tmp_path / "own" / "teacher")
    assert config.models.student == "org/student"
    assert config.training.learning_rate == 3e-5
    preset = write("mine.yaml", "extends: tiny\ntasks: {iwslt: {models: own/big-to-small.yaml}}\n")
    assert resolved(preset=preset, task="iwslt").models == config.models
    assert resolved(preset=preset).models == resolved().models


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training: {steps: 5}", ["pair.yaml: models: is missing"]),
        ("models: gpt2", ["pair.yaml: models", "object"]),
        ("models: {teacher: a/b, student: a/c}", ["models.kind is missing", "a/c", "--set models.kind=seq2seq"]),
        ("models: {kind: causal, teacher: a/b}", ["models.student: is missing"]),
        ("models: {kind: causal, teacher: ./absent, student: a/c}", ["models.teacher=", "absent", "no such folder"]),
        ("models: {kind: causal, teacher: a/b, student: scratch}", ["models.student=scratch needs an architecture"]),
        ("models: {kind: causal, teacher: a/b, studnet: a/c}", ["unknown key 'models.studnet'", "models.student"]),
        ("models: {kind: causal, teacher: a/b, student: a/c}\ninit: sft", ["init cannot stand here"]),
        ("models: {}\nextends: ./pair.yaml", ["pair.yaml", "extends itself"]),
        ("models: {}\nextends: tiny-lama", ["unknown model pair 'tiny-lama'", "did you mean 'tiny-llama'"]),
        ("models: {lora: {rank: 0}}\nextends: tiny-t5", ["models.lora.rank"]),
        ("models: {lora: {targets: []}}\nextends: tiny-t5", ["models.lora.targets", "name a layer at least"]),
        (
            "models: {lora: {}, student: scratch}\nextends: tiny-t5",
            ["models.student=scratch has none", "--set models.lora=null"],
        ),
    ],
)
def test_what_is_wrong_in_a_pair_is_told(write, text, words):
    with pytest.raises(BenchError) as caught:
        resolved(models=str(write("pair.yaml", text)))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_pairs_file_that_is_not_there_or_has_a_name_that_is_taken(write):
    with pytest.raises(BenchError, match=r"^model pair org/gpt: there is no such file.*--teacher ID_OR_FOLDER"):
        resolved(models="org/gpt")
    with pytest.raises(BenchError, match="a model pair named tiny-t5 ships with the package"):
        resolved(models=str(write("tiny-t5.yaml", PAIR)))


def test_a_pair_given_directly():
    config = resolved("models.kind=seq2seq", teacher="google/flan-t5-xl", student="google/flan-t5-small")
    models = config.models
    assert models.name == "flan-t5-xl-to-flan-t5-small"
    assert (models.kind, models.teacher, models.student) == ("seq2seq", "google/flan-t5-xl", "google/flan-t5-small")
    assert models.tokenizer == "teacher"
    assert config.training == resolved().training
    with pytest.raises(BenchError, match=r"google/flan-t5-small is: --set models.kind=causal"):
        resolved(teacher="google/flan-t5-xl", student="google/flan-t5-small")


@pytest.mark.parametrize(("task", "kind"), [("dolly", "causal"), ("samsum", "seq2seq")])
def test_a_folder_says_which_kind_of_model_it_is(task, kind):
    folder = str(shipped_teacher(task))
    assert resolved(teacher=folder, student=folder).models.kind == kind
    assert resolved(teacher=folder, student=folder).models.name == f"{task}-to-{task}"
    assert resolved(teacher=folder, student="org/small").models.kind == kind
    architecture = "models.student_config={model_type: llama}"
    assert resolved(architecture, teacher=folder, student="scratch").models.name == f"{task}-to-scratch"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"teacher": "a/b"}, "--teacher and --student go together"),
        ({"student": "a/b"}, "--teacher and --student go together"),
        ({"teacher": "a/b", "student": "a/c", "models": "tiny-t5"}, "without --models"),
        ({"teacher": "./absent", "student": "a/c"}, "models.teacher=./absent: there is no such folder"),
    ],
)
def test_what_is_wrong_with_a_pair_given_directly_is_told(options, words):
    with pytest.raises(BenchError) as caught:
        resolved("models.kind=causal", **options)
    assert words in str(caught.value)


def test_the_files_that_ship_are_read_by_their_paths_too():
    import bench.config.presets as module

    for name in shipped("presets"):
        path = module._SHIPPED / "presets" / f"{name}.yaml"
        assert read_preset(str(path)).name == name
    assert read_pair(str(module._SHIPPED / "pairs" / "tiny-t5.yaml")) == read_pair("tiny-t5")
