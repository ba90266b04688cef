"""What a record file must hold to be read, and how records of earlier schemas become records of this one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from bench.files import read_json

SCHEMA = 1

Record = dict[str, Any]

MIGRATIONS: dict[int, Callable[[Record], Record]] = {}
"""From the schema that is the key to the next one; a change of `SCHEMA` adds its entry here."""


class Unreadable(Exception):
    """Why a file is no record this version reads."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow")


class _Named(_Part):
    name: str


class _Sgo(_Part):
    source: str


class _Evaluation(_Part):
    temperature: float
    top_p: float
    top_k: int | None


class _Lengths(_Part):
    max_response_length: int


class _Config(_Part):
    preset: str
    task: str
    method: _Named
    sgo: _Sgo
    init: str
    seed: int
    models: _Named
    data: _Lengths
    evaluation: _Evaluation


class _Scores(_Part):
    mean: float
    by_decoding_seed: dict[str, float]
    examples: int


class _Data(_Part):
    source: str
    examples: dict[str, int]


class _Models(_Part):
    teacher_parameters: int
    student_parameters: int


class _Training(_Part):
    steps: int
    resumes: int


class _Time(_Part):
    training_seconds: float
    phases: dict[str, float]


class _Git(_Part):
    commit: str
    changed: bool


class _Environment(_Part):
    python: str
    cpu: str
    threads: int
    device_name: str
    packages: dict[str, str]
    distillm_bench: str
    git: _Git | None


class _Validation(_Part):
    step: int


class _Shape(_Part):
    """What readers of many records rely on; `bench.experiment` writes more."""

    run_id: str
    started: str
    seconds: float
    run_hash: str
    comparison_key: str
    comparison_fields: dict[str, Any]
    config: _Config
    metric: _Named
    scores: dict[str, _Scores]
    teacher_scores: dict[str, _Scores]
    init_scores: dict[str, _Scores]
    data: _Data
    models: _Models
    training: _Training
    time: _Time
    memory: dict[str, Any]
    environment: _Environment
    validations: list[_Validation]


def read_record(path: Path) -> Record:
    """The record in a file, of this version's schema.

    Raises:
        Unreadable: the file is damaged, of a newer schema, or no record.
    """
    try:
        found = read_json(path)
    except ValueError as error:
        raise Unreadable("damaged or cut off") from error
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error
    if not isinstance(found, dict) or not isinstance(found.get("schema"), int) or "run_id" not in found:
        raise Unreadable("not a record of bench run")
    if found["schema"] > SCHEMA:
        raise Unreadable(f"schema {found['schema']}, written by a newer version (this one reads up to {SCHEMA})")
    try:
        record: Record = found
        while record["schema"] < SCHEMA:
            record = MIGRATIONS[record["schema"]](record)
    except (KeyError, TypeError) as error:
        raise Unreadable(f"schema {found['schema']}, which cannot be brought to schema {SCHEMA}") from error
    return record


def check_shape(record: Record) -> None:
    """See that a record holds what tables and listings read.

    Raises:
        Unreadable: it does not; the first missing or wrong field is named.
    """
    try:
        _Shape.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise Unreadable(f"not a record of bench run: {field}: {first['msg'].lower()}") from error
