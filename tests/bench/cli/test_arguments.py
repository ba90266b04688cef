"""Arguments that are empty, of the wrong kind, or say two things at once; code of the user's that fails."""

from __future__ import annotations

import os
import socket

import click
import pytest

import bench
from bench.cli.main import main
from bench.experiment import run as experiment
from bench.metrics.exact_match import ExactMatch
from bench.metrics.metric import score_texts
from bench.record.store import Store
from bench.system.errors import BenchError
from tests.conftest import invoke, short
from tests.records import make_record

pytestmark = pytest.mark.usefixtures("cache")

OPTIONS = [
    (name, option.opts[0])
    for name, command in main.commands.items()
    for option in command.params
    if isinstance(option, click.Option) and not option.is_flag
]


def refused(*arguments: str) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert "error: " in result.stderr
    assert "Traceback" not in result.output
    return result.stderr


@pytest.mark.parametrize("value", ["", " ", "a\0b"], ids=["empty", "blank", "NUL"])
@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_no_option_is_empty(command, option, value):
    assert f"{option}: " in refused(command, option, value)
    if value == "":
        assert f"{option}: none given: the value is empty" in refused(command, f"{option}=")


@pytest.mark.parametrize("command", ["show", "compare", "suite", "tables", "claims", "figures", "make-teachers"])
def test_no_argument_is_empty(command):
    assert "argument 1: none given: the value is empty" in refused(command, "")


