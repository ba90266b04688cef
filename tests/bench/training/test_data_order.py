"""The order in which examples are trained on."""

import itertools
import random

import pytest

from bench.system.seeding import derive_seed
from bench.training.data_order import batch_order
from distillm import TokenSequence


def dataset(size: int) -> list[TokenSequence]:
    rng = random.Random(1)
    return [TokenSequence(str(i), (5,) * rng.randint(1, 30), (6,) * rng.randint(1, 30)) for i in range(size)]


def ids(batches) -> list[list[str]]:
    return [[s.id for s in batch] for batch in batches]


def padding(batches) -> int:
    lengths = [[len(s.prompt) + len(s.response) for s in batch] for batch in batches]
    return sum(max(row) * len(row) - sum(row) for row in lengths)


def test_the_order_depends_on_the_seed_only():
    first, again, other = (ids(itertools.islice(batch_order(dataset(64), 4, seed), 40)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_an_epoch_has_every_example_once_and_each_epoch_another_order():
    batches = ids(itertools.islice(batch_order(dataset(96), 8, 3), 24))
    epochs = [batches[:12], batches[12:]]
    for epoch in epochs:
        assert sorted(itertools.chain(*epoch), key=int) == [str(i) for i in range(96)]
    assert epochs[0] != epochs[1]


def test_a_last_incomplete_batch_is_left_out_unless_it_is_the_only_one():
    assert [len(b) for b in itertools.islice(batch_order(dataset(10), 4, 0), 6)] == [4] * 6
    for epoch in itertools.islice(batch_order(dataset(3), 4, 0), 2):
        assert sorted(s.id for s in epoch) == ["0", "1", "2"]


def test_like_lengths_stand_together_and_batches_do_not_come_by_length():
    sequences = dataset(512)
    batches = list(itertools.islice(batch_order(sequences, 8, 0), 64))
    shuffled = random.Random(0).sample(sequences, len(sequences))
    at_random = [shuffled[i : i + 8] for i in range(0, len(shuffled), 8)]
    assert padding(batches) < 0.5 * padding(at_random)
    longest = [max(len(s.prompt) + len(s.response) for s in batch) for batch in batches]
    rises = sum(a < b for a, b in itertools.pairwise(longest))
    assert 16 < rises < 48


@pytest.mark.parametrize("done", [1, 7, 8, 19])
def test_skipping_what_is_done_resumes(done):
    whole = ids(itertools.islice(batch_order(dataset(32), 4, 5), 24))
    assert ids(itertools.islice(batch_order(dataset(32), 4, 5), done, 24)) == whole[done:]
    assert ids(itertools.islice(batch_order(dataset(32), 4, 5, done), 24 - done)) == whole[done:]
    for examples in (35, 3):  # with a batch that is left out, and with no whole one
        order = ids(itertools.islice(batch_order(dataset(examples), 4, 5), 24))
        assert ids(itertools.islice(batch_order(dataset(examples), 4, 5, done), 24 - done)) == order[done:]


def test_the_order_is_that_of_shuffled_sequences():
    """As published runs had it: the sequences themselves shuffled, cut into pools, sorted, and shuffled again."""
    sequences = dataset(300)
    rng = random.Random(derive_seed(4, "data order", 0))
    order = rng.sample(sequences, len(sequences))
    pools = [sorted(order[i : i + 64], key=lambda s: len(s.prompt) + len(s.response)) for i in range(0, 300, 64)]
    full = [b for pool in pools for b in (pool[i : i + 8] for i in range(0, len(pool), 8)) if len(b) == 8]
    rng.shuffle(full)
    assert list(itertools.islice(batch_order(sequences, 8, 4), len(full))) == full
