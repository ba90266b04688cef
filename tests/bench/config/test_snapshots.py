"""The resolved configurations as they stand in `tests/golden/configs`: a changed default shows in review.

Write them again with `UPDATE_GOLDEN=1 python -m pytest tests/bench/config/test_snapshots.py`.
"""

import itertools
import os
from pathlib import Path

import pytest

from bench.config.comparable import differences
from bench.config.presets import shipped
from bench.config.registry import methods
from bench.config.resolve import resolve
from bench.data import TASKS
from bench.system import yaml_text

FOLDER = Path(__file__).parents[2] / "golden" / "configs"
METHODS = FOLDER / "methods.yaml"
CASES = list(itertools.product(shipped("presets"), TASKS))


def resolved(preset: str, task: str, method: str = "srkl") -> dict:
    return resolve(preset=preset, task=task, method=method)[0].canonical()


def of_methods() -> dict:
    """By preset and method: in what the method's configuration on Dolly differs from the one of srkl."""
    found: dict = {}
    for preset in shipped("presets"):
        usual = resolved(preset, "dolly")
        for name in sorted(methods()):
            rows = differences(usual, resolved(preset, "dolly", name))
            found.setdefault(preset, {})[name] = {row.key: row.second for row in rows}
    return found


def snapshot(path: Path, values: dict) -> dict:
    """What a file holds; with UPDATE_GOLDEN, the values, which are written to it."""
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml_text.dump(values), encoding="utf-8")
    return yaml_text.read(path)


@pytest.mark.parametrize(("preset", "task"), CASES)
def test_every_preset_and_task(preset, task):
    config = resolved(preset, task)
    assert snapshot(FOLDER / f"{preset}-{task}.yaml", config) == config


def test_every_method():
    found = of_methods()
    assert snapshot(METHODS, found) == found


def test_no_snapshot_is_left_over():
    assert {path.name for path in FOLDER.iterdir()} == {METHODS.name, *(f"{p}-{t}.yaml" for p, t in CASES)}
