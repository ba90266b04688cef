"""What the README shows works as it stands."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from bench.data import SPLITS
from bench.models.language_model import LanguageModel
from bench.models.loading import load_tokenizer
from bench.models.tokenizer import TokenizerAdapter
from bench.synthetic import shipped_teacher
from tests import tiny
from tests.conftest import SHORT, invoke, record_of, short

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_method_of_ones_own(cache, tmp_path):
    code = next(block for block in BLOCKS if "my_method.py" in block)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    file = tmp_path / "my_method.py"
    file.write_text(code, encoding="utf-8")
    record = record_of("run", "--method", f"{file}:METHOD", "--task", "iwslt", "--out", str(tmp_path), *short())
    assert record.config.method.name == "both-skews"


def test_the_python_interface(cache, tmp_path, monkeypatch):
    code = next(block for block in BLOCKS if "bench.run(" in block)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    exec(code.replace('{"training.steps": 50}', repr(SHORT | {"evaluation.seeds": [10]})), namespace)
    assert namespace["record"].config.method.name == "srkl"
    assert namespace["kld"] == []


COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    if line.startswith("bench run")
]
ROWS = {split: [{"dialogue": f"{split} {i}", "summary": "short"} for i in range(3)] for split in SPLITS}
TASK = """\
name: my-task
metrics: [rouge_l, chrf]
prompt_columns: [dialogue]
response_column: summary
templates: {plain: "{dialogue}"}
template: plain
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with all that the README's commands name."""
    root = tmp_path_factory.mktemp("readme")
    for data in ("my/samsum", "my/data"):
        (root / data).mkdir(parents=True)
        for split, rows in ROWS.items():
            (root / data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = TokenizerAdapter(load_tokenizer(str(shipped_teacher("dolly"))), "causal")
    architecture = {**tiny.ARCHITECTURES["llama"], "max_position_embeddings": 512}
    for name in ("my/teacher", "my/student"):
        LanguageModel.from_scratch(architecture, tokenizer, tiny.CPU, name).save(root / name)
    (root / "my_task.yaml").write_text(TASK)
    (root / "my_preset.yaml").write_text("extends: tiny\ntraining: {steps: 20}\nmodels: tiny-t5\n")
    (root / "my_method.py").write_text(next(block for block in BLOCKS if "my_method.py" in block))
    return root


def test_there_are_commands_to_try():
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_resolve(command, folder, monkeypatch):
    monkeypatch.chdir(folder)
    words, _, target = command.partition(">")
    if "--config" in command:
        (folder / "run.yaml").write_text(invoke("run", "--dry-run").stdout)
    result = invoke(*(a for a in shlex.split(words)[1:] if a != "--dry-run"), "--dry-run")
    assert result.exit_code == 0, result.output
    if target:
        (folder / target.strip()).write_text(result.stdout)
