"""Odd files of a user's: data, tasks, presets, pairs, configurations, plain text, methods, metrics."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from bench.system.errors import BenchError
from tests.conftest import short
from tests.torture.test_arguments import ended, wrong_with

GOOD = {"id": "1", "dialogue": "A: hi\nB: ho", "summary": "A greets B."}
LINE = json.dumps(GOOD).encode() + b"\n"
BYTES: dict[str, bytes] = {
    "nothing": b"",
    "empty lines": b"\n\r\n\n",
    "a mark at the beginning": b"\xef\xbb\xbf" + LINE,
    "carriage returns": LINE.replace(b"\n", b"\r\n"),
    "UTF-16": LINE.decode().encode("utf-16"),
    "Latin-1": LINE.replace(b"hi", b"\xe9"),
    "zero bytes": LINE + b"\0" * 100,
    "all bytes": bytes(range(256)),
    "a list": b"[" + LINE + b"]",
    "a number": b"5\n",
    "NaN": b'{"dialogue": NaN, "summary": "x"}\n',
    "null": b'{"dialogue": null, "summary": null}\n',
    "a list for a text": b'{"dialogue": "x", "summary": ["a", 5]}\n',
    "an empty text": b'{"dialogue": "", "summary": ""}\n',
    "half a character": b'{"dialogue": "\\ud800", "summary": "\\udfff"}\n',
    "other line ends": '{"dialogue": "a\u2028b\u0085c\x0bd", "summary": "x\u2029y"}\n'.encode(),
    "markup": b'{"dialogue": "[/red] :star: \\u001b[31m", "summary": "[/x] <b>&amp;"}\n',
    "special tokens": b'{"dialogue": "<s></s><pad><unk>", "summary": "</s>"}\n',
    "deep lists": b"[" * 100_000,
    "a deep record": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "a long word": b'{"dialogue": "' + b"x" * 300_000 + b'", "summary": "y"}\n',
    "a great number": b'{"dialogue": ' + b"9" * 5_000 + b', "summary": "y"}\n',
    "keys that stand twice": b'{"dialogue": "a", "dialogue": "b", "summary": "c"}\n',
}
YAML: dict[str, bytes] = {
    "nothing": b"",
    "a list": b"- a\n",
    "a text": b"hello\n",
    "tabs": b"name:\n\t- a\n",
    "all bytes": bytes(range(256)),
    "UTF-16": "name: x\n".encode("utf-16"),
    "an alias of itself": b"name: &a [*a]\n",
    "a mapping in itself": b"&a\nname: *a\n",
    "thousands of laughs": b"a: &a [x, x]\n"
    + b"".join(b"%c: &%c [*%c, *%c]\n" % (n, n, n - 1, n - 1) for n in range(98, 110)),
    "an object": b"!!python/object/apply:os.system ['true']\n",
    "keys that are none": b"1: 2\nnull: 3\n[a, b]: 4\n",
    "a key that stands twice": b"name: a\nname: b\n",
    "two documents": b"name: a\n---\nname: b\n",
    "times and dates": b"name: 1:30\nmetrics: 2001-01-01\n",
    "deep lists": b"name: " + b"[" * 20_000,
    "wrong kinds": b"name: [x]\nmetrics: 5\nprompt_columns: {a: b}\ntemplates: []\nmodels: 3\ntraining: x\n",
}
TASK = """name: own
metrics: [rouge_l{0}]
prompt_columns: [dialogue]
response_column: summary
templates: {{short: {1}}}
"""
TEMPLATES = """{dialogue
{}
{0}
{dialogue.__class__}
{dialogue!r:>9999999999}
{other}
''
5
'{{dialogue}}'""".splitlines()
METRICS = ("", "5", "x.py:Own", "[[]]", "'../x'")
OBJECTIVE = """
from dataclasses import dataclass
from typing import ClassVar
from distillm import Method, kld
@dataclass(frozen=True)
class Own:
    needs_teacher: ClassVar[bool] = True
    def __call__(self, student_logits, teacher_logits, tokens, batch):
        loss = kld(student_logits, teacher_logits)
        {0}
METHOD = Method("own", Own, "dataset", "sft", "none", "odd")
"""
BODIES = """return [0.0]
return None
return loss.detach()
return loss.mean()
return loss.tolist()
return loss / 0
return loss.bool()
return loss[:-1]
return loss.double()
return loss.unsqueeze(0)
return self(student_logits, teacher_logits, tokens, batch)
raise SystemExit(0)
raise ValueError('[/x]')""".splitlines()
MODULES = """METHOD = 5
METHOD =
METHOD = METHOD
import nowhere
raise SystemExit
import sys; sys.exit('[/x]')
1 / 0
print('x')
def METHOD(): pass
class METHOD: pass
from distillm import Method as METHOD""".splitlines()
METRIC = """
class Own:
    name, label, score_of_sum = "own", "own", None
    def signature(self, references): return "own"
    def example(self, prediction, references): {0}
"""
SCORES = """pass
return 'x'
return None
return float('nan')
return [1]
return {}
return 1 / 0
raise SystemExit""".splitlines()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    """A folder of good data."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for name in ("train", "validation", "test"):
        Path(f"data/{name}.jsonl").write_bytes(LINE.replace(b"hi", name.encode()))
    return tmp_path


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs stop when their data and models have been read."""

    def stop(*arguments: object) -> None:
        raise BenchError("real work would begin here")

    monkeypatch.setattr("bench.experiment.run.make", stop)


def check(*words: str, seconds: int = 30) -> None:
    found = wrong_with(ended([*words, "--quiet"] if words[0] == "run" else [*words], seconds))
    assert not found, found


@pytest.mark.parametrize("name", ["train.jsonl", "test.jsonl", "train.json", "train.csv", "train.jsonl.gz"])
@pytest.mark.usefixtures("stopped")
def test_odd_data(name, folder):
    wrong = []
    for kind, data in BYTES.items():
        path = Path("data", name)
        for other in Path("data").glob("train*" if "train" in name else "test*"):
            other.unlink()
        for content in [data] if not name.endswith(".gz") else [data, gzip.compress(data)[:-9]]:
            path.write_bytes(content)
            found = wrong_with(ended(["run", "--task", "samsum", "--data-dir", "data"], 30))
            wrong += [f"{kind}: {found}"] if found else []
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("kind", ["folder", "fifo", "link to itself", "link to nowhere", "socket"])
@pytest.mark.parametrize(
    "option", ["--data-dir", "--task", "--preset", "--models", "--config", "--method", "plain_text.file"]
)
@pytest.mark.usefixtures("stopped")
def test_what_is_no_regular_file(kind, option, folder):
    path = Path("data/test.jsonl") if option == "--data-dir" else Path("odd.py" if option == "--method" else "odd.yaml")
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        os.mknod(path, 0o140600)
    else:
        path.symlink_to(path.name if kind == "link to itself" else "nowhere")
    value = {"--data-dir": "data", "--method": f"{path}:METHOD"}.get(option, str(path))
    words = ["--set", f"{option}={path}", "--set", "plain_text.weight=1"] if "." in option else [option, value]
    check("run", *words)


@pytest.mark.parametrize("option", ["--task", "--preset", "--models", "--config", "--task, in part"])
@pytest.mark.usefixtures("stopped")
def test_odd_yaml(option, folder):
    wrong, contents = [], dict(YAML)
    if option == "--task, in part":
        contents = {text: TASK.format("", text).encode() for text in TEMPLATES}
        contents |= {text: TASK.format(f", {text}", "'{dialogue}'").encode() for text in METRICS}
    for kind, data in contents.items():
        Path("odd.yaml").write_bytes(data)
        found = wrong_with(ended(["run", option.partition(",")[0], "odd.yaml", "--data-dir", "data"], 30))
        wrong += [f"{kind}: {found}"] if found else []
    assert not wrong, "\n".join(wrong)


RUN = short(training__steps=2, init_training__steps=2, data__max_train=16, data__max_test=2, data__max_validation=2)


@pytest.mark.parametrize("code", ["", "\0", *MODULES, *BODIES])
def test_odd_methods(code, folder):
    Path("own.py").write_text(OBJECTIVE.format(code) if code in BODIES else code)
    check("run", "--method", "own.py:METHOD", "--task", "iwslt", *RUN)


@pytest.mark.parametrize("code", SCORES)
def test_odd_metrics(code, folder):
    Path("own.py").write_text(METRIC.format(code))
    Path("own.yaml").write_text(TASK.format(", 'own.py:Own'", "'{dialogue}'"))
    check(
        "run",
        "--task",
        "own.yaml",
        "--data-dir",
        "data",
        "--models",
        "tiny-t5",
        "--set",
        "teacher_training.steps=1",
        *RUN,
    )
