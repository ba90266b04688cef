"""The replay buffer of student-generated outputs (arXiv:2402.03898, section 3.2)."""

import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """An item and the training step at which it was made; `now - step` is its age, or staleness, in steps."""

    item: T
    step: int


class ReplayBuffer(Generic[T]):
    """Holds the last `capacity` items pushed; the oldest goes first.

    Raises ValueError where `capacity` is below 1.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"the capacity of a replay buffer must be at least 1 item, got {capacity}")
        self.capacity = capacity
        self._entries: deque[Entry[T]] = deque(maxlen=capacity)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> list[Entry[T]]:
        """All that is held, oldest first: the buffer's whole state, to be given back to `load`."""
        return list(self._entries)

    def load(self, entries: Iterable[Entry[T]]) -> None:
        """Hold `entries`, oldest first, and nothing else. Raises ValueError for more than the capacity."""
        entries = list(entries)
        if len(entries) > self.capacity:
            raise ValueError(f"{len(entries)} entries do not fit into a buffer of capacity {self.capacity}")
        self._entries = deque(entries, maxlen=self.capacity)

    def push(self, items: Iterable[T], step: int) -> None:
        """Add items made at training step `step`."""
        self._entries.extend(Entry(item, step) for item in items)

    def draw(self, count: int, rng: random.Random) -> list[Entry[T]]:
        """Draw `count` entries uniformly without replacement; they stay in the buffer.

        Raises ValueError where `count` is negative or more than is held.
        """
        if not 0 <= count <= len(self):
            raise ValueError(f"cannot draw {count} items from a replay buffer that holds {len(self)}")
        return rng.sample(self._entries, count)
