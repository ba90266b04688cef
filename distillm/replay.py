"""The replay buffer of student-generated outputs (arXiv:2402.03898, section 3.2)."""

import random
from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class ReplayBuffer(Generic[T]):
    """Holds the last `capacity` items pushed; the oldest goes first.

    Raises ValueError where `capacity` is below 1.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"the capacity of a replay buffer must be at least 1 item, got {capacity}")
        self.capacity = capacity
        self._items: deque[T] = deque(maxlen=capacity)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def items(self) -> list[T]:
        """All that is held, oldest first: the buffer's whole state, to be pushed into an empty one."""
        return list(self._items)

    def push(self, items: Iterable[T]) -> None:
        """Add items, the oldest first."""
        self._items.extend(items)

    def draw(self, count: int, rng: random.Random) -> list[T]:
        """Draw `count` items uniformly without replacement; they stay in the buffer.

        Raises ValueError where `count` is negative or more than is held.
        """
        if not 0 <= count <= len(self):
            raise ValueError(f"cannot draw {count} items from a replay buffer that holds {len(self)}")
        return rng.sample(self._items, count)
