"""Where a training stands, and how that is kept on disk so that a killed process goes on in the same numbers."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from safetensors.torch import load_model as load_weights
from safetensors.torch import save_model as save_weights
from transformers import PreTrainedModel

from bench.system.files import WRITE_ERRORS, cannot_write, read_json, write_json
from distillm import BatchObjective, Objective, OutputSource
from distillm.sources import SourcedBatch

POINTS = 200  # of the training curve, however long the training


@dataclass
class Progress:
    """What a training has done so far, as plain values.

    Attributes:
        validations: a row per validation: step, loss (nats per response token), metric where measured.
        curve: means over windows of steps: loss, gradient norm, learning rate, phi, source shares, ...
        seconds: by phase of the clock.
        tokens_trained, tokens_generated: response tokens.
        best_step: the validation whose weights are kept.
        resumes: how often the training went on from a checkpoint; wall-clock then misses what was lost.
    """

    total_steps: int
    step: int = 0
    validations: list[dict[str, float]] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)
    window: list[dict[str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    tokens_trained: int = 0
    tokens_generated: int = 0
    best_step: int = 0
    resumes: int = 0

    def log(self, values: dict[str, float], sourced: SourcedBatch, buffer_size: int, eos_id: int) -> None:
        """Add a step to the curve."""
        row = dict(values, buffer=buffer_size)
        for decision in ("dataset", "generate", "replay"):
            row[f"share_{decision}"] = float(sourced.decision == decision)
        if sourced.decision != "dataset":
            responses = [s.response for s in sourced.batch if s.made_at is not None]
            row["sgo_length"] = sum(map(len, responses)) / len(responses)
            row["sgo_ended"] = sum(r[-1] == eos_id for r in responses) / len(responses)
            row["sgo_age"] = sum(sourced.ages) / len(sourced.ages)
        self.window.append(row)
        if self.at_point(self.step):
            keys = {key: None for row in self.window for key in row}  # in order, each once
            means = {key: [row[key] for row in self.window if key in row] for key in keys}
            self.curve.append({"step": self.step} | {key: sum(v) / len(v) for key, v in means.items()})
            self.window = []

    def at_point(self, step: int) -> bool:
        """Whether a point of the curve is drawn after this step."""
        return step % max(1, self.total_steps // POINTS) == 0 or step == self.total_steps

    @property
    def training_seconds(self) -> float:
        """All that training costs: everything but validation and checkpoints."""
        return sum(value for name, value in self.seconds.items() if name not in ("validation", "checkpoint"))

    def is_best(self, by: str) -> bool:
        """Whether the last validation is the best so far (the first of equals); remembers it if so."""
        sign = 1.0 if by == "metric" else -1.0
        last = self.validations[-1]
        earlier = [sign * row[by] for row in self.validations[1:-1]]  # the first is that before training
        if earlier and sign * last[by] <= max(earlier):
            return False
        self.best_step = int(last["step"])
        return True


class Checkpoints:
    """Checkpoints of one training in one folder: whole or not there, the last one only."""

    def __init__(
        self,
        folder: Path,
        model: PreTrainedModel,
        optimiser: torch.optim.Optimizer,
        source: OutputSource,
        objective: Objective,
    ) -> None:
        self.folder, self.model, self.optimiser, self.source = folder, model, optimiser, source
        self.objective = objective

    def load(self) -> Progress | None:
        """Restore model, optimiser and output source from the last checkpoint; None if there is none."""
        found = sorted(self.folder.glob("step-*"))
        if not found:
            return None
        last = found[-1]
        load_weights(self.model, last / "model.safetensors", strict=False)
        state = self.optimiser.state_dict()
        state["state"] = {}
        for name, tensor in load_file(last / "optimiser.safetensors").items():
            index, key = name.split(".")
            state["state"].setdefault(int(index), {})[key] = tensor
        self.optimiser.load_state_dict(state)
        saved = read_json(last / "progress.json")
        self.source.load_state_dict(saved["source"])
        if isinstance(self.objective, BatchObjective):
            self.objective.load_state_dict(saved["objective"])
        progress = Progress(**saved["progress"])
        progress.resumes += 1
        return progress

    def save(self, progress: Progress) -> None:
        """Write a checkpoint, then remove what it replaces.

        Raises:
            BenchError: the folder cannot be written or the disk is full; the last checkpoint stays.
        """
        final = self.folder / f"step-{progress.step:08d}"
        partial = self.folder / f".step.{os.getpid()}.part"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            save_weights(self.model, str(partial / "model.safetensors"))
            save_file(self._optimiser_tensors(), partial / "optimiser.safetensors")
            state: dict[str, Any] = {"progress": asdict(progress), "source": self.source.state_dict()}
            if isinstance(self.objective, BatchObjective):
                state["objective"] = self.objective.state_dict()
            write_json(partial / "progress.json", state)
            if final.exists():
                shutil.rmtree(final)
            partial.replace(final)
            for old in self.folder.glob("step-*"):
                if old != final:
                    shutil.rmtree(old)
            for old in self.folder.glob("best-*"):
                if old != self.best_path(progress):
                    old.unlink()
        except WRITE_ERRORS as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise cannot_write(final, error) from error

    def _optimiser_tensors(self) -> dict[str, torch.Tensor]:
        states = self.optimiser.state_dict()["state"]
        return {f"{index}.{key}": value for index, entry in states.items() for key, value in entry.items()}

    def save_best(self, progress: Progress) -> None:
        """Keep the present weights as the best; the ones before stay until the next checkpoint is written.

        Raises:
            BenchError: as for `save`.
        """
        path = self.best_path(progress)
        partial = self.folder / f".best.{os.getpid()}.part"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_weights(self.model, str(partial))
            partial.replace(path)
        except WRITE_ERRORS as error:
            partial.unlink(missing_ok=True)
            raise cannot_write(path, error) from error

    def best_path(self, progress: Progress) -> Path:
        """File of the best weights so far."""
        return self.folder / f"best-{progress.best_step:08d}.safetensors"
