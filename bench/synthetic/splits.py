"""Prompts shared out among the splits of a generated data set: no two splits can hold the same one."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

BUCKETS = 100
# Shares of the space of all prompts, in hundredths; a split draws until it has enough of its own share.
SHARES: Mapping[str, range] = {
    "teacher_train": range(0, 55),
    "train": range(55, 75),
    "validation": range(75, 87),
    "test": range(87, 100),
}


def owner(prompt: str) -> str:
    """The split that may hold this prompt; a function of the text only, the same on every machine."""
    bucket = zlib.crc32(prompt.encode("utf-8")) % BUCKETS
    return next(split for split, share in SHARES.items() if bucket in share)
