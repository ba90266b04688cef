"""Metrics against the golden values and against sacreBLEU itself."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.metrics.bleu import BleuOfSums, _exp, _log, bleu_from_statistics, bleu_statistics
from bench.metrics.chrf import chrf_from_statistics, chrf_statistics
from bench.metrics.exact_match import exact_match
from bench.metrics.metric import score_texts, set_score
from bench.metrics.registry import find_metric, metrics
from bench.metrics.rouge_l import rouge_l

GOLDEN = Path(__file__).parents[2] / "golden" / "rouge_l.json"
words = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat", ",", "Haus", "1,000"]), max_size=12)
sentences = words.map(" ".join)
corpora = st.lists(st.tuples(sentences, st.lists(sentences, min_size=1, max_size=3)), min_size=1, max_size=6)


def test_golden_values():
    golden = json.loads(GOLDEN.read_text())
    rouges, matches = [], []
    for example in golden["examples"]:
        rouges.append(rouge_l(example["prediction"], example["references"]))
        matches.append(exact_match(example["prediction"], example["references"]))
        assert rouges[-1] == pytest.approx(example["rougeL"])
        assert matches[-1] == example["exact_match"]
    assert sum(rouges) / len(rouges) == pytest.approx(golden["corpus"]["rougeL"], abs=1e-4)
    assert sum(matches) / len(matches) == pytest.approx(golden["corpus"]["exact_match"])


def test_rouge_l_by_hand():
    # Longest common subsequence "the cat on": 3 of 4 predicted tokens, 3 of 6 of the reference.
    assert rouge_l("the cat lies on", ["the cat sat on a mat"]) == pytest.approx(100 * 2 * 0.75 * 0.5 / 1.25)
    assert rouge_l("running", ["runs"]) == pytest.approx(100.0)  # stemmed
    assert rouge_l("a b", ["x y", "a b", "a"]) == pytest.approx(100.0)  # the best reference
    assert rouge_l("", ["a"]) == 0.0


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("Yes.", ["yes"], 100.0),
        ("  two   words ", ["no", "Two words!"], 100.0),
        ("a cat", ["cat"], 0.0),
        ("", ["x"], 0.0),
        ("?", [""], 100.0),
    ],
)
def test_exact_match(prediction, references, expected):
    assert exact_match(prediction, references) == expected


def streams(corpus: list[tuple[str, list[str]]]) -> list[list[str | None]]:
    """References as sacreBLEU takes them: the first of every example, the second, and so on; None where it has none."""
    width = max(len(references) for _, references in corpus)
    return [[refs[i] if i < len(refs) else None for _, refs in corpus] for i in range(width)]


def corpus_score(name: str, corpus: list[tuple[str, list[str]]]) -> float:
    metric = {"bleu": sacrebleu.BLEU, "chrf": sacrebleu.CHRF}[name]()
    return metric.corpus_score([prediction for prediction, _ in corpus], streams(corpus)).score


def our_score(name: str, corpus: list[tuple[str, list[str]]]) -> float:
    return score_texts(find_metric(name), *zip(*corpus, strict=True))


@settings(max_examples=200, deadline=None)
@given(corpora)
def test_bleu_and_chrf_are_those_of_sacrebleu(corpus):
    assert our_score("bleu", corpus) == pytest.approx(corpus_score("bleu", corpus), rel=1e-12)
    assert our_score("chrf", corpus) == pytest.approx(corpus_score("chrf", corpus), rel=1e-9)


def test_bleu_and_chrf_of_real_sentences():
    corpus = [
        ("Das Wetter ist heute sehr schön.", ["Das Wetter ist heute schön.", "Heute ist das Wetter sehr schön."]),
        ("Er kam um 10:30 Uhr; sie ging.", ["Er kam um 10:30 Uhr, und sie ging."]),
        ("", ["Nichts."]),
    ]
    for name in ("bleu", "chrf"):
        assert our_score(name, corpus) == pytest.approx(corpus_score(name, corpus), rel=1e-12)
        assert 30 < our_score(name, corpus) < 90
        assert our_score(name, [("the cat sat on the mat", ["the cat sat on the mat"])]) == pytest.approx(100.0)
    same = [(prediction, references[:1] * 3) for prediction, references in corpus]
    assert our_score("chrf", same) == pytest.approx(corpus_score("chrf", same), rel=1e-12)


def test_chrf_statistics_by_hand():
    # spaces do not count: "abc" against "abd" has 3, 2, 1 n-grams on either side, of which "a", "b" and "ab" are shared
    assert chrf_statistics("a bc", ["x", "ab d"]) == [3, 3, 2, 2, 2, 1, 1, 1, 0] + [0] * 9


def test_a_set_is_scored_by_the_mean_of_numbers_or_by_the_sum_of_counts():
    tenths = [0.1] * 10  # their plain sum is not 1
    assert set_score(find_metric("rouge_l"), tenths) == 0.1
    rows = [chrf_statistics("a cat", ["the cat"]), chrf_statistics("dogs", ["dog"])]
    summed = [sum(column) for column in zip(*rows, strict=True)]
    assert set_score(find_metric("chrf"), rows) == chrf_from_statistics(summed)
    rows = [bleu_statistics("a cat sat on it", ["the cat sat on it"]), bleu_statistics("dogs", ["dog"])]
    assert set_score(find_metric("bleu"), rows) == bleu_from_statistics([sum(c) for c in zip(*rows, strict=True)])


def test_bleu_statistics_by_hand():
    # "the cat the": one "the" of two is matched by the clipped count, and no bigram but "the cat".
    assert bleu_statistics("the cat the", ["the cat sat down"]) == [3, 4, 2, 1, 0, 0, 3, 2, 1, 0]


counts_of_orders = st.lists(st.integers(0, 9), min_size=4, max_size=4)
sums_of_bleu = st.tuples(st.integers(1, 40), st.integers(0, 40), counts_of_orders, counts_of_orders).map(
    lambda drawn: [*drawn[:2], *drawn[2], *(more + matched for more, matched in zip(*drawn[2:], strict=True))]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(sums_of_bleu, min_size=2, max_size=4))
def test_bleu_of_many_sums_is_that_of_each_to_the_last_bit(rows):
    sums = np.array([rows, rows[::-1]], dtype=np.float64)
    assert BleuOfSums().of_many(sums).tolist() == [[bleu_from_statistics(row) for row in half] for half in sums]


def test_signatures_say_what_is_computed():
    version = sacrebleu.__version__
    bleu, chrf = find_metric("bleu"), find_metric("chrf")
    assert bleu.signature(1) == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}"
    assert chrf.signature(1) == f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{version}"
    for metric in (bleu, chrf):
        assert metric.signature(3).startswith("nrefs:3|")
        assert metric.signature(None).startswith("nrefs:var|")


@pytest.mark.parametrize("metric", [metric.example for metric in metrics().values()], ids=list(metrics()))
@pytest.mark.parametrize("references", [[], "a string"])
def test_references_must_be_a_list_of_at_least_one(metric, references):
    with pytest.raises(ValueError, match="one or more references"):
        metric("a", references)


def test_logarithms_and_exponentials_on_arrays_are_those_of_the_c_library() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.uniform(0, 100, 50_000), [100 / 3, 0.05, 100.0, 1.0]])
    assert _log(values).tolist() == [math.log(value) for value in values.tolist()]
    assert _exp(-values / 9).tolist() == [math.exp(-value / 9) for value in values.tolist()]
    assert _exp(np.zeros(2)).tolist() == [1.0, 1.0]
