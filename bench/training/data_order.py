"""The order in which a training sees its examples: a function of the training seed only."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from bench.models.encoded import lengths
from bench.system.seeding import derive_seed
from distillm import TokenSequence


def batch_order(
    sequences: Sequence[TokenSequence], batch_size: int, seed: int, first: int = 0
) -> Iterator[list[TokenSequence]]:
    """Batches of the training set for ever: each epoch a new order, sequences of like length together.

    An epoch is shuffled, cut into pools of eight batches, each pool sorted by length and its batches shuffled again:
    little padding, and still random. The order depends on the seed only. A last incomplete batch of an epoch is left
    out unless it is the only one.

    Args:
        sequences: the training set.
        batch_size: sequences in each batch.
        seed: of the order.
        first: the number of the batch to begin with, from 0.
    """
    length = lengths(sequences)
    epoch, first = divmod(first, max(1, len(sequences) // batch_size))
    while True:
        rng = random.Random(derive_seed(seed, "data order", epoch))
        order = rng.sample(range(len(sequences)), len(sequences))
        pool = 8 * batch_size
        batches = []
        for start in range(0, len(order), pool):
            chunk = sorted(order[start : start + pool], key=length.__getitem__)
            batches += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
        full = [b for b in batches if len(b) == batch_size] or batches
        rng.shuffle(full)
        for batch in full[first:]:
            yield [sequences[i] for i in batch]
        epoch, first = epoch + 1, 0
