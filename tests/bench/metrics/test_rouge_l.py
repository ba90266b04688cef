"""ROUGE-L equals rouge_score's to the last bit, whatever the text."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from bench.metrics.rouge_l import rouge_l

SCORER = RougeScorer(["rougeL"], use_stemmer=True)
FORMS = [
    "run",
    "running",
    "Runner",
    "runs",
    "the",
    "a",
    "of",
    "flies",
    "generously",
    "1,000",
    "ﬁne",
    "Straße",
    "İ",
    "don't",
]
words = st.lists(st.sampled_from(FORMS), max_size=90).map(" ".join)
texts = words | st.text() | st.text("abcß ÄİK\x1c\u2028\ud800٣", max_size=40)


def by_rouge_score(prediction: str, references: list[str]) -> float:
    return 100.0 * max(float(SCORER.score(reference, prediction)["rougeL"].fmeasure) for reference in references)


@settings(max_examples=300, deadline=None)
@given(texts, st.lists(texts, min_size=1, max_size=3))
@example("", [""])
@example("a", ["", "Ω"])
@example("the cat", ["the " * 70 + "cat"])
def test_every_text_scores_as_with_rouge_score(prediction, references):
    assert rouge_l(prediction, references) == by_rouge_score(prediction, references)


@pytest.mark.parametrize("length", [63, 64, 65, 400])
def test_long_texts_score_as_with_rouge_score(length):
    """Around and beyond a machine word: the table's row is an integer of any length."""
    reference = " ".join(f"word{i * i % 17}" for i in range(length))
    prediction = " ".join(f"word{i * 5 % 23}" for i in range(2 * length))
    assert rouge_l(prediction, [reference]) == by_rouge_score(prediction, [reference]) > 0


def test_it_takes_a_fraction_of_the_time_of_rouge_score():
    pairs = [
        (" ".join(FORMS[(i * j) % 14] for j in range(80)), [" ".join(FORMS[(i + j) % 14] for j in range(60))])
        for i in range(20)
    ]
    ours, theirs = (min(_cpu_seconds(score, pairs) for _ in range(3)) for score in (rouge_l, by_rouge_score))
    assert ours < theirs / 6


def _cpu_seconds(score, pairs) -> float:
    start = time.process_time()
    for prediction, references in pairs:
        score(prediction, references)
    return time.process_time() - start
