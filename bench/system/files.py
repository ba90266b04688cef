"""Writing files and folders so that nobody ever sees half of one, and reading back only what was written."""

from __future__ import annotations

import codecs
import contextlib
import errno
import fcntl
import gzip
import hashlib
import json
import os
import re
import shutil
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import xxhash
from pydantic_core import from_json
from safetensors import SafetensorError

from bench.system.errors import BenchError, CannotWrite
from bench.system.paths import check_file

# safetensors reports a full disk as an error of its own
WRITE_ERRORS = (OSError, SafetensorError)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ASIDE = ".old.part"  # ends the name of what is about to be replaced
LFS_POINTER = "version https://git-lfs"
"""What a file of Git LFS begins with where a clone left out the file itself."""
_CHECKSUM = b',\n "checksum": "'  # begins the last line but one of a sealed JSON file


class KeyTwice(ValueError):
    """A key that stands twice in one object of a JSON text."""


def each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a JSON text, as `object_pairs_hook` of `json`.

    Raises:
        KeyTwice: names the first key that stands there twice; `json` would take the last.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise KeyTwice(f"the key {twice!r} stands twice")
    return values


def write_bytes(path: Path, data: bytes | bytearray) -> None:
    """Write a file whole or not at all, and have it on the disk when this returns.

    Raises:
        BenchError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _part_of(path) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


@contextlib.contextmanager
def _part_of(path: Path) -> Iterator[BinaryIO]:
    """The empty file beside a path that is to take its place; one writer at a time has it.

    A killed writer's is taken over, so that none stays behind. Its lock tells it from a living one's, also where
    processes do not see each other.
    """
    part = path.with_name(f".{path.name}.part")
    while True:
        file = part.open("ab")
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(part, file):
                break
        except BaseException:
            file.close()
            raise
        file.close()  # who had it before has put it in its place: the name is free again
    with file:
        try:
            file.truncate(0)
            yield file
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _is_at(path: Path, file: BinaryIO) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _flush_folder(folder: Path) -> None:
    """Have a folder's names on the disk, so that a power cut cannot take back a rename."""
    with contextlib.suppress(OSError):  # some file systems cannot
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if it is there.

    Raises:
        OSError: it cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left below a folder; the caller holds the lock of whoever makes folders there.

    A file that a living process writes is locked by it, and stays. What `publish` had put aside for something that
    never came gets its name back.
    """
    for left in [*folder.rglob(".*.part"), *folder.rglob(".tmp??????")]:  # safetensors' own have the second form
        with contextlib.suppress(OSError):
            final = left.with_name(left.name[1:].removesuffix(_ASIDE))
            if left.name.endswith(_ASIDE) and not os.path.lexists(final):
                left.rename(final)
                continue
            if left.is_dir():
                shutil.rmtree(left)
                continue
            with left.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()


def follow_umask(paths: Iterable[Path]) -> None:
    """Give files that a library wrote the mode of new files: safetensors makes its own private, whatever the umask."""
    umask = os.umask(0o077)  # there is no way to ask for it
    os.umask(umask)
    for path in paths:
        path.chmod(0o666 & ~umask)


def seal(
    manifest: Path, *, also: Iterable[Path] = (), leave_out: str = "", about: Mapping[str, Any] | None = None
) -> None:
    """Write a manifest of the files in its folder: their checksums, found by `damage`. All is on the disk afterwards.

    Args:
        manifest: the file to write; what its folder holds beside it is covered, folders in it included.
        also: files elsewhere that belong to it.
        leave_out: a folder beside it that does not.
        about: more to write down.

    Raises:
        OSError: a file cannot be read or written.
        BenchError: the manifest cannot be written.
    """
    folder = manifest.parent
    inside = (path for path in sorted(folder.rglob("*")) if path.is_file() and path != manifest)
    paths = [path for path in inside if path.relative_to(folder).parts[0] != leave_out] + list(also)
    follow_umask(paths)
    files = {}
    for path in paths:
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        files[Path(os.path.relpath(path, folder)).as_posix()] = checksum_of(path)
    write_json(manifest, {**(about or {}), "files": files})


def publish(partial: Path, final: Path) -> None:
    """Give a filled folder, or a file, its name, in place of what has it.

    Raises:
        OSError: the folders cannot be written.
    """
    aside = final.with_name(f".{final.name}{_ASIDE}")
    if os.path.lexists(final) and (partial.is_dir() or final.is_dir()):  # only a file can take a file's place at once
        remove(aside)
        final.rename(aside)
    partial.replace(final)
    _flush_folder(final.parent)
    remove(aside)


def damage(manifest: Path, only: str = "") -> str | None:
    """The first file that is not what `seal` found, the manifest itself included; None if all are.

    Args:
        manifest: that of the folder.
        only: look at files whose names end so.
    """
    try:
        files: dict[str, str] = read_json(manifest)["files"]
        for name, checksum in files.items():
            if not name.endswith(only):
                continue
            path = manifest.parent / name
            # manifests written before had SHA-256
            found = sha256_of if len(checksum) == 64 else checksum_of
            if not path.is_file() or found(path) != checksum:
                return name
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return manifest.name
    return None


def is_of_writing(folder: Path, error: OSError | SafetensorError) -> bool:
    """Whether an error comes of writing below a folder: not of another file, a connection or too little memory."""
    if isinstance(error, OSError) and error.filename is not None:
        return Path(os.fsdecode(error.filename)).is_relative_to(folder)
    return _number(error) in (*_FULL, errno.EIO, errno.EROFS)


def _number(error: Exception) -> int | None:
    """The operating system's number of an error."""
    if isinstance(error, SafetensorError) and (told := re.search(r"\(os error (\d+)\)", str(error))):
        return int(told[1])
    return getattr(error, "errno", None)


