"""The replay buffer: first in first out, uniform draws without replacement, state."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillm.replay import ReplayBuffer


def filled(capacity: int, count: int) -> ReplayBuffer[int]:
    buffer: ReplayBuffer[int] = ReplayBuffer(capacity)
    for item in range(count):
        buffer.push([item])
    return buffer


@given(capacity=st.integers(1, 20), pushes=st.lists(st.lists(st.integers(), max_size=8), max_size=10))
def test_the_newest_items_stay_in_order(capacity, pushes):
    buffer: ReplayBuffer[int] = ReplayBuffer(capacity)
    everything: list[int] = []
    for items in pushes:
        buffer.push(items)
        everything += items
    assert buffer.items == everything[-capacity:]
    assert len(buffer) == min(capacity, len(everything))


@given(count=st.integers(0, 10), seed=st.integers())
def test_draws_are_without_replacement_and_leave_the_buffer_as_it_was(count, seed):
    buffer = filled(10, 14)
    drawn = buffer.draw(count, random.Random(seed))
    assert len(set(drawn)) == count
    assert set(drawn) <= set(buffer.items)
    assert buffer.items == list(range(4, 14))


def test_draws_are_uniform():
    buffer, rng = filled(10, 10), random.Random(0)
    counts = Counter(item for _ in range(5000) for item in buffer.draw(3, rng))
    # Expected 1500 each, standard deviation sqrt(5000 * 0.3 * 0.7) = 32.
    assert len(counts) == 10
    assert all(abs(count - 1500) < 160 for count in counts.values())


def test_draws_depend_on_nothing_but_the_generator():
    assert filled(10, 12).draw(4, random.Random(7)) == filled(10, 12).draw(4, random.Random(7))


def test_a_restored_buffer_goes_on_as_the_first_would_have():
    first = filled(5, 8)
    second: ReplayBuffer[int] = ReplayBuffer(5)
    second.push(first.items)
    for buffer in (first, second):
        buffer.push([100, 101])
    assert second.items == first.items
    assert second.draw(3, random.Random(1)) == first.draw(3, random.Random(1))


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_capacity_below_one_is_refused(capacity):
    with pytest.raises(ValueError, match=f"at least 1 item, got {capacity}"):
        ReplayBuffer(capacity)


@pytest.mark.parametrize("count", [4, -1])
def test_drawing_more_than_is_held_is_refused(count):
    with pytest.raises(ValueError, match=f"cannot draw {count} items from a replay buffer that holds 3"):
        filled(5, 3).draw(count, random.Random(0))
