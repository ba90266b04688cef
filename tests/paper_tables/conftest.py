"""The command as an installed package would have it, and a results folder with runs for table 1."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from click.testing import Result

import bench.plugins
from tests.conftest import invoke
from tests.records import write_record

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
DECLARED = PROJECT["entry-points"][bench.plugins.ENTRY_POINTS]
MEANS = {"kld": 30.0, "rkld": 31.0, "jsd": 24.0, "skl": 33.0}


@pytest.fixture
def command(monkeypatch) -> Callable[..., Result]:
    """`bench ARGUMENTS` with the commands that pyproject.toml declares, installed anew or not."""
    return declared(monkeypatch)


def declared(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The same for as long as a patch lasts."""
    points = [EntryPoint(name, value, bench.plugins.ENTRY_POINTS) for name, value in DECLARED.items()]
    monkeypatch.setattr(bench.plugins, "entry_points", lambda group: points)

    def run(*arguments: object) -> Result:
        return invoke(*(str(argument) for argument in arguments))

    return run


@pytest.fixture
def out(tmp_path) -> Path:
    """Three training seeds of four of table 1's five losses; srkl is missing."""
    return write_table_1(tmp_path / "out")


def write_table_1(folder: Path) -> Path:
    """Write these records below a folder."""
    for method, mean in MEANS.items():
        for seed in (10, 20, 30):
            write_record(folder, method, seed=seed, mean=mean, init="init")
    return folder
