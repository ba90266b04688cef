"""Reading a record file of any schema up to this one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from bench.record.migrations import MIGRATIONS
from bench.record.record import SCHEMA, RunRecord
from bench.system import yaml_text
from bench.system.errors import BenchError
from bench.system.files import read_bytes, seal_holds, unsealed
from bench.system.strict import first_error


class Unreadable(Exception):
    """Why a file is no record this version reads."""


class Changed(Unreadable):
    """A record that is not what was sealed; `record` is what stands there now."""

    def __init__(self, record: RunRecord) -> None:
        told = "changed since it was written (its checksum differs); remove the checksum if you changed it"
        super().__init__(told)
        self.record = record


def read_record(path: Path) -> RunRecord:
    """The record in a file; one of an earlier schema is migrated.

    Raises:
        Unreadable: the file is damaged, of a newer schema, or no record; the first missing or wrong field is named.
    """
    data = _record_bytes(path)
    try:
        if f'"schema": {SCHEMA},'.encode() in data[:32]:  # as it is written: nothing to migrate, so it is parsed once
            with suppress(ValidationError):  # the reason is found below
                return RunRecord.model_validate_json(unsealed(data))
        found = from_json(data)
    except ValueError as error:
        raise Unreadable("damaged or cut off") from error
    if not isinstance(found, dict) or not isinstance(found.get("schema"), int) or "run_id" not in found:
        raise Unreadable("not a record of bench run")
    schema, sealed = found["schema"], found.pop("checksum", None) is not None
    if schema > SCHEMA:
        raise Unreadable(f"schema {schema}, written by a newer version (this one reads up to {SCHEMA})")
    try:
        for version in range(schema, SCHEMA):
            if version not in MIGRATIONS:
                raise Unreadable(f"schema {schema}, which cannot be brought to schema {SCHEMA}")
            found = MIGRATIONS[version](found)
        record = RunRecord.model_validate_json(to_json(found))
    except ValidationError as error:
        raise Unreadable(f"not a record of bench run: {first_error(error)}") from error
    if sealed and not seal_holds(data):
        raise Changed(record)
    return record


def has_checksum(path: Path) -> bool:
    """Whether the file of a record that was read says what its checksum is."""
    return "checksum" in from_json(_record_bytes(path))


def _record_bytes(path: Path) -> bytes:
    """What is in a record's file.

    Raises:
        Unreadable: there is no file, or it cannot be read.
    """
    try:
        return read_bytes(path)
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error


def read_configuration(path: Path) -> Mapping[str, Any]:
    """The plain values of the configuration in a file that `--dry-run` printed, as YAML or JSON, or in a record.

    Raises:
        BenchError: the file cannot be read, or holds no configuration.
    """
    found = yaml_text.read(path)
    if "schema" in found:
        try:
            return read_record(path).config.canonical()
        except Unreadable as error:
            raise BenchError(f"{path}: {error}") from error
    whole = found.get("config", found)
    if not isinstance(whole, Mapping):
        raise BenchError(f"{path}: config: expected a configuration as --dry-run prints it, got {whole!r}")
    return whole
