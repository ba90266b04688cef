"""Options that several commands share, and the runs that they choose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import warn
from bench.system.errors import BenchError

if TYPE_CHECKING:
    from paper_tables.numbers.runs import RunIndex

PRESET = click.option(
    "--preset",
    default="tiny",
    show_default=True,
    metavar="NAME_OR_FILE",
    help="Use the runs of this preset: tiny, small, paper, or a file of yours.",
)
SEEDS = click.option("--seeds", metavar="LIST", help="Use these training seeds only, such as 10,20,30.")
KEY = click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="KEY",
    help="Where runs cannot be compared, use those of this comparison key.",
)
RESAMPLES = click.option(
    "--resamples", type=click.IntRange(100, 1_000_000), default=10_000, show_default=True, help="Bootstrap resamples."
)


def selects_runs(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options that choose runs: --preset, --seeds and --key."""
    return PRESET(SEEDS(KEY(command)))


def parse_seeds(text: str | None) -> tuple[int, ...]:
    """Training seeds in a comma-separated list.

    Raises:
        BenchError: something in it is no whole number.
    """
    try:
        return tuple(sorted({int(part) for part in (text or "").split(",") if part.strip()}))
    except ValueError as error:
        raise BenchError(f"--seeds {text}: expected whole numbers such as 10,20,30") from error


def run_index(out: Path, preset: str, seeds: str | None, keys: tuple[str, ...]) -> RunIndex:
    """The runs that these options choose; what is left out is told on standard error.

    Raises:
        BenchError: seeds that are no whole numbers, nothing recorded under the preset, or no run of a key.
    """
    from bench.record.store import Store
    from paper_tables.numbers.runs import RunIndex

    return RunIndex(Store(out, warn), preset, parse_seeds(seeds), keys, warn)
