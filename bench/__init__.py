"""The harness: configuration, data, the one training loop, evaluation, records, and the command `bench`.

From Python: `bench.records(folder)` reads the finished runs of a results folder as `bench.RunRecord`s. Importing
`bench` alone imports nothing else; what a function needs is imported when it is called.
"""

from __future__ import annotations

import warnings
from importlib.metadata import version
from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.record.record import RunRecord as RunRecord
else:

    def __getattr__(name: str) -> object:
        if name == "RunRecord":
            from bench.record.record import RunRecord

            return RunRecord
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = version("distillm-bench")


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
