"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import from_json
from safetensors import SafetensorError

from bench.system.errors import BenchError

# safetensors reports a full disk as an error of its own
WRITE_ERRORS = (OSError, SafetensorError)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_bytes(path: Path, data: bytes | bytearray) -> None:
    """Write a file whole or not at all.

    Raises:
        BenchError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if part.parent.is_dir():
            part.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Wait until a file that a library has written is on the disk, so that a power cut cannot take it back."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def cannot_write(path: Path, error: Exception) -> BenchError:
    """The error for a path that cannot be written, with its reason."""
    reason = getattr(error, "strerror", None) or error
    # safetensors gives no number; where a file could be opened, it is the disk that is full
    full = isinstance(error, SafetensorError) or getattr(error, "errno", None) in _FULL
    remedy = "Free some space or choose another folder" if full else "Choose another folder"
    return BenchError(
        f"cannot write {path}: {reason}. {remedy} (--out for records, the variable BENCH_CACHE for what runs share) "
        "and repeat the command: nothing that was written before is lost."
    )


def write_json(path: Path, value: object) -> None:
    """Write plain values as readable JSON."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON written by `write_json`."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_jsonl_gz(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as gzip JSON lines; equal rows give equal bytes."""
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    write_bytes(path, gzip.compress(text.encode(), mtime=0))


def read_jsonl_gz(path: Path) -> list[dict[str, Any]]:
    """Read rows written by `write_jsonl_gz`."""
    text = gzip.decompress(path.read_bytes())
    # one call: a fraction of the time of a call a row
    rows: list[dict[str, Any]] = from_json(b"[" + text.rstrip(b"\n").replace(b"\n", b",") + b"]")
    return rows


def is_whole(path: Path) -> bool:
    """Whether rows written by `write_jsonl_gz` are there and can be read to the end."""
    try:
        read_jsonl_gz(path)
    except (OSError, EOFError, ValueError, zlib.error):
        return False
    return True


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
