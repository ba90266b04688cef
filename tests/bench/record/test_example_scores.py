"""What examples scored, from rows of predictions, those of earlier versions among them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.record.example_scores import arrays_of_lines, example_arrays, example_scores, upgraded
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


def test_numbers_are_averaged_and_counts_summed_over_decoding_seeds():
    rows = [
        ROW | {"set": name, "seed": seed, "id": example, "scores": {"number": value, "counts": [int(value), 1]}}
        for name, example, seed, value in (
            ("test", "a", 10, 1.0),
            ("test", "a", 20, 2.0),
            ("test", "b", 10, 5.0),
            ("other", "a", 10, 7.0),
        )
    ]
    assert example_scores(rows, "number") == {"test": {"a": 1.5, "b": 5.0}, "other": {"a": 7.0}}
    counts = example_scores(rows, "counts")
    np.testing.assert_array_equal(counts["test"]["a"], [3, 2])
    np.testing.assert_array_equal(counts["other"]["a"], [7, 1])


def test_a_metric_that_was_not_measured_is_told():
    with pytest.raises(BenchError, match="predictions without 'chrf'"):
        example_scores([ROW | {"scores": {"rouge_l": 1.0}}], "chrf")


@pytest.mark.parametrize("seeds", [1, 2, 5, 9, 40, 300])
@pytest.mark.parametrize("counts", [0, 10])
@pytest.mark.parametrize("ragged", [False, True])
def test_arrays_hold_the_same_numbers_to_the_last_bit(seeds, counts, ragged):
    rng = np.random.default_rng(seeds)
    order = rng.permutation(50)
    rows = [
        ROW | {"id": f"e{i}", "seed": seed, "scores": {"x": drawn}}
        for seed in range(seeds)
        for i in order
        for drawn in [rng.integers(0, 99, counts).tolist() if counts else float(rng.uniform(0, 100))]
    ]
    if ragged:
        rows.append(ROW | {"id": "e7", "seed": seeds, "scores": {"x": [1] * counts if counts else 1.0}})
    one_by_one = example_scores(rows, "x")[ROW["set"]]
    read = arrays_of_lines(lines(rows), "x")
    assert (read is None) == ragged  # a short block is left to the slow way
    for found in (example_arrays(rows, "x"), read or {}):
        for array in found.values():
            assert array.ids == tuple(sorted(one_by_one))
            np.testing.assert_array_equal(array.values, [one_by_one[i] for i in array.ids])


@pytest.mark.parametrize("scores", [[1.0, "high"], [1.0, None], [[1, 2], [1, 2, 3]], [1.0, [1, 2]]])
def test_scores_of_several_forms_are_refused(scores):
    rows = [ROW | {"id": f"e{i}", "scores": {"x": score}} for i, score in enumerate(scores)]
    with pytest.raises(BenchError, match=r"--fresh$"):
        example_arrays(rows, "x")
    assert arrays_of_lines(lines(rows), "x") is None


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b'{"set": "test", "seed": 10, "id": "a"}\n',
        b'{"set": "test", "seed": 10, "id": "a", "rouge_l": 12.5}\n',  # of an earlier version
        b'{"set": "test", "seed": 10, "id": "a", "prediction": "b", "scores": {"x": 1.0}}\n{"set": "te',
        b'{"set": "test", "seed": 10, "id": "a", "scores": {"x": NaN}}\n',
        b'{"set": "test", "seed": 10, "id": "a", "scores": {"x": 1e999}}\n',
        b'{"set": "test", "seed": 10, "id": "a", "scores": {"y": 1.0}}\n',
        b'{"set": "test", "id": "a", "scores": {"x": 1.0}}\n{"set": "test", "id": "a", "scores": {"x": 2.0}}\n',
        b"[]\n",
    ],
)
def test_rows_of_another_form_are_left_to_the_way_that_says_what_is_wrong(damaged):
    assert arrays_of_lines(damaged, "x") is None
