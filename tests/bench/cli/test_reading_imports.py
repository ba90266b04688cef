"""Commands that read records and lists start at once: they import nothing that trains, generates or scores."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
RUNS = ROOT / "results" / "paper-tiny" / "runs"
HEAVY = {"torch", "transformers", "nltk", "datasets", "accelerate", "tokenizers", "matplotlib", "scipy.stats"}
SCRIPT = """
import json, sys
from bench.cli.main import main

try:
    main(sys.argv[1:])
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Two published runs."""
    folder = tmp_path_factory.mktemp("results")
    for name in ("dolly-kld-dataset-s10", "dolly-srkl-dataset-s10"):
        run = next(RUNS.glob(f"{name}-*"))
        shutil.copytree(run, folder / "runs" / run.name)
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        *(
            f"list {what}"
            for what in ("methods", "sources", "settings", "fidelity", "tasks", "presets", "models", "runs")
        ),
        "show dolly-kld-dataset-s10",
        "compare dolly-kld-dataset-s10 dolly-srkl-dataset-s10",
        "export",
        "tables 3",
        "recommend --task dolly",
        "claims skew-beats-kl",
        "report",
        "verify",
    ],
)
def test_reading_commands_import_nothing_heavy(command, out):
    words = command.split() + {"--help": [], "verify": [str(out)]}.get(command, ["--out", str(out)])
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    modules = set(json.loads(done.stderr.splitlines()[-1]))
    assert "bench.cli.main" in modules
    scores_again = {"nltk", "scipy.stats"} if command == "verify" else set()
    assert sorted(modules & HEAVY - scores_again) == []
    if command == "--help":
        assert sorted(modules & {"pydantic", "numpy", "yaml", "bench.record.store"}) == []