def cannot_write(path: Path, error: Exception) -> CannotWrite:
    """The error for a path that cannot be written, with its reason."""
    reason = getattr(error, "strerror", None) or error
    full = _number(error) in _FULL
    remedy = "Free some space or choose another folder" if full else "Choose another folder"
    return CannotWrite(
        f"cannot write {path}: {reason}. {remedy} (--out for records, the variable BENCH_CACHE for what runs share) "
        "and repeat the command: nothing that was written before is lost."
    )


def write_json(path: Path, value: object) -> None:
    """Write plain values as readable JSON."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON written by `write_json`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no JSON, or nested deeper than anything that is written here.
    """
    return _parsed(read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """The bytes of a regular file: a named pipe in its place would be waited for, for ever.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    return path.read_bytes()


def lfs_pointer(paths: Iterable[Path]) -> Path | None:
    """The first of some files in whose place there is a pointer of Git LFS; None where there is none."""
    for path in paths:
        if path.is_file():
            with path.open("rb") as file:
                if file.read(len(LFS_POINTER)) == LFS_POINTER.encode():
                    return path
    return None


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def write_sealed_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object as readable JSON that ends with a checksum of all before it."""
    body = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode().removesuffix(b"\n}")
    write_bytes(path, body + _seal_of(body))


def read_sealed_json(path: Path) -> dict[str, Any]:
    """Read an object written by `write_sealed_json`, or by hand without a checksum.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no JSON object, or its checksum differs.
    """
    data = read_bytes(path)
    found = _parsed(data)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    if found.pop("checksum", None) is not None and not seal_holds(data):
        raise ValueError("its checksum differs")
    return found


def seal_holds(data: bytes) -> bool:
    """Whether a sealed JSON file is as it was written."""
    return unsealed(data) is not data


def unsealed(data: bytes) -> bytes:
    """A sealed JSON file without its checksum, if that holds; any other as it is."""
    body, _, _ = data.rpartition(_CHECKSUM)
    return body + b"\n}" if data == body + _seal_of(body) else data


def _seal_of(body: bytes) -> bytes:
    return _CHECKSUM + xxhash.xxh3_128_hexdigest(body).encode() + b'"\n}\n'


def write_jsonl_gz(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as gzip JSON lines; equal rows give equal bytes."""
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    write_bytes(path, gzip.compress(text.encode(), mtime=0))


def read_jsonl_gz(path: Path) -> list[dict[str, Any]]:
    """Read rows written by `write_jsonl_gz`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, cut off or empty, or a row is no object.
    """
    text = read_gz(path)
    # one call: a fraction of the time of a call a row
    whole = b"[" + text.rstrip(b"\n").replace(b"\n", b",") + b"]"
    rows: list[dict[str, Any]]
    try:
        rows = from_json(whole)
    except ValueError:  # it is damaged, or holds half of a surrogate pair, which Python's own parser takes
        rows = _parsed(whole)
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a row is no JSON object")
    return rows


def read_gz(path: Path) -> bytes:
    """What a gzip file holds.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, cut off or empty.
    """
    data = read_bytes(path)
    if not data:  # gzip takes it for no rows
        raise ValueError("the file is empty")
    try:
        return gzip.decompress(data)
    except (EOFError, zlib.error) as error:
        raise ValueError(str(error)) from error


def checksum_of(path: Path) -> str:
    """XXH3 of a file's bytes, as hex: ten times as fast as SHA-256, for what only has to be told from damage."""
    found = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            found.update(block)
    return found.hexdigest()


def read_text(path: Path) -> str:
    """The text of a user's file, in UTF-8 with or without a byte order mark; line ends stay as they are.

    Raises:
        BenchError: it is no regular file, cannot be read, or is not UTF-8.
    """
    check_file(path, there=True)
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