def test_python_takes_no_empty_value_either():
    for given in ({"data_dir": ""}, {"task": ""}, {"method": ""}, {"out": ""}, {"settings": {"data.dir": ""}}):
        with pytest.raises(BenchError):
            bench.run(**given)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--set", "data.max_train="], "there is no value after the ="),
        (["run", "--set", "training.steps=5", "--set", "training.epochs=3"], "both are the length"),
        (["run", "--set", "training={steps: 5}", "--set", "training.epochs=3"], "both are the length"),
        (["run", "--set", "fidelity=[]"], "fidelity: expected faithful"),
        (["run", "--set", 'training.select_by="\\ud800"'], "half of a surrogate pair"),
        (["run", "--set", "sgo.beams=10000000000"], "beams must be at most"),
        *((["tables", "--seeds", seeds], "--seeds") for seeds in ("10,,20", "-1", "10,10", ",", "1e3", "9" * 30)),
        (["suite", "table1", "--set", "seed=3"], "choose training seeds with --seeds"),
        (["suite", "table1", "--set", "sgo={source: on-policy}"], "differ in sgo.source"),
        (["suite", "alpha", "--set", "method.alpha=0.3"], "differ in method.alpha"),
        (["suite", "table1", "--only", "srlk"], "the nearest is srkl"),
        (["perf", "--device", "cdua"], "no such device"),
    ],
)
def test_refused(arguments, words, tmp_path):
    assert words in refused(*arguments, "--out", str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_later_layer_may_choose_the_other_length(tmp_path):
    (tmp_path / "own.yaml").write_text("extends: tiny\ntraining: {steps: 7}\n")
    result = invoke("run", "--dry-run", "--preset", str(tmp_path / "own.yaml"), "--set", "training.epochs=2")
    assert "steps: null\n  epochs: 2" in result.stdout[result.stdout.index("\ntraining:") :]


@pytest.fixture(params=["file", "pipe", "socket"])
def no_folder(request, tmp_path, monkeypatch):
    path = tmp_path / "it"
    if request.param == "file":
        path.write_text("")
    elif request.param == "pipe":
        os.mkfifo(path)
    else:
        monkeypatch.chdir(tmp_path)  # the names of sockets are short
        socket.socket(socket.AF_UNIX).bind("it")
    return str(path)


@pytest.mark.parametrize(
    "command",
    [
        "run --out",
        "list runs --out",
        "export --to",
        "pack --to",
        "make-teachers --to",
        "suite table1 --out",
        "perf --out",
    ],
)
def test_another_kind_of_path_is_refused_before_any_work(command, no_folder):
    assert "not a folder" in refused(*command.split(), no_folder)


def test_a_pipe_or_folder_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        assert "not a file" in refused("run", "--config", str(path))
        assert "not a file" in refused("report", "--to", str(path))


def test_an_unknown_run_gets_the_nearest_ids(tmp_path):
    for method in ("distillm", "kld", "srkl"):
        Store(tmp_path).write(*make_record(method, "dolly", 10))
    ids = {record.config.method.name: record.run_id for record in Store(tmp_path).all()}
    message = refused("show", "dolly-kdl", "--out", str(tmp_path))
    assert f"the nearest ids: {ids['kld']}," in message
    assert ids["kld"] in refused("compare", f"{ids['kld'][:-1]}x", ids["srkl"], "--out", str(tmp_path))
    assert "there is no record.json at this path" in refused("show", "/no/such/path", "--out", str(tmp_path))


METHOD = """
import sys, torch
from dataclasses import dataclass
from typing import ClassVar
from distillm import Method, kld

@dataclass(frozen=True)
class Mine:
    needs_teacher: ClassVar[bool] = True
    per_token: ClassVar[bool] = {per_token}

    def __call__(self, student_logits, teacher_logits, tokens, batch):
        x = kld(student_logits, teacher_logits)
        {body}

METHOD = Method("mine", Mine, "dataset", "pretrained", "none", "a test")
"""


@pytest.mark.parametrize("per_token", [True, False])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return x.tolist()", "Mine returned list, expected a tensor of shape"),
        ("return None", "Mine returned NoneType"),
        ("return x.detach()", "without gradient"),
        ("return x.long()", "expected torch.float32"),
        ("return x * float('nan')", "not finite"),
        ("sys.exit(3)", "own.py, line 14: SystemExit: 3"),
        ("raise KeyError('a')", "own.py, line 14: KeyError: 'a'"),
        ("torch.empty(10**15)", "out of memory in the stage training"),
    ],
)
def test_an_objective_that_does_not_do_its_part(body, words, per_token, tmp_path):
    (tmp_path / "own.py").write_text(METHOD.format(body=body, per_token=per_token))
    method = ("run", "--method", f"{tmp_path / 'own.py'}:METHOD", "--task", "iwslt", "--out", str(tmp_path / "out"))
    message = refused(*method, *short(init_training__steps=1))
    assert words in message
    if "memory" in words:
        assert "--set training.micro_batch_size=" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("class Odd(BaseException): pass\nraise Odd('x')", "Odd: x"),
        ("def x(:", "SyntaxError"),
        ("import nothing_there", "No module named 'nothing_there'"),
        ("x = 5", "it defines no 'METHOD'"),
        ("def __getattr__(name): raise KeyError(name)", "own.py, line 2: KeyError: 'METHOD'"),
        ("class E(Exception):\n    def __str__(self): raise ValueError('e')\nraise E", "own.py, line 3: ValueError: e"),
        ("METHOD = 5", "expected a distillm.Method, got int"),
        (METHOD.format(body="", per_token=True).replace('"dataset"', "['dataset']"), "source: expected a text"),
        (METHOD.format(body="", per_token=True).replace("Mine, ", "Mine(), "), "must be a dataclass"),
    ],
)
def test_a_file_that_gives_no_method(content, words, tmp_path):
    (tmp_path / "own.py").write_text(f"print('said')\n{content}")
    result = invoke("run", "--method", f"{tmp_path / 'own.py'}:METHOD", "--dry-run")
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


@pytest.mark.parametrize("score", [None, float("nan"), "high", [1, 2]])
def test_a_metric_that_gives_no_number(score):
    class Own(ExactMatch):
        def example(self, prediction, references):
            return score

    with pytest.raises(BenchError, match="expected a finite number for an example"):
        score_texts(Own(), ["a"], [["a"]])


def test_what_stands_in_the_way_of_a_run_is_refused_before_it_trains(tmp_path, monkeypatch):
    first = invoke("run", "--method", "sft", "--task", "iwslt", "--out", str(tmp_path), *short())
    folder = next((tmp_path / "runs").iterdir())
    assert first.exit_code == 0, first.output
    (folder / "record.json").unlink()
    (folder / "record.json").mkdir()
    monkeypatch.setattr(experiment, "make", None)  # so that training would be noticed
    message = refused("run", "--method", "sft", "--task", "iwslt", "--out", str(tmp_path), *short())
    assert "record.json: cannot write or read there: it is a folder, not a file" in message
