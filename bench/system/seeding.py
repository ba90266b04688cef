"""Seeds derived from names, so that randomness depends on where in a run it is used and never on what ran before.

Every training step, validation and generation batch seeds itself from the run's seed and its own place. A run that is
killed and resumed therefore repeats the same numbers, and two methods compared see the same data order and draws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2^63) that any change of a part changes."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_torch(*parts: int | str) -> None:
    """Seed PyTorch's generators of all devices."""
    torch.manual_seed(derive_seed(*parts))


def uniform_numbers(count: int, places: Sequence[Sequence[int | str]]) -> Tensor:
    """Random numbers in [0, 1), (places, count) in float64; each row depends on its place only.

    Philox is counter-based and its stream is part of NumPy's promise: the first numbers of a longer row are those of a
    shorter one, on every machine.
    """
    rows = np.empty((len(places), count), dtype=np.uint64)
    for row, place in zip(rows, places, strict=True):
        row[:] = np.random.Philox(key=derive_seed(*place)).random_raw(count)
    return torch.from_numpy((rows >> np.uint64(11)) * 2.0**-53)
