"""An experiment tracker beside the record: a run's figures while it trains. What fails there does not reach the run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config.sections import Config
from bench.system.errors import BenchError

if TYPE_CHECKING:
    import torch
    from accelerate.tracking import GeneralTracker

PROJECT = "distillm-bench"
FOLDER = "tracking"
"""Below the results folder, where TensorBoard and W&B have their files."""
_LAUNCHERS = ("ACCELERATE_", "LOCAL_", "RANK", "WORLD_SIZE", "OMPI_", "PMI_", "MV2_")
"""Beginnings of variables that accelerate takes a number of processes or a setting from."""
PACKAGES = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
}


def check_tracking(config: Config) -> None:
    """Refuse a tracker that is not installed, before any work.

    Raises:
        BenchError: it is not.
    """
    packages = PACKAGES.get(config.tracking, ())
    if packages and not any(map(find_spec, packages)):
        raise BenchError(f"tracking={config.tracking} needs {packages[0]}: pip install {packages[0]}")


class Tracker:
    """Takes figures by step; after its first failure it takes none.

    Args:
        make: makes accelerate's tracker; None = there is none.
        about: told to it first.
        note: told once if it fails.
    """

    def __init__(
        self, make: Callable[[], GeneralTracker] | None, about: dict[str, Any], note: Callable[[str], None]
    ) -> None:
        self._note = note
        self._backend: GeneralTracker | None = None
        if make is not None:
            self._tried(lambda: self._open(make, about))

    def _open(self, make: Callable[[], GeneralTracker], about: dict[str, Any]) -> None:
        backend = make()
        if hasattr(backend, "start"):
            backend.start()
        self._backend = backend
        backend.store_init_configuration(about)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Send some figures of a step."""
        if (backend := self._backend) is not None:
            self._tried(lambda: backend.log(values, step=step))

    def close(self) -> None:
        """End the run at the tracker."""
        if (backend := self._backend) is not None:
            self._tried(backend.finish)

    def _tried(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever a service or its client does, the run goes on
            backend, self._backend = self._backend, None
            self._note(f"the tracker failed, and the run goes on without it: {type(error).__name__}: {error}")
            if backend is not None:
                with suppress(Exception):  # it may not even be able to end
                    backend.finish()


@contextmanager
def tracked(
    config: Config, run_id: str, device: torch.device, out: Path, note: Callable[[str], None], *, leads: bool
) -> Iterator[Tracker]:
    """The tracker that a configuration names, for the time of a run.

    Args:
        config: says which.
        run_id: names the run there. One that goes on after an interruption goes on there, too; MLflow begins another.
        device: the run's.
        out: the results folder.
        note: told if it fails.
        leads: whether this process is the one of the run's that tells.
    """
    wanted = config.tracking != "none" and leads
    make = (lambda: _backend(config, run_id, device, out)) if wanted else None
    tracker = Tracker(make, _flat(config.canonical()), note)
    try:
        yield tracker
    finally:
        tracker.close()


def _backend(config: Config, run_id: str, device: torch.device, out: Path) -> GeneralTracker:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    _prepare_accelerate(device)
    kind = LOGGER_TYPE_TO_CLASS[config.tracking]
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    folder = str(out / FOLDER)
    match config.tracking:
        case "tensorboard":
            return kind(run_id, logging_dir=folder)
        case "mlflow":
            return kind(PROJECT, run_name=run_id)
        case "wandb":
            return kind(PROJECT, id=run_id, dir=folder, resume="allow")
        case _:
            return kind(PROJECT, name=run_id, resume="allow")


def _prepare_accelerate(device: torch.device) -> None:
    """Have accelerate's state made, whose trackers ask it which process they are in: of one process, the run's leader.

    What a launcher has set would make it join the others.
    """
    from accelerate import PartialState

    of_launcher = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_LAUNCHERS)}
    try:
        PartialState(cpu=device.type == "cpu")
    finally:
        os.environ.update(of_launcher)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted key, as trackers take them."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return flat
