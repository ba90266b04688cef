"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import codecs
import errno
import gzip
import hashlib
import json
import os
import stat
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

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
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = json.loads(
            f"[{','.join(file)}]"
        )  # one call: a fraction of the time of a call a row
        return rows


def is_whole(path: Path) -> bool:
    """Whether rows written by `write_jsonl_gz` are there and can be read to the end."""
    try:
        read_jsonl_gz(path)
    except (OSError, EOFError, ValueError, zlib.error):
        return False
    return True


def require_file(path: Path) -> None:
    """Refuse what is no regular file: opening a named pipe waits for ever, reading a device may never end.

    Raises:
        BenchError: there is nothing, or it is a folder, pipe, socket or device.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise BenchError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
        raise BenchError(f"{path}: is {kinds.get(stat.S_IFMT(mode), 'a device')}, expected a file")


def read_text(path: Path) -> str:
    """The text of a user's file, in UTF-8 with or without a byte order mark; line ends stay as they are.

    Raises:
        BenchError: it is no regular file, cannot be read, or is not UTF-8.
    """
    require_file(path)
    try:
        return decoded(path, path.read_bytes())
    except OSError as error:
        raise BenchError(f"{path}: cannot be read: {error.strerror or error}") from error


def decoded(path: Path, content: bytes, line: int = 1) -> str:
    """Bytes of a file as text, without a byte order mark at its beginning.

    Raises:
        BenchError: they are not UTF-8; it names the line, counted from `line`, which is that of the first byte.
    """
    try:
        return (content.removeprefix(codecs.BOM_UTF8) if line == 1 else content).decode()
    except UnicodeDecodeError as error:
        line += content.count(b"\n", 0, error.start)
        if content.startswith(b"\x1f\x8b"):
            raise BenchError(f"{path}: it is gzip-compressed; its name must end in .gz") from error
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        raise BenchError(
            f"{path}, line {line}: not UTF-8 (byte 0x{error.object[error.start]:02x}"
            f"{', as UTF-16 begins' * wide}); convert the file to UTF-8: "
            f"iconv -f {'UTF-16' if wide else 'ISO-8859-1'} -t UTF-8 {path.name} > NEW"
        ) from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
