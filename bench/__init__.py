"""The harness: configuration, data, the one training loop, evaluation, records, and the command `bench`.

From Python: `bench.run(...)` makes a run and returns its `bench.RunRecord`; `bench.records(folder)` reads the finished
runs of a results folder. Importing `bench` alone imports nothing else; what a function needs is imported when it is
called.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.metadata import version
from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.record.record import RunRecord as RunRecord
else:

    def __getattr__(name: str) -> object:
        if name == "RunRecord":
            from bench.record.record import RunRecord

            return RunRecord
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = version("distillm-bench")


def run(
    method: str | None = None,
    task: str | None = None,
    preset: str | None = None,
    *,
    config: str | PathLike[str] | Mapping[str, Any] | None = None,
    settings: Mapping[str, object] | None = None,
    models: str | None = None,
    teacher: str | None = None,
    student: str | None = None,
    sgo: str | None = None,
    init: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    data_dir: str | PathLike[str] | None = None,
    out: str | PathLike[str] = "results",
    fresh: bool = False,
    quiet: bool = True,
) -> RunRecord:
    """Make a run, as `bench run` does: what is recorded already is returned at once, what was interrupted goes on.

    Args:
        method, task, preset, models, teacher, student, sgo, init, seed, device, data_dir: as the options of
            `bench run`; by default srkl on samsum at the preset tiny.
        config: a whole configuration in place of method, task, preset, models, teacher, student and sgo: a file, or the
            plain values of one, such as `record.config.canonical()`.
        settings: values by dotted key, as `--set` takes them: {"training.steps": 50}.
        out: folder of the records.
        fresh: begin again whatever is there.
        quiet: show no progress on standard error.

    Raises:
        BenchError: bad input, or files that cannot be written.
    """
    import json
    import os
    from pathlib import Path

    from bench.config.resolve import Overrides, resolve, resolve_again
    from bench.experiment.recorded import at_recorded_commits
    from bench.experiment.run import run as make_run
    from bench.experiment.workshop import Workshop
    from bench.models.loading import quiet_libraries
    from bench.record.read import read_configuration
    from bench.record.store import Store
    from bench.system.errors import BenchError
    from bench.system.progress import Reporter
    from bench.system.terminal import console

    assignments = [f"{key}={json.dumps(value)}" for key, value in (settings or {}).items()]
    overrides: Overrides = {
        "init": init,
        "seed": seed,
        "device": device,
        "data_dir": data_dir,
        "assignments": assignments,
    }
    names = {"models": models, "teacher": teacher, "student": student, "sgo": sgo}
    names |= {"method": method, "task": task, "preset": preset}
    if config is None:
        choices: dict[str, Any] = {**names, **overrides}
        resolved, found = resolve(**choices)
    else:
        if given := [name for name, value in names.items() if value is not None]:
            raise BenchError(f"{', '.join(given)}: the configuration has made that choice; settings change its values")
        values = config if isinstance(config, Mapping) else read_configuration(Path(config))
        resolved, found = resolve_again(values, **overrides)
    if not os.fspath(out):
        raise BenchError("out: the name of the folder is empty")
    quiet_libraries()
    reporter = Reporter(console(err=True), quiet=quiet)
    workshop = Workshop.of(reporter)
    file = None if config is None or isinstance(config, Mapping) else Path(config)
    with at_recorded_commits(resolved, file):
        return make_run(resolved, found, Store(Path(out)), workshop, fresh=fresh).record


def records(folder: str | PathLike[str] = "results") -> list[RunRecord]:
    """The finished runs of a results folder, by the names of their folders; none where nothing is recorded yet.

    A warning names each record that cannot be read, and why.

    Args:
        folder: what `bench run --out` was given.

    Raises:
        BenchError: there is no such folder.
    """
    from pathlib import Path

    from bench.record.store import Store
    from bench.system.errors import BenchError

    root = Path(folder)
    if not root.is_dir():
        raise BenchError(f"no folder {root}; `bench run --out {root}` makes one")
    return list(Store(root, lambda message: warnings.warn(message, stacklevel=4)).all())
