"""Where tasks come from: the three that ship, installed packages, or a task file of the user's."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

from bench.data.task import TaskSpec
from bench.system import yaml_text
from bench.system.errors import BenchError, did_you_mean
from bench.system.extensions import in_file, with_packages
from bench.system.strict import validated

ENTRY_POINTS = "distillm_bench.tasks"
SUFFIXES = (".yaml", ".yml")


def read_task(path: Path) -> TaskSpec:
    """Read a task file; its metrics' files are found relative to it.

    Raises:
        BenchError: the file cannot be read or is no task; every line names the file and the key.
    """
    values = yaml_text.read(path)
    if isinstance(given := values.get("metrics"), list):
        values = values | {"metrics": [_beside(path, name) for name in given]}
    try:
        return validated(TaskSpec, values)
    except BenchError as error:
        raise BenchError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from error


def _beside(task_file: Path, name: object) -> object:
    """A metric's name; where it is a file, its path by way of the task file's folder."""
    place = in_file(name) if isinstance(name, str) else None
    return name if place is None else f"{task_file.parent / place[0]}:{place[1]}"


def _shipped() -> dict[str, TaskSpec]:
    folder = Path(str(resources.files("bench") / "data" / "tasks"))
    return {spec.name: spec for spec in map(read_task, sorted(folder.glob("*.yaml")))}


TASKS = _shipped()
"""The tasks that ship, those of the paper, by name; synthetic data ships for them."""


@cache
def tasks() -> dict[str, TaskSpec]:
    """All tasks known by name: those that ship, and those of installed packages that declare an entry point.

    An entry point stands for a `TaskSpec` or for the path of a task file.

    Raises:
        BenchError: two tasks share a name, or an entry point fails to load or gives something else.
    """
    return with_packages(TASKS, ENTRY_POINTS, _checked, "task")


def _checked(found: object, where: str) -> TaskSpec:
    spec = read_task(Path(found)) if isinstance(found, str | Path) else found
    if not isinstance(spec, TaskSpec):
        raise BenchError(f"{where}: expected a TaskSpec or a path to a task file, got {type(spec).__name__}")
    return spec


def find_task(name: str) -> TaskSpec:
    """A task by its name, or by the path of a task file (`.yaml`, `.yml`).

    Raises:
        BenchError: unknown name, or a file that is no task or takes the name of another.
    """
    if name.endswith(SUFFIXES):
        spec = read_task(Path(name))
        if spec.name in tasks():
            raise BenchError(f"{name}: name: a task named {spec.name!r} exists already; rename yours")
        return spec
    known = TASKS if name in TASKS else tasks()  # a broken package does not keep anyone from the tasks that ship
    if name not in known:
        raise BenchError(
            f"unknown task {name!r}: {did_you_mean(name, known)}\nA task of your own: --task path/to/task.yaml"
        )
    return known[name]


def task_of(name: str, file: str | None) -> TaskSpec:
    """The task of a configuration: `config.task` and `config.task_file`.

    Raises:
        BenchError: as `find_task`, and where the file's task has another name by now.
    """
    spec = find_task(file or name)
    if spec.name != name:
        raise BenchError(f"{file}: name: the configuration has the task {name!r}, but the file {spec.name!r}")
    return spec
