"""A configuration that was resolved before resolves to itself, and takes options and assignments on top."""

import hashlib
import json

import pytest

from bench.config.registry import methods
from bench.config.resolve import resolve, resolve_again
from bench.config.sections import Config
from bench.system import yaml_text
from bench.system.errors import BenchError
from bench.system.hashing import digest
from distillm import SOURCES

OWN = """
from dataclasses import dataclass
from typing import ClassVar

from distillm import Method


@dataclass(frozen=True)
class Loss:
    scale: float = 1.0
    needs_teacher: ClassVar[bool] = False

    def __call__(self, student_logits, teacher_logits, tokens, batch):
        return self.scale * student_logits.logsumexp(-1)


MINE = Method("mine", Loss, "dataset", "sft", "nowhere", "a try")
YOURS = Method("yours", Loss, "dataset", "sft", "nowhere", "a try")
"""


@pytest.fixture
def own_file(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def resolved(*assignments: str, preset="tiny", task="dolly", method="srkl", **options) -> Config:
    return resolve(preset=preset, task=task, method=method, assignments=assignments, **options)[0]


def again(config: Config, *assignments: str, **options) -> Config:
    return resolve_again(config.canonical(), assignments=assignments, **options)[0]


@pytest.mark.parametrize("preset", ["tiny", "paper"])
@pytest.mark.parametrize("method", sorted(methods()))
def test_it_resolves_to_itself(preset, method):
    for sgo in (None, *SOURCES):
        config = resolved(preset=preset, method=method, sgo=sgo)
        found, chosen = resolve_again(config.canonical())
        assert (found, chosen) == (config, methods()[method])
        assert digest(found.identity()) == digest(config.identity())


@pytest.mark.parametrize(
    "assignments",
    [
        ("fidelity=faithful",),
        ("data.hub=true",),
        ("data.seed=3", "training.epochs=2.5"),
        ("models.teacher=org/name", "models.tokenizer=org/other"),
        ("plain_text.weight=0.3", "data.template='a: b #c'"),
        ("seed=7", "device=cpu", "init=pretrained", "precision=bf16", "evaluation.seeds=[3]"),
    ],
)
def test_so_does_one_with_settings_of_its_own(assignments):
    config = resolved(*assignments, method="distillm", task="samsum")
    for printed in (json.dumps(config.canonical()), yaml_text.dump(config.canonical())):
        assert resolve_again(yaml_text.parse(printed))[0] == config


def test_what_is_set_goes_on_top():
    config = resolved(method="distillm")
    assert again(config, "training.steps=9") == resolved("training.steps=9", method="distillm")
    assert again(config, "training.epochs=2") == resolved("training.epochs=2", method="distillm")
    assert again(config, "method.alpha=0.3").method.options == {"alpha": 0.3}
    assert again(config, "fidelity=faithful") == resolved("fidelity=faithful", method="distillm")
    assert again(config, "sgo.source=mixed").sgo == config.sgo.model_copy(update={"source": "mixed"})
    assert again(config, "seed=4", seed=3).seed == 4


def test_options_of_the_command_go_on_top(tmp_path):
    config = resolved()
    assert again(config, seed=3, device="cpu", init="pretrained") == resolved(seed=3, device="cpu", init="pretrained")
    assert again(config, init="init") == config
    folder = str(tmp_path)
    kept = f"data.max_train={config.data.max_train}"  # a configuration that was settled for one set of data keeps it
    assert again(config, data_dir=folder) == resolved(kept, data_dir=folder)
    assert again(config, data_dir=str(tmp_path)).models.teacher == "scratch"


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("training.stepz=3", "unknown key 'training.stepz': did you mean 'training.steps'?"),
        ("method.alhpa=0.2", "unknown key 'method.alhpa': did you mean 'method.alpha'?"),
        ("training.steps=many", "training.steps"),
        ("preset=paper", "preset cannot be set"),
        ("task=samsum", "task cannot be set"),
        ("models.name=other", "models.name cannot be set"),
        ("method.name=skl", "method.name cannot be set"),
        ("method=5", "method: expected options such as"),
        ("method.file=absent.py:MINE", "there is no file absent.py"),
    ],
)
def test_what_is_wrong_with_it_is_told_as_ever(assignment, words):
    with pytest.raises(BenchError) as caught:
        again(resolved(), assignment)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trainign": {}}, "unknown key 'trainign': did you mean 'training'?"),
        ({"training": {"stepz": 5, "batch_size": 4, "learning_rate": 1, "steps": 5}}, "unknown key 'training.stepz'"),
        ({"training": {"steps": 5, "batch_size": 4}}, "training.learning_rate"),
        ({"seed": "x"}, "seed: "),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"task": "samsun"}, "unknown task 'samsun': did you mean 'samsum'?"),
        ({"method": {"name": "srlk"}}, "unknown method 'srlk': did you mean 'srkl'?"),
        ({"method": {"name": "srkl", "alhpa": 1}}, "unknown key 'method.alhpa': did you mean 'method.alpha'?"),
        ({"preset": "../up"}, "preset: a name cannot begin with '.'"),
        ({"preset": " "}, "preset: expected a name"),
    ],
)
def test_what_is_wrong_in_it_is_told(changes, words):
    with pytest.raises(BenchError) as caught:
        resolve_again(resolved().canonical() | changes)
    assert words in str(caught.value)


