"""Two recorded runs, compared from their stored predictions."""

import numpy as np
import pytest
import sacrebleu

from bench.analysis.compare import compare_runs, differences
from bench.analysis.significance import holm, paired_bootstrap
from bench.evaluation.evaluate import Metric
from bench.record.store import SCHEMA, Record, Store
from bench.system.errors import BenchError

RESAMPLES = 2000
SEEDS = (10, 20)
WORDS = ["the", "a", "cat", "mat", "birds", "trees", "saw", "sat", "on", "over", "near", "two", "old", "our", "house"]


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)


def recorded(store: Store, run_id: str, rows: list[dict], metric: str = "ROUGE-L", **fields) -> Record:
    """Write a run; `fields` are what it is compared by."""
    record = {
        "schema": SCHEMA,
        "run_id": run_id,
        "comparison_key": repr(sorted(fields.items())),
        "comparison_fields": fields,
        "metric": {"name": metric},
    }
    store.write(record, rows)
    return record


def rouge_rows(scores: dict[str, np.ndarray]) -> list[dict]:
    """Rows for scores (decoding seeds, examples) by set."""
    return [
        {"set": name, "seed": seed, "id": f"e{i:02}", "rouge_l": float(value)}
        for name, table in scores.items()
        for seed, line in zip(SEEDS, table, strict=True)
        for i, value in enumerate(line)
    ]


def random_scores(mean: float, seed: int, sets: tuple[str, ...] = ("test",), n: int = 40) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(mean, 5, (len(SEEDS), n)) for name in sets}


def test_difference_interval_and_p_value(store):
    one, two = random_scores(33, 0), random_scores(30, 1)
    first, second = recorded(store, "a", rouge_rows(one), x=1), recorded(store, "b", rouge_rows(two), x=1)
    (row,) = compare_runs(store, first, second, RESAMPLES)
    a, b = one["test"].mean(0), two["test"].mean(0)  # an example's score is its mean over decoding seeds
    assert row["first"] == {"run": "a", "score": pytest.approx(a.mean())}
    assert row["second"] == {"run": "b", "score": pytest.approx(b.mean())}
    assert row["difference"] == pytest.approx(a.mean() - b.mean())
    assert (row["set"], row["metric"], row["examples"]) == ("test", "ROUGE-L", 40)
    direct = paired_bootstrap(a, b, resamples=RESAMPLES)
    assert (row["low"], row["high"], row["p"]) == pytest.approx((direct.low, direct.high, direct.p_value))
    assert row["low"] < row["difference"] < row["high"]
    assert row["p_holm"] == row["p"]
    (swapped,) = compare_runs(store, second, first, RESAMPLES)
    assert swapped["difference"] == pytest.approx(-row["difference"])


def test_real_and_absent_differences_are_told_apart(store):
    base = random_scores(30, 0)
    better = {"test": base["test"] + np.random.default_rng(1).normal(3, 1, base["test"].shape)}
    first, second = recorded(store, "a", rouge_rows(better), x=1), recorded(store, "b", rouge_rows(base), x=1)
    (row,) = compare_runs(store, first, second, RESAMPLES)
    assert row["low"] > 0
    assert row["p"] < 0.01
    (same,) = compare_runs(store, second, second, RESAMPLES)
    assert (same["difference"], same["low"], same["high"], same["p"]) == (0, 0, 0, 1)


def test_rows_are_paired_by_example_and_not_by_their_order(store):
    one, two = random_scores(30, 0), random_scores(30, 1)
    shuffled = rouge_rows(two)
    np.random.default_rng(2).shuffle(shuffled)
    first = recorded(store, "a", rouge_rows(one), x=1)
    plain = compare_runs(store, recorded(store, "b", rouge_rows(two), x=1), first, RESAMPLES)
    mixed = compare_runs(store, recorded(store, "b", shuffled, x=1), first, RESAMPLES)
    assert {key: value for key, value in plain[0].items() if isinstance(value, float)} == pytest.approx(
        {key: value for key, value in mixed[0].items() if isinstance(value, float)}
    )


def test_every_set_has_a_row_and_p_is_corrected_for_their_number(store):
    sets = ("test", "vicuna", "sinst")
    first = recorded(store, "a", rouge_rows(random_scores(31, 0, sets)), x=1)
    second = recorded(store, "b", rouge_rows(random_scores(30, 1, sets)), x=1)
    rows = compare_runs(store, first, second, RESAMPLES)
    assert [row["set"] for row in rows] == list(sets)
    assert [row["p_holm"] for row in rows] == holm([row["p"] for row in rows])
    assert any(row["p_holm"] > row["p"] for row in rows)


def test_bleu_is_that_of_sacrebleu_over_the_pooled_predictions(store):
    rng = np.random.default_rng(0)
    references = [" ".join(rng.choice(WORDS, size=rng.integers(4, 12))) for _ in range(60)]

    def predictions(rate: float) -> list[tuple[int, int, str]]:
        def spoiled(text: str) -> str:
            return " ".join(word if rng.random() > rate else rng.choice(WORDS) for word in text.split())

        return [(seed, i, spoiled(text)) for seed in SEEDS for i, text in enumerate(references)]

    metric = Metric("bleu")
    made = {"a": predictions(0.2), "b": predictions(0.4)}
    runs = [
        recorded(
            store,
            name,
            [
                {"set": "test", "seed": seed, "id": f"e{i:02}", **metric.example(text, (references[i],))}
                for seed, i, text in rows
            ],
            metric="BLEU",
        )
        for name, rows in made.items()
    ]
    (row,) = compare_runs(store, runs[0], runs[1], 200)
    for side, rows in zip(("first", "second"), made.values(), strict=True):
        corpus = sacrebleu.corpus_bleu([text for *_, text in rows], [[references[i] for _, i, _ in rows]])
        assert row[side]["score"] == pytest.approx(corpus.score)
    assert row["difference"] == pytest.approx(row["first"]["score"] - row["second"]["score"])
    assert 0 < row["low"] < row["difference"] < row["high"]
    assert row["examples"] == len(references)


def test_runs_that_differ_in_more_are_refused_and_it_says_in_what(store):
    rows = rouge_rows(random_scores(30, 0))
    config = {"training": {"steps": 600, "batch_size": 16}, "task": "dolly"}
    first = recorded(store, "a", rows, config=config, data="x")
    other = config | {"training": {"steps": 700, "batch_size": 16}}
    second = recorded(store, "b", rows, config=other, data="y")
    with pytest.raises(BenchError, match="a and b cannot be compared") as caught:
        compare_runs(store, first, second, RESAMPLES)
    told = str(caught.value).splitlines()[1:]
    assert [line.strip() for line in told] == ["config.training.steps: 600 against 700", "data: 'x' against 'y'"]


def test_different_examples_are_refused(store):
    rows = rouge_rows(random_scores(30, 0))
    first = recorded(store, "a", rows, x=1)
    second = recorded(store, "b", [row for row in rows if row["id"] != "e07"], x=1)
    for one, two in ((first, second), (second, first)):
        with pytest.raises(BenchError, match=r"test: .*not over the same examples"):
            compare_runs(store, one, two, RESAMPLES)


def test_differences_are_named_by_dotted_keys():
    first = {"a": {"x": 1, "y": [1, 2]}, "b": 1, "only": 0}
    assert list(differences(first, first)) == []
    assert list(differences(first, {"a": {"x": 2, "y": [1, 2]}, "b": {"z": 1}})) == [
        "a.x: 1 against 2",
        "b: 1 against {'z': 1}",
        "only: 0 against None",
    ]
