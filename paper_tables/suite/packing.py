"""What a suite made, in one small file: packed runs, and what is known of the models they share, without weights."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.record.pack import pack
from bench.record.record import RunRecord
from bench.record.store import Store
from bench.system.artifacts import MANIFEST
from bench.system.errors import BenchError
from bench.system.files import read_json, write_bytes, write_json

PACKED = "packed.tar.gz"
FACTS = "artifacts.json"
_FACTS = ("training.json", "pretraining.json", "scores.json")


def pack_file(store: Store, cache: Path, since: float, warn: Callable[[str], None]) -> Path | None:
    """Write `OUT/packed.tar.gz`: a folder of results for `tar -xzf`, and `artifacts.json`; None where there is nothing.

    Args:
        store: the runs.
        cache: root of the artifact cache.
        since: artifacts of this time (Unix) or later count as the suite's; earlier ones where runs rest on their data.
        warn: told of runs that are left out.

    Raises:
        BenchError: the file cannot be written.
    """
    records = list(store.all())
    facts = list(_artifacts(cache, _made_from(records), since))
    if not records and not facts:
        return None
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder)
        if records:
            try:
                pack(store, target, warn)
            except BenchError as error:  # none of them can be read
                warn(str(error))
        write_json(target / FACTS, facts)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for path in sorted(path for path in target.rglob("*") if path.is_file()):
                archive.add(path, path.relative_to(target).as_posix(), filter=_without_owner)
    write_bytes(store.root / PACKED, buffer.getvalue())
    return store.root / PACKED


def _made_from(records: list[RunRecord]) -> set[str]:
    """Fingerprints of the data and the plain text that runs rest on."""
    texts = {str(record.comparison_fields.get("student_pretraining_text")) for record in records}
    return texts | {record.data.fingerprint for record in records}


def _without_owner(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def _artifacts(cache: Path, data: set[str], since: float) -> Iterator[dict[str, Any]]:
    """Of each artifact that was trained or scored: its kind, its key, and what it says of itself."""
    for manifest in sorted(cache.glob(f"*/*/{MANIFEST}")):
        try:
            about = read_json(manifest)
            key = about["key"]
            used = key.get("data", key.get("pretraining", {}).get("text")) in data or manifest.stat().st_mtime >= since
            said = {name: read_json(manifest.parent / name) for name in _FACTS if (manifest.parent / name).is_file()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, json.JSONDecodeError):
            continue  # damaged, or being made
        if used and said:
            yield {"kind": about["kind"], "key": about["key"], **said}
