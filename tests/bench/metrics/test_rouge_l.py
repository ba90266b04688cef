"""ROUGE-L equals rouge_score's to the last bit, whatever the text; the Unicode one reads every script."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from bench.metrics.bleu import Bleu
from bench.metrics.rouge_l import RougeL, RougeLUnicode, rouge_l, unicode_tokens

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


# --- every script ---------------------------------------------------------------------------------------------------

TEXTS = {
    "Thai": "แม่น้ำโขงไหลผ่านประเทศลาว",
    "Russian": "Анна позвонит в шесть.",
    "Chinese": "河水一夜之间上涨了两米。",
    "Japanese": "アンナは六時に電話します。",
    "Hindi": "नदी का पानी बढ़ गया",
    "Arabic": "سوف تتصل آنا في السادسة",
    "emoji": "👍🏽🎉👩‍👩‍👧 🇩🇪",
    "German": "Größe über Öl",
    "punctuation": "?!",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_equal_texts_of_any_script_score_100(text):
    metric = RougeLUnicode()
    assert metric.example(text, [text]) == 100
    assert metric.example(text.upper(), ["Nothing of it", text]) == 100
    assert metric.example("Nothing of it", [text]) == 0


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Größe über Öl, 3,5 l!", ["grösse", "über", "öl", "3", "5", "l"]),
        ("Gro\u0308ße", ["grösse"]),  # a letter and its dots are the letter with dots
        ("ไปกิน ข้าว", ["ไ", "ป", "กิ", "น", "ข้", "า", "ว"]),
        ("Tokio 東京タワー。", ["tokio", "東", "京", "タ", "ワ", "ー"]),
        ("서울은 크다", ["서울은", "크다"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("می\u200cروم", ["می\u200cروم"]),
        ("ok 👍🏽👩‍👩‍👧🇩🇪🇫🇷", ["ok", "👍🏽", "👩‍👩‍👧", "🇩🇪", "🇫🇷"]),
        ("?!", ["?", "!"]),
        (" \n", []),
    ],
)
def test_tokens_of_any_script(text, tokens):
    assert unicode_tokens(text) == tokens


@given(texts, texts)
@settings(deadline=None)
def test_the_unicode_score_is_100_for_equal_texts_and_within_bounds(prediction, reference):
    score = RougeLUnicode().example(prediction, [reference])
    assert 0 <= score <= 100
    assert RougeLUnicode().example(reference, [reference]) == (100 if reference.strip() else 0)


def test_half_of_the_tokens_in_order_is_half_the_score():
    assert RougeLUnicode().example("Анна поёт громко в", ["Анна позвонит в шесть"]) == 50
    assert RougeLUnicode().example("东京", ["东京很大"]) == pytest.approx(66.6667)
    assert RougeL().example("Анна поёт", ["Анна поёт"]) == 0  # the paper's stays what rouge_score computes


@pytest.mark.parametrize(
    ("references", "words"),
    [
        (["Grüße", "plain"], ["50% of the references", "(ü, ß)", "rouge_l_unicode"]),
        (["Привет", "мир", "ok", "yes"], ["50% of", "50% have no other and score 0"]),
        (["fine 👍"], ["100%", "👍"]),
        (["plain, text. – “quoted”"], None),
        (["café"] + ["plain"] * 200, None),
    ],
)
def test_what_rouge_score_leaves_out_is_told(references, words):
    said = RougeL().caution(references)
    assert (said is None) == (words is None)
    assert all(word in said for word in words or [])
    assert ("score 0" in (said or "")) == any("score 0" in word for word in words or [])


def test_bleu_tells_of_scripts_without_spaces():
    assert "100% of the references" in Bleu().caution([TEXTS["Chinese"], TEXTS["Thai"]])
    assert Bleu().caution([TEXTS["German"], TEXTS["Russian"]] * 10) is None
