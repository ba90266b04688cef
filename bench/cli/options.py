"""Options that several commands have, the kinds of paths they take, and how all of them print and warn."""

from __future__ import annotations

import gc
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.system import terminal
from bench.system.paths import check_file, check_folder
from bench.system.terminal import warn

if TYPE_CHECKING:  # rich takes a tenth of a second, which `--help` need not
    from rich.console import Console

__all__ = ["FILE", "FOLDER", "JSON", "OUT", "FiniteRange", "messages", "output", "prepare_to_read", "warn"]


class _Kind(click.Path):
    """A path where there is nothing yet, or a folder or a plain file: a pipe would hang, and a device be lost."""

    def __init__(self, name: str) -> None:
        super().__init__(path_type=Path)
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path.

        Raises:
            BenchError: what is there is of another kind.
        """
        path, what = Path(value), (param.opts[0] if param and param.opts else "")
        (check_folder if self.name == "folder" else check_file)(path, what)
        return path


class FiniteRange(click.FloatRange):
    """A number in a range that is neither infinite nor NaN, which click's own range lets through."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number that the option is given as."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


FOLDER, FILE = _Kind("folder"), _Kind("file")
OUT = click.option("--out", type=FOLDER, default=Path("results"), show_default=True, help="Folder of the records.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")


def output() -> Console:
    """Standard output, for tables."""
    return terminal.console()


def messages() -> Console:
    """Standard error, for progress and errors."""
    return terminal.console(err=True)


def prepare_to_read() -> None:
    """Set Python and NumPy to reading thousands of records: a fifth of the time less.

    Products of arrays are small here, so that one thread is enough. Records have no cycles, so that a search for them
    finds nothing, however often it looks through all that was read.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # where NumPy is not yet imported
    gc.disable()
    click.get_current_context().call_on_close(gc.enable)
