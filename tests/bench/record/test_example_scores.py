"""What examples scored, from rows of predictions, those of earlier versions among them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.record.example_scores import example_arrays, upgraded
from bench.system.errors import BenchError

ROW = {"set": "test", "seed": 10, "id": "a", "prediction": "text", "tokens": 5, "ended": True}


def lines(rows: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize(
    ("old", "scores"), [({"rouge_l": 12.5}, {"rouge_l": 12.5}), ({"bleu_statistics": [3, 4]}, {"bleu": [3, 4]})]
)
def test_a_row_of_an_earlier_version_becomes_one_of_today(old, scores):
    now = ROW | {"scores": scores}
    assert upgraded([ROW | old, ROW | {"scores": scores}]) == [now, now]


def test_rows_of_an_earlier_version_hold_the_same_numbers():
    earlier = [ROW | {"rouge_l": 12.5}, ROW | {"id": "b", "rouge_l": 2.5}]
    assert example_arrays(lines(earlier), "rouge_l")["test"].values.tolist() == [12.5, 2.5]
    (counts,) = example_arrays(lines([ROW | {"bleu_statistics": [3, 4]}]), "bleu")["test"].values.tolist()
    assert counts == [3.0, 4.0]


def test_numbers_are_averaged_and_counts_summed_over_decoding_seeds():
    rows = [
        ROW | {"set": name, "seed": seed, "id": example, "scores": {"number": value, "counts": [int(value), 1]}}
        for name, example, seed, value in (
            ("test", "b", 10, 5.0),
            ("test", "a", 10, 1.0),
            ("test", "b", 20, 5.0),
            ("test", "a", 20, 2.0),
            ("other", "a", 10, 7.0),
        )
    ]
    numbers, counts = (example_arrays(lines(rows), name) for name in ("number", "counts"))
    assert numbers["test"].ids == ("a", "b")
    assert {name: one.values.tolist() for name, one in numbers.items()} == {"test": [1.5, 5.0], "other": [7.0]}
    assert {name: one.values.tolist() for name, one in counts.items()} == {"test": [[3, 2], [10, 2]], "other": [[7, 1]]}


def test_truth_values_of_a_metric_of_ones_own_are_ones_and_zeros():
    rows = [ROW | {"id": name, "scores": {"x": right, "y": [right, 2]}} for name, right in (("a", True), ("b", False))]
    assert example_arrays(lines(rows), "x")["test"].values.tolist() == [1.0, 0.0]
    assert example_arrays(lines(rows), "y")["test"].values.tolist() == [[1.0, 2.0], [0.0, 2.0]]


def test_a_metric_that_was_not_measured_is_told():
    with pytest.raises(BenchError, match="predictions without 'chrf'"):
        example_arrays(lines([ROW | {"scores": {"rouge_l": 1.0}}]), "chrf")


@pytest.mark.parametrize("seeds", [1, 2, 5, 9, 40, 300])
@pytest.mark.parametrize("counts", [0, 10])
def test_arrays_hold_what_numpy_gives_of_each_example_to_the_last_bit(seeds, counts):
    rng = np.random.default_rng(seeds)
    drawn = {
        (seed, i): rng.integers(0, 99, counts).tolist() if counts else float(rng.uniform(0, 100))
        for seed in range(seeds)
        for i in rng.permutation(50)
    }
    order = rng.permutation(50)
    rows = [
        ROW | {"id": f"e{i:02}", "seed": seed, "scores": {"x": drawn[seed, i]}} for seed in range(seeds) for i in order
    ]
    found = example_arrays(lines(rows), "x")["test"]
    assert found.ids == tuple(f"e{i:02}" for i in range(50))
    for i, value in enumerate(found.values):
        of_one = [drawn[seed, i] for seed in range(seeds)]
        np.testing.assert_array_equal(value, np.sum(of_one, axis=0) if counts else np.mean(of_one))


@pytest.mark.parametrize("scores", [[1.0, "high"], [1.0, None], [[1, 2], [1, 2, 3]], [1.0, [1, 2]]])
def test_scores_of_several_forms_are_refused(scores):
    rows = [ROW | {"id": f"e{i}", "scores": {"x": score}} for i, score in enumerate(scores)]
    with pytest.raises(BenchError, match=r"predictions of another form .*--fresh$"):
        example_arrays(lines(rows), "x")


@pytest.mark.parametrize(
    ("damaged", "told"),
    [
        (b"", "no rows"),
        (b'{"set": "test", "seed": 10, "id": "a"}\n', "without 'x'"),
        (b'{"seed": 10, "id": "a", "scores": {"x": 1.0}}\n', "missing required field `set`"),
        (b'{"set": "test", "seed": 10, "id": "a", "scores": {"x": 1.0}}\n{"set": "te', "truncated"),
        (b'{"set": "test", "seed": 10, "id": "a", "scores": {"x": NaN}}\n', "malformed"),
        (b'{"set": "test", "seed": 10, "id": "a", "scores": {"x": 1e999}}\n', "out of range"),
        (b'{"set": "test", "seed": 10, "id": "a", "scores": {"y": 1.0}}\n', "without 'x'"),
        (
            b'{"set": "test", "id": "a", "scores": {"x": 1.0}}\n{"set": "test", "id": "a", "scores": {"x": 2.0}}\n',
            "decoding seeds do not have each example once",
        ),
        (
            b'{"set": "t", "seed": 1, "id": "a", "scores": {"x": 1.0}}\n'
            b'{"set": "t", "seed": 2, "id": "b", "scores": {"x": 2.0}}\n',
            "decoding seeds do not have each example once",
        ),
        (b"[]\n", "expected `object`"),
    ],
)
def test_rows_of_another_form_are_refused_and_it_is_told_why(damaged, told):
    with pytest.raises(BenchError, match=rf"(?i)predictions.*{told}.*--fresh$"):
        example_arrays(damaged, "x")