# --- a method from a file -------------------------------------------------------------------------------------------


def test_a_method_is_found_again_in_its_file(own_file):
    config = resolved("method.scale=2", method=f"{own_file}:MINE")
    assert config.method.file == f"{own_file}:MINE"
    assert again(config) == config
    assert resolve_again(config.canonical())[1].objective().scale == 1.0
    assert again(config, "method.scale=3").method.options == {"scale": 3.0}


def test_where_the_file_lies_does_not_make_another_run_its_contents_do(own_file, tmp_path):
    config = resolved(method=f"{own_file}:MINE")
    moved = tmp_path / "elsewhere.py"
    own_file.rename(moved)
    with pytest.raises(BenchError, match=r"there is no file .*own\.py"):
        again(config)
    other = again(config, f"method.file={moved}:MINE")
    assert other.method.file == f"{moved}:MINE"
    assert other != config
    assert other.identity() == config.identity()
    moved.write_text(OWN.replace("1.0", "2.0"))
    assert resolved(method=f"{moved}:MINE").identity() != config.identity()


def test_a_file_that_has_changed_is_refused_unread(own_file, tmp_path):
    config = resolved(method=f"{own_file}:MINE")
    changed = OWN + f"\nopen({str(tmp_path / 'ran')!r}, 'w')\n"
    own_file.write_text(changed)
    with pytest.raises(BenchError) as caught:
        again(config)
    for sha256 in (config.method.file_sha256, hashlib.sha256(changed.encode()).hexdigest()):
        assert sha256 in str(caught.value)
    assert "--set method.file_sha256=null" in str(caught.value)
    assert not (tmp_path / "ran").exists()
    assert again(config, "method.file_sha256=null") == resolved(method=f"{own_file}:MINE")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("null", "method.file is missing: the method mine comes from a file (SHA-256 "),
        ("{path}:YOURS", "expected path/to/file.py:NAME with the method mine"),
        ("{path}:OTHER", "it defines no 'OTHER'; of this kind it defines: MINE, YOURS"),
        ("srkl", "method.file=srkl: expected path/to/file.py:NAME with the method mine"),
    ],
)
def test_another_file_than_the_methods_is_refused(own_file, file, words):
    config = resolved(method=f"{own_file}:MINE")
    with pytest.raises(BenchError) as caught:
        again(config, f"method.file={file.format(path=own_file)}")
    assert words in str(caught.value)


def test_a_task_is_found_again_in_its_file(tmp_path):
    file, moved = tmp_path / "news.yaml", tmp_path / "moved.yaml"
    file.write_text(
        "name: news\nmetrics: [rouge_l]\nprompt_columns: [text]\nresponse_column: summary\n"
        'templates: {short: "{text}"}\n'
    )
    config = resolved(task=str(file), data_dir=str(tmp_path))
    assert (config.task, config.task_file) == ("news", str(file))
    assert again(config) == config
    file.rename(moved)
    with pytest.raises(BenchError, match=r"news\.yaml: cannot be read"):
        again(config)
    other = again(config, f"task_file={moved}")
    assert other.task_file == str(moved)
    assert other.identity() == config.identity()
    with pytest.raises(BenchError, match="unknown task 'news'"):
        again(config, "task_file=null")


def test_without_a_configuration_the_file_is_chosen_with_the_method(own_file):
    for assignment in (f"method.file={own_file}:YOURS", "method.file_sha256=abc", "method.name=yours"):
        with pytest.raises(BenchError, match="cannot be set: choose it with --method"):
            resolved(assignment, method=f"{own_file}:MINE")
    with pytest.raises(BenchError, match=r"method\.file cannot be set: choose it with --method"):
        resolved(f"method.file={own_file}:MINE")
