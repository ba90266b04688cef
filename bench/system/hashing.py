"""Hashes of plain values: equal values give equal hashes, whatever the order of their keys."""

from __future__ import annotations

import hashlib
import json


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON of plain values, as hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
