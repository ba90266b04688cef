"""How the state of a training is kept on disk, so that a killed process goes on in the same numbers."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file, save_model
from transformers import PreTrainedModel

from bench.system.files import (
    WRITE_ERRORS,
    cannot_write,
    damage,
    follow_umask,
    publish,
    read_json,
    remove,
    remove_leftovers,
    seal,
    write_json,
)
from bench.training.optimiser import Optimiser
from bench.training.sharded import load_trained
from bench.training.state import TrainerState
from distillm import BatchObjective, Objective, OutputSource

MANIFEST = "checksums.json"
MOST_OF_TIME = 0.02
"""The share of a training's time that saving may take."""


class Pace:
    """When to save: as often as asked for, and so seldom that saving takes at most `MOST_OF_TIME` of the time.

    What a save costs is known from the last one.

    Args:
        least_seconds: between two saves; at a validation a save may come sooner.
    """

    def __init__(self, least_seconds: float) -> None:
        self.least_seconds, self.saved_at, self.cost = least_seconds, time.monotonic(), 0.0

    def is_due(self, *, validating: bool) -> bool:
        """Whether to save now."""
        waited = time.monotonic() - self.saved_at
        return waited * MOST_OF_TIME >= self.cost and (validating or waited > self.least_seconds)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Learn from a save what the next one costs."""
        begun = time.monotonic()
        yield
        self.saved_at = time.monotonic()
        self.cost = self.saved_at - begun


def save_weights(network: PreTrainedModel, path: str, collected: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write the weights that a training changes: all, or the adapters in a network that is frozen otherwise.

    Of a network whose layers are shared out they were `collected`.
    """
    if collected is not None:
        save_file(dict(collected), path)
    elif all(weight.requires_grad for weight in network.parameters()):
        save_model(network, path)
    else:
        trained = {name: weight.detach() for name, weight in network.named_parameters() if weight.requires_grad}
        save_file(trained, path)


class Checkpoints:
    """Checkpoints of one training in one folder: whole or not there, the last one only."""

    def __init__(
        self,
        folder: Path,
        network: PreTrainedModel,
        optimiser: Optimiser,
        output_source: OutputSource,
        objective: Objective,
        note: Callable[[str], None],
    ) -> None:
        self.folder, self.network, self.optimiser, self.output_source = folder, network, optimiser, output_source
        self.objective, self.note = objective, note
        self._sealed_best: Path | None = None  # of the last checkpoint, which would be damaged without it

    def load(self) -> TrainerState | None:
        """Restore network, optimiser and output source from the last checkpoint; None if there is none.

        A damaged one is named and dropped: its training begins again. What a killed process left unfinished goes, too.
        """
        remove_leftovers(self.folder)
        last = self._last_intact()
        if last is None:
            return None
        if (last / "model.safetensors").is_file():  # of a training that is over, the best weights are enough
            load_trained(self.network, last / "model.safetensors")
            self.optimiser.load(load_file(last / "optimiser.safetensors"))
        saved = read_json(last / "state.json")
        self.output_source.load_state_dict(saved["output_source"])
        if isinstance(self.objective, BatchObjective):
            self.objective.load_state_dict(saved["objective"])
        state = TrainerState(**saved["state"])
        self._sealed_best = self.best_path(state)
        state.resumes += 1
        return state

    def _last_intact(self) -> Path | None:
        for found in sorted(self.folder.glob("step-*"), reverse=True):
            damaged = damage(found / MANIFEST)
            if damaged is None:
                return found
            self.note(f"checkpoint {found} is damaged ({damaged} was lost or changed); it is dropped")
            remove(found)
        return None

    def save(
        self,
        state: TrainerState,
        moments: dict[str, torch.Tensor],
        collected: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Write a checkpoint, then remove what it replaces.

        After the last step nothing but the best weights is needed any more, and those lie there already.

        Args:
            state: of the training.
            moments: of the optimiser (`Optimiser.tensors`), but after the last step.
            collected: as for `save_weights`.

        Raises:
            BenchError: the folder cannot be written or the disk is full; the last checkpoint stays.
        """
        final = self.folder / f"step-{state.step:08d}"
        partial = self.folder / ".step.part"
        try:
            remove(partial)
            partial.mkdir(parents=True)
            best = self.best_path(state)
            if state.step < state.total_steps:
                same = best if state.step == state.best_step else None
                self._save_weights(partial / "model.safetensors", same, collected)
                save_file(moments, partial / "optimiser.safetensors")
            saved: dict[str, Any] = {"state": asdict(state), "output_source": self.output_source.state_dict()}
            if isinstance(self.objective, BatchObjective):
                saved["objective"] = self.objective.state_dict()
            write_json(partial / "state.json", saved)
            seal(partial / MANIFEST, also=[best] if best.is_file() else [])
            publish(partial, final)
            self._sealed_best = best
            for old in [*self.folder.glob("step-*"), *self.folder.glob("best-*")]:
                if old not in (final, best):
                    remove(old)
        except WRITE_ERRORS as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise cannot_write(final, error) from error

    def _save_weights(self, path: Path, same: Path | None, collected: Mapping[str, torch.Tensor] | None) -> None:
        """Write the present weights, or give a file that holds the same ones a second name."""
        if same is None:
            save_weights(self.network, str(path), collected)
            return
        try:
            os.link(same, path)
        except OSError:  # a file system without links
            shutil.copyfile(same, path)

    def save_best(self, state: TrainerState, collected: Mapping[str, torch.Tensor] | None = None) -> None:
        """Keep the present weights as the best; those of the last checkpoint stay until the next one is written.

        Raises:
            BenchError: as for `save`.
        """
        path = self.best_path(state)
        partial = self.folder / ".best.part"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_weights(self.network, str(partial), collected)
            follow_umask([partial])
            publish(partial, path)
            for old in self.folder.glob("best-*"):
                if old not in (path, self._sealed_best):
                    remove(old)
        except WRITE_ERRORS as error:
            partial.unlink(missing_ok=True)
            raise cannot_write(path, error) from error

    def best_path(self, state: TrainerState) -> Path:
        """File of the best weights so far."""
        return self.folder / f"best-{state.best_step:08d}.safetensors"
