"""Metrics against the golden values and against sacreBLEU itself."""

import json
from pathlib import Path

import pytest
import sacrebleu
from bench.metrics.scores import bleu_from_statistics, bleu_signature, bleu_statistics, exact_match, rouge_l
from hypothesis import given, settings
from hypothesis import strategies as st

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


def corpus_bleu(corpus: list[tuple[str, list[str]]]) -> float:
    width = max(len(references) for _, references in corpus)
    streams = [[refs[i] if i < len(refs) else None for _, refs in corpus] for i in range(width)]
    return sacrebleu.corpus_bleu([prediction for prediction, _ in corpus], streams).score


def pooled_bleu(corpus: list[tuple[str, list[str]]]) -> float:
    rows = [bleu_statistics(prediction, references) for prediction, references in corpus]
    return bleu_from_statistics([sum(column) for column in zip(*rows, strict=True)])


@settings(max_examples=200, deadline=None)
@given(corpora)
def test_bleu_is_that_of_sacrebleu(corpus):
    assert pooled_bleu(corpus) == pytest.approx(corpus_bleu(corpus), rel=1e-12)


def test_bleu_of_real_sentences():
    corpus = [
        ("Das Wetter ist heute sehr schön.", ["Das Wetter ist heute schön.", "Heute ist das Wetter sehr schön."]),
        ("Er kam um 10:30 Uhr; sie ging.", ["Er kam um 10:30 Uhr, und sie ging."]),
        ("", ["Nichts."]),
    ]
    assert pooled_bleu(corpus) == pytest.approx(corpus_bleu(corpus), rel=1e-12)
    assert 30 < pooled_bleu(corpus) < 90
    assert pooled_bleu([("the cat sat on the mat", ["the cat sat on the mat"])]) == pytest.approx(100.0)


def test_bleu_statistics_by_hand():
    # "the cat the": one "the" of two is matched by the clipped count, and no bigram but "the cat".
    assert bleu_statistics("the cat the", ["the cat sat down"]) == [3, 4, 2, 1, 0, 0, 3, 2, 1, 0]


def test_bleu_signature():
    version = sacrebleu.__version__
    assert bleu_signature() == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}"
    assert bleu_signature(3).startswith("nrefs:3|")
    assert bleu_signature(None).startswith("nrefs:var|")


@pytest.mark.parametrize("metric", [rouge_l, exact_match, bleu_statistics])
@pytest.mark.parametrize("references", [[], "a string"])
def test_references_must_be_a_list_of_at_least_one(metric, references):
    with pytest.raises(ValueError, match="one or more references"):
        metric("a", references)
