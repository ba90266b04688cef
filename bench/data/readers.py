"""Reading record files: JSON lines, JSON and CSV, plain or gzipped, with errors that name file and line."""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench.data.examples import DataError
from bench.system.errors import BenchError
from bench.system.files import LFS_POINTER, KeyTwice, decoded, each_key_once
from bench.system.paths import check_file

EXTENSIONS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz")
"""File name endings that can be read."""

Progress = Callable[[int, int, str], None]
"""Told how much is done, of how much, and of what."""

_TOLD_EVERY = 10_000  # lines
_KEEP_ONE = "in one object; keep one of them"
_LIST_NAME = "a file that is one list of objects must be named .json"


class RawRecord(NamedTuple):
    """A record as it stands in its source; `where` names the place in messages ("FILE, line 17")."""

    where: str
    values: dict[str, Any]


def read_records(path: Path, progress: Progress | None = None) -> Iterator[RawRecord]:
    """Read the records of a file one by one; its ending, one of `EXTENSIONS`, decides the format.

    Text is UTF-8, with or without a byte order mark. JSON is a list of objects or {"data": [...]}; CSV has a
    header. JSON lines are read as they are asked for, with no more than one of them in memory.

    Args:
        path: The file.
        progress: Told the megabytes read of JSON lines.

    Raises:
        DataError: The file cannot be read, is not in its format, or holds no record.
    """
    check_record_file(path)
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    nothing = True
    try:
        with path.open("rb") as raw:
            file = gzip.GzipFile(fileobj=raw) if path.name.endswith(".gz") else raw
            if kind == "jsonl":
                for record in _parse_jsonl(path, file, raw, progress):
                    nothing = False
                    yield record
            else:
                for record in {"json": _parse_json, "csv": _parse_csv}[kind](path, decoded(path, file.read())):
                    nothing = False
                    yield record
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: truncated or corrupt gzip file ({error}); copy or download it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except RecursionError:
        raise DataError(f"{path}: JSON nested too deeply to be a file of records") from None
    except BenchError as error:
        raise error if isinstance(error, DataError) else DataError(str(error)) from error
    if nothing:
        raise DataError(f"{path}: holds no records")


def check_record_file(path: Path) -> None:
    """Refuse what cannot be a record file, without reading it.

    Raises:
        DataError: Its name ends in none of `EXTENSIONS`, or it is not there or no file.
    """
    if not path.name.endswith(EXTENSIONS):
        raise DataError(f"{path}: unknown format; the name must end in one of {', '.join(EXTENSIONS)}")
    try:
        check_file(path, there=True)
    except BenchError as error:
        raise DataError(str(error)) from error


_DECODER = json.JSONDecoder(object_pairs_hook=each_key_once)


def _parse_jsonl(path: Path, file: Any, raw: Any, progress: Progress | None) -> Iterator[RawRecord]:
    """Records of a binary file; `raw` is the file itself where `file` unpacks it."""
    name, megabytes = str(path), path.stat().st_size // 10**6
    # only "\n" ends a line of a binary file: text would also be cut at U+2028, which JSON allows inside strings
    for number, line in enumerate(file, start=1):
        if progress is not None and number % _TOLD_EVERY == 0:
            progress(raw.tell() // 10**6, megabytes, f"MB of {path.name}")
        text = decoded(path, line, number)
        if not text.strip():
            continue
        where = f"{name}, line {number}"
        try:
            value = _DECODER.decode(text)
        except KeyTwice as error:
            raise DataError(f"{where}: {error} {_KEEP_ONE}") from error
        except ValueError as error:
            raise DataError(f"{where}: not JSON: {error}; {_likely(text.strip())}") from error
        if not isinstance(value, dict):
            raise _no_object(where, value, f"; {_LIST_NAME}" if isinstance(value, list) else "")
        yield RawRecord(where, value)


def _likely(line: str) -> str:
    """What is probably wrong with a line that is no JSON."""
    if line.startswith("["):
        return _LIST_NAME
    if line.startswith(LFS_POINTER):
        return "it is a pointer of Git LFS: git lfs pull brings the file itself"
    if "\0" in line:
        return "it holds zero bytes: the file is damaged, or UTF-16: iconv -f UTF-16LE -t UTF-8 FILE > NEW"
    if "\r" in line:
        return "lines must end in a line feed, not in a carriage return alone: tr '\\r' '\\n' < FILE > NEW"
    return "each line must be one whole JSON object"


def _parse_json(path: Path, text: str) -> list[RawRecord]:
    try:
        value = _DECODER.decode(text)
    except KeyTwice as error:
        raise DataError(f"{path}: {error} {_KEEP_ONE}") from error
    except ValueError as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(
            f"{path}{line}: not JSON: {error}; a file with one object per line must be named .jsonl"
        ) from error
    if isinstance(value, dict):
        value = value.get("data")
    if not isinstance(value, list):
        raise DataError(
            f'{path}: expected a list of objects or {{"data": [...]}}; a file with one object per line must be named '
            ".jsonl"
        )
    for number, item in enumerate(value, start=1):
        if not isinstance(item, dict):
            raise _no_object(f"{path}, record {number}", item)
    return [RawRecord(f"{path}, record {number}", item) for number, item in enumerate(value, start=1)]


def _no_object(where: str, value: object, hint: str = "") -> DataError:
    return DataError(f"{where}: expected an object with named columns, found {type(value).__name__}{hint}")


def _parse_csv(path: Path, text: str) -> list[RawRecord]:
    records = []
    previous_limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default of 128 KiB is too small
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise DataError(f"{path}, line 1: a column name stands twice in the header: {', '.join(header)}")
        if len(header) == 1 and (found := next((mark for mark in ";\t|" if mark in header[0]), None)):
            raise DataError(f"{path}, line 1: fields are separated by {found!r}, expected commas")
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
