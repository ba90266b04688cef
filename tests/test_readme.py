"""What the README shows works as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import invoke, record_of, short

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_method_of_ones_own(cache, tmp_path):
    code = next(block for block in BLOCKS if "my_method.py" in block)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    file = tmp_path / "my_method.py"
    file.write_text(code, encoding="utf-8")
    record = record_of("run", "--method", f"{file}:METHOD", "--task", "iwslt", "--out", str(tmp_path), *short())
    assert record.config.method.name == "both-skews"


def test_the_library():
    namespace: dict[str, object] = {}
    exec(next(block for block in BLOCKS if "import torch" in block), namespace)
    assert namespace["student_logits"].grad.isfinite().all()


COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    if line.startswith("bench run")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_resolve(command, monkeypatch):
    arguments = [a for a in shlex.split(command)[1:] if a != "--dry-run"]
    result = invoke(*arguments, "--dry-run")
    assert result.exit_code == 0, result.output
