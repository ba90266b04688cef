"""Options that several commands have, and how all of them warn."""

from __future__ import annotations

from pathlib import Path

import click

OUT = click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Folder of the records."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")


def warn(message: str) -> None:
    """Tell on standard error what was left out."""
    click.echo(f"warning: {message}", err=True)
