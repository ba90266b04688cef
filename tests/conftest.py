"""Shared by all tests: a short run through the real command, in this process or in one of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bench.cli.main import main
from bench.record.record import RunRecord

SHARED = Path(__file__).resolve().parents[2] / "shared"

SHORT = {
    "training.steps": 12,
    "training.batch_size": 8,
    "training.validations": 2,
    "init_training.steps": 12,
    "evaluation.seeds": "[10]",
    "data.max_train": 64,
    "data.max_validation": 8,
    "data.max_test": 8,
}


def short(**changes: object) -> list[str]:
    """`--set` options for a run of a few seconds; keyword `a__b` stands for the key `a.b`."""
    keys = SHORT | {name.replace("__", "."): value for name, value in changes.items()}
    return [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact cache of this test process's own."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["BENCH_CACHE"] = str(folder)
    return folder


def invoke(*arguments: str) -> Result:
    """`bench ARGUMENTS` in this process; standard output and error kept apart."""
    return CliRunner().invoke(main, list(arguments))


def record_of(*arguments: str) -> RunRecord:
    """The record that `bench ARGUMENTS --json` prints."""
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return RunRecord.model_validate_json(result.stdout)


def start(*arguments: str, cache: Path, preexec: Callable[[], object] = lambda: None) -> subprocess.Popen[str]:
    """`bench ARGUMENTS` in a process of its own."""

    def prepare() -> None:
        for number in (
            signal.SIGINT,
            signal.SIGHUP,
        ):  # which what a shell or nohup starts in the background would ignore
            signal.signal(number, signal.SIG_DFL)
        preexec()

    return subprocess.Popen(
        [sys.executable, "-m", "bench.cli.main", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "BENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        preexec_fn=prepare,
    )


def shared(*parts: str) -> Path:
    """A file of the folder `shared` beside the checkout, which holds golden values, real data and models."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {'/'.join(parts)} in a folder `shared` beside the checkout")
    return path
