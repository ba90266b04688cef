"""The record of a measurement: every sample, and what it was taken on. Written once and never overwritten."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Literal

from bench.perf.measure import Comparison, Part
from bench.system.errors import BenchError
from bench.system.files import read_sealed_json, write_sealed_json
from bench.system.manifest import Environment, Plain

FOLDER = "perf"


class PerfRecord(Plain):
    """One call of `bench perf`.

    Attributes:
        started: UTC.
        seconds: wall-clock of the whole.
        quick: whether sizes and rounds were the fewer ones.
        parts: what was measured.
        environment: hardware, versions, commit, threads.
        libraries: versions of TRL, Liger and Triton, where they are installed.
        comparisons: in the order in which they were measured.
    """

    schema_version: Literal[1] = 1
    started: datetime.datetime
    seconds: float
    quick: bool
    parts: list[Part]
    environment: Environment
    libraries: dict[str, str]
    comparisons: list[Comparison]

    @property
    def name(self) -> str:
        """Hardware and date, as a file's name."""
        here = self.environment
        hardware = here.device_name if here.device == "cuda" else f"{here.cpu} {here.threads} threads"
        slug = re.sub(r"[^a-z0-9]+", "-", hardware.lower()).strip("-")
        return f"{slug}-{self.started:%Y-%m-%d-%H%M%S}"


def write(record: PerfRecord, out: Path) -> Path:
    """Write a record whole, under a name that no other has; returns where.

    Raises:
        BenchError: the folder cannot be written.
    """
    folder = out / FOLDER
    path = next(path for n in range(1000) if not (path := folder / f"{record.name}{f'-{n}' * bool(n)}.json").exists())
    write_sealed_json(path, record.model_dump(mode="json"))
    return path


def read(path: Path) -> PerfRecord:
    """A record from its file.

    Raises:
        BenchError: it is none.
    """
    try:
        return PerfRecord.model_validate(read_sealed_json(path))
    except (OSError, ValueError) as error:
        raise BenchError(f"{path}: no record of `bench perf`: {error}") from error
