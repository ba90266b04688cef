"""The splits of a synthetic data set: drawn record by record, without a prompt that another split could hold."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping

Record = dict[str, object]
Candidate = tuple[str, Callable[[], Record | None]]
"""A prompt, and what makes its record; None: it is not to be used."""
Shares = Mapping[str, range]
"""The buckets of all prompts that each split may hold."""

# Hundredths of the space of all prompts; a split draws until it has enough of its own share.
SHARES: Shares = {
    "teacher_train": range(0, 55),
    "train": range(55, 75),
    "validation": range(75, 87),
    "test": range(87, 100),
}


def may_hold(split: str, prompt: str, shares: Shares = SHARES) -> bool:
    """Whether a prompt is in a split's share: a function of the text only, the same on every machine.

    Raises:
        KeyError: unknown split.
    """
    buckets = max(share.stop for share in shares.values())
    return zlib.crc32(prompt.encode()) % buckets in shares[split]


def collect(split: str, size: int, draw: Callable[[], Candidate], shares: Shares = SHARES) -> list[Record]:
    """Draw until `size` records are found whose prompts are in the split's share and all different.

    Args:
        split: name of the split, a key of `shares`; records get the ids ``SPLIT-0``, ``SPLIT-1``, ...
        size: how many records.
        draw: gives the next candidate; its record is made only where its prompt is one of this split and new.
        shares: the buckets of each split.

    Raises:
        KeyError: unknown split.
    """
    seen: set[str] = set()
    records: list[Record] = []
    while len(records) < size:
        prompt, complete = draw()
        if prompt in seen or not may_hold(split, prompt, shares) or (fields := complete()) is None:
            continue
        seen.add(prompt)
        records.append({"id": f"{split}-{len(records)}", **fields})
    return records


def distinct(texts: Iterable[str], most: int) -> list[str]:
    """The first different texts, at most `most`; takes no more texts than it needs."""
    found: dict[str, None] = {}
    for text in texts:
        found[text] = None
        if len(found) == most:
            break
    return list(found)
