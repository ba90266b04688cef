"""Options that several commands share, and the runs that they choose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import warn
from bench.system.errors import BenchError

if TYPE_CHECKING:
    from paper_tables.numbers.runs import RunIndex

_DIGITS = 19  # fewer fit into 64 bits
PRESET = click.option(
    "--preset",
    default="tiny",
    show_default=True,
    metavar="NAME_OR_FILE",
    help="Use the runs of this preset: tiny, real, small, paper, or a file of yours.",
)
SEEDS = click.option("--seeds", metavar="LIST", help="Use these training seeds only, such as 10,20,30.")
KEY = click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="KEY",
    help="Where runs cannot be compared, use those of this comparison key.",
)

TASK = click.option(
    "--task", metavar="NAME_OR_FILE", help="Ask the same of another task's runs, such as your own; writes other files."
)
MODELS = click.option("--models", metavar="PAIR", help="With --task, the model pair.  [default: that of most runs]")


@dataclass(frozen=True)
class ChosenRuns:
    """What a command is given about the runs to read, as it was typed.

    Attributes:
        out: the results folder.
        preset: a shipped preset's name, or a file.
        seeds: a comma-separated list of training seeds; None = all.
        keys: comparison keys, for runs that cannot be compared with each other.
        task, models: another task and its model pair; None for what the paper has.
    """

    out: Path
    preset: str
    seeds: str | None
    keys: tuple[str, ...]
    task: str | None = None
    models: str | None = None

    def index(self) -> RunIndex:
        """The runs that are chosen; what is left out is told on standard error.

        Raises:
            BenchError: seeds that are no whole numbers, nothing recorded under the preset or on the task, no run of a
                key, or of any of the seeds.
        """
        if self.models is not None and self.task is None:
            raise BenchError("--models goes with --task")
        from bench.record.store import Store
        from paper_tables.numbers.runs import RunIndex

        store, seeds = Store(self.out, warn), parse_seeds(self.seeds)
        index = RunIndex(store, self.preset, seeds, self.keys, warn, self.task, self.models)
        recorded = sorted({record.seed for record in index.records})
        if seeds and recorded and not set(seeds) & set(recorded):
            known = ", ".join(map(str, recorded))
            raise BenchError(f"--seeds {self.seeds}: no run of {index.scope} has any of these; recorded are {known}")
        return index


def selects_runs(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options --preset, --seeds and --key; with those of `of_a_task` and --out they are its `runs`.

    It stands above `of_a_task` and `OUT`, whose options it takes, too.
    """

    @wraps(command)
    def with_runs(
        *,
        out: Path,
        preset: str,
        seeds: str | None,
        keys: tuple[str, ...],
        task: str | None = None,
        models: str | None = None,
        **others: Any,
    ) -> Any:
        return command(runs=ChosenRuns(out, preset, seeds, keys, task, models), **others)

    return PRESET(SEEDS(KEY(with_runs)))


def of_a_task(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options that ask the paper's tables of another task: --task and --models."""
    return TASK(MODELS(command))


def parse_seeds(text: str | None) -> tuple[int, ...]:
    """Training seeds in a comma-separated list, ascending; none where no list is given.

    Raises:
        BenchError: a part of it is no seed, or a seed stands there twice.
    """
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not (part.isascii() and part.isdigit() and len(part) < _DIGITS):
            wanted = "whole numbers from 0 on such as 10,20,30, and at least one training seed"
            raise BenchError(f"--seeds {text}: expected {wanted}; got {part!r}")
    seeds = sorted(map(int, parts))
    if twice := [str(seed) for seed, after in pairwise(seeds) if seed == after]:
        raise BenchError(f"--seeds {text}: each seed once; {', '.join(dict.fromkeys(twice))} stands there again")
    return tuple(seeds)


def parse_shard(text: str | None) -> tuple[int, int]:
    """Number and count of a part, "2/4"; the whole where none is given.

    Raises:
        BenchError: it is no such part.
    """
    if text is None:
        return 1, 1
    number, _, count = text.partition("/")
    if not all(part.isascii() and part.isdigit() and len(part) < _DIGITS for part in (number, count)):
        raise BenchError(f"--shard {text}: expected I/N, such as 1/4 to 4/4 for four parts")
    if not 1 <= int(number) <= int(count):
        raise BenchError(f"--shard {text}: parts are numbered from 1 to {count}; so begin an array of jobs at 1")
    return int(number), int(count)
