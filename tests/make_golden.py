"""Write files of `tests/golden` that pin what the code computes: `python -m tests.make_golden [NAME]...`.

A change of such a file is a change of the numbers that runs give: it needs a reason.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

import baselines
import distillm
from bench.training.job import TrainingJob
from bench.training.trainer import Trainer
from distillm import Method, SourceOptions
from tests import tiny

GOLDEN = Path(__file__).parent / "golden"
STEPS = 12
FAMILIES = ("llama", "t5")
METHODS = (*baselines.METHODS, *distillm.METHODS)


def trajectory(job: TrainingJob) -> dict[str, list[float]]:
    """Loss and gradient norm (before clipping) of each step of a training."""
    curve = Trainer(job).fit().curve
    return {name: [float(f"{row[name]:.7g}") for row in curve] for name in ("loss", "gradient_norm")}


def pinned_job(tokenizers: tiny.Tokenizers, family: str, method: Method, work: Path) -> TrainingJob:
    """The training whose trajectory is pinned: a method on its own output source, with its paper's options of it."""
    # buffers, rounds and phi so that twelve steps see all of them
    small = {"capacity": 4, "initial_phi": 0.5, "rollouts": 6, "inner_epochs": 2}
    options = SourceOptions(**(small | dict(method.source_options)))
    settings = {"steps": STEPS, "learning_rate": 5e-3, "warmup_steps": 2, "validations": 3}
    return tiny.make_job(tokenizers, family, method.objective(), method.source, options, work, **settings)


def trajectories() -> object:
    """By family of models and method."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tokenizers = tiny.make_tokenizers(root / "tokenizer")
        return {
            family: {
                method.name: trajectory(pinned_job(tokenizers, family, method, root / family / method.name))
                for method in METHODS
            }
            for family in FAMILIES
        }


MADE: dict[str, Callable[[], object]] = {"trajectories": trajectories}

if __name__ == "__main__":
    for name in sys.argv[1:] or MADE:
        path = GOLDEN / f"{name}.json"
        text = json.dumps(MADE[name](), indent=1)
        one_line = re.sub(r"\[[^][{}]*\]", lambda numbers: " ".join(numbers[0].split()), text)
        path.write_text(one_line + "\n", encoding="utf-8")
        print(path)
