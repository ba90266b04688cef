"""Options that several commands have, and how all of them print and warn."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:  # rich takes a tenth of a second, which `--help` need not
    from rich.console import Console

OUT = click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Folder of the records."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")


def warn(message: str) -> None:
    """Tell on standard error what was left out."""
    click.echo(f"warning: {message}", err=True)


def output() -> Console:
    """Standard output, for tables."""
    from rich.console import Console

    return Console(highlight=False, emoji=False)


def messages() -> Console:
    """Standard error, for progress and errors."""
    from rich.console import Console

    return Console(stderr=True, emoji=False)


def one_blas_thread() -> None:
    """Keep NumPy to one thread, if it is not yet imported: its products are small here."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
