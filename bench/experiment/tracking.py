"""An experiment tracker beside the record: a run's figures while it trains. What fails there does not reach the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config.sections import Config
from bench.system.environment import prepare_accelerate
from bench.system.errors import BenchError

if TYPE_CHECKING:
    import torch
    from accelerate.tracking import GeneralTracker

PROJECT = "distillm-bench"
FOLDER = "tracking"
"""Below the results folder, where trackers that write files have theirs."""
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
        open_backend: opens accelerate's tracker; None = there is none.
        note: told once if it fails.
    """

    def __init__(self, open_backend: Callable[[], GeneralTracker] | None, note: Callable[[str], None]) -> None:
        self._note, self._backend = note, None
        if open_backend is not None:
            self._backend = self._tried(open_backend)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Send some figures of a step."""
        if (backend := self._backend) is not None:
            self._tried(lambda: backend.log(values, step=step))

    def close(self) -> None:
        """End the run at the tracker."""
        if (backend := self._backend) is not None:
            self._tried(backend.finish)

    def _tried(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:  # whatever a service or its client does, the run goes on
            self._backend = None
            self._note(f"the tracker failed, and the run goes on without it: {type(error).__name__}: {error}")
            return None


@contextmanager
def tracked(
    config: Config, run_id: str, device: torch.device, out: Path, note: Callable[[str], None], *, leads: bool
) -> Iterator[Tracker]:
    """The tracker that a configuration names, for the time of a run.

    Args:
        config: says which.
        run_id: names the run there; one that goes on goes on there.
        device: the run's.
        out: the results folder.
        note: told if it fails.
        leads: whether this process is the one of the run's that tells.
    """
    wanted = config.tracking != "none" and leads
    tracker = Tracker((lambda: _backend(config, run_id, device, out)) if wanted else None, note)
    try:
        yield tracker
    finally:
        tracker.close()


def _backend(config: Config, run_id: str, device: torch.device, out: Path) -> GeneralTracker:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    prepare_accelerate(device, config.precision)  # its trackers ask it which process they are in
    kind = LOGGER_TYPE_TO_CLASS[config.tracking]
    folder = str(out / FOLDER)
    match config.tracking:
        case "tensorboard":
            backend = kind(run_id, logging_dir=folder)
        case "mlflow":
            backend = kind(PROJECT, logging_dir=folder, run_name=run_id)
        case "wandb":
            backend = kind(PROJECT, id=run_id, dir=folder, resume="allow")
        case _:
            backend = kind(PROJECT, name=run_id, resume="allow")
    if hasattr(backend, "start"):
        backend.start()
    backend.store_init_configuration(_flat(config.canonical()))
    return backend


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted key, as trackers take them."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return flat
