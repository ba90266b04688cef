"""Reading record files: JSON lines, JSON and CSV, plain or gzipped, with errors that name file and line."""

import codecs
import csv
import gzip
import io
import json
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data.examples import DataError

EXTENSIONS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz")
"""File name endings that can be read."""


@dataclass(frozen=True)
class RawRecord:
    """A record as it stands in its source; `where` names the place in messages ("FILE, line 17")."""

    where: str
    values: dict[str, Any]


def read_records(path: Path) -> list[RawRecord]:
    """Read all records of a file; its ending, one of `EXTENSIONS`, decides the format.

    Text is UTF-8, with or without a byte order mark. JSON is a list of objects or {"data": [...]}; CSV has a
    header.

    Raises:
        DataError: The file cannot be read, is not in its format, or holds no record.
    """
    if not path.name.endswith(EXTENSIONS):
        raise DataError(f"{path}: unknown format; the name must end in one of {', '.join(EXTENSIONS)}")
    text = _read_text(path)
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    try:
        records = {"jsonl": _parse_jsonl, "json": _parse_json, "csv": _parse_csv}[kind](path, text)
    except RecursionError:
        raise DataError(f"{path}: JSON nested too deeply to be a file of records") from None
    if not records:
        raise DataError(f"{path}: holds no records")
    return records


def _read_text(path: Path) -> str:
    try:
        if path.name.endswith(".gz"):
            with gzip.open(path) as file:
                content = file.read()
        else:
            content = path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: truncated or corrupt gzip file ({error}); copy or download it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 (byte 0x{content[error.start]:02x}); convert the file to UTF-8"
        ) from error


def _parse_jsonl(path: Path, text: str) -> list[RawRecord]:
    records = []
    # only "\n" ends a line: str.splitlines would also cut at U+2028, which JSON allows inside strings
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            value = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: not JSON: {error}") from error
        records.append(_as_record(where, value))
    return records


def _parse_json(path: Path, text: str) -> list[RawRecord]:
    try:
        value = json.loads(text)
    except ValueError as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(
            f"{path}{line}: not JSON: {error}; a file with one object per line must be named .jsonl"
        ) from error
    if isinstance(value, dict):
        value = value.get("data")
    if not isinstance(value, list):
        raise DataError(f'{path}: expected a list of objects or {{"data": [...]}}')
    return [_as_record(f"{path}, record {number}", item) for number, item in enumerate(value, start=1)]


def _as_record(where: str, value: object) -> RawRecord:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object with named columns, found {type(value).__name__}")
    return RawRecord(where, value)


def _parse_csv(path: Path, text: str) -> list[RawRecord]:
    records = []
    previous_limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default of 128 KiB is too small
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise DataError(f"{path}, line 1: a column name stands twice in the header: {', '.join(header)}")
        first_line = reader.line_num + 1
        for row in reader:
            where = f"{path}, line {first_line}"
            first_line = reader.line_num + 1
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(f"{where}: {len(row)} fields, but the header names {len(header)}")
            records.append(RawRecord(where, dict(zip(header, row, strict=True))))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV: {error}") from error
    finally:
        csv.field_size_limit(previous_limit)
    return records
