"""ROUGE-L F1: that of rouge_score, the metric of Dolly and SAMSum, and one that reads every script.

The first has the numbers of rouge_score, to the last bit, in a fraction of its time.

Tokens and F1 are computed by rouge_score's own code, with a stemmer that remembers its words: a task has few, and
stemming them is most of rouge_score's work. The longest common subsequence is that of Hyyrö (2004), which holds a row
of the table in the bits of one integer.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from types import SimpleNamespace

import regex

from bench.metrics.metric import check_references

Tokenize = Callable[[str], list[str]]

_UNSPACED = "".join(
    rf"\p{{scx={script}}}" for script in ("Han", "Hira", "Kana", "Thai", "Laoo", "Khmr", "Mymr", "Tibt")
)
_TOKEN = regex.compile(
    rf"[[\p{{L}}\p{{N}}]&&[{_UNSPACED}]]\p{{M}}*"  # scripts that put no spaces between words: a character each
    r"|(?=\p{Extended_Pictographic}|\p{Regional_Indicator})\X"  # an emoji with its modifiers, or a flag
    # a word; the two joiners stand inside words of Persian and of Indian languages
    rf"|[[\p{{L}}\p{{N}}\p{{M}}\u200c\u200d]--[{_UNSPACED}]]+",
    regex.V1,
)
_CHARACTER = regex.compile(r"\X")


@cache
def _stemmer() -> SimpleNamespace:
    """rouge_score's own stemmer, which remembers what it made of a word."""
    from rouge_score.tokenizers import porter  # here: it brings nltk, which takes a second to import

    return SimpleNamespace(stem=lru_cache(2**16)(porter.PorterStemmer().stem))


def _tokens(text: str) -> list[str]:
    from rouge_score.tokenize import tokenize

    found: list[str] = tokenize(text, _stemmer())
    return found


def unicode_tokens(text: str) -> list[str]:
    """Words of any script, casefolded; characters of scripts without spaces between words; emoji.

    Punctuation is left out, unless a text has nothing else: then its characters are the tokens.
    """
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    found: list[str] = _TOKEN.findall(text) or [one for one in _CHARACTER.findall(text) if one.strip()]
    return found


@lru_cache(2**14)  # a reference is scored against for every decoding seed and validation
def _places(tokenize: Tokenize, reference: str) -> tuple[int, dict[str, int]]:
    """How many tokens a reference has, and at which of them each token stands, as set bits."""
    tokens = tokenize(reference)
    places: dict[str, int] = {}
    for place, token in enumerate(tokens):
        places[token] = places.get(token, 0) | 1 << place
    return len(tokens), places


def _common_subsequence(length: int, places: dict[str, int], tokens: Sequence[str]) -> int:
    """Length of the longest common subsequence of a reference, as `_places` gives it, and some tokens.

    Bit i of `row` is 0 where the table's entry grows from i to i + 1 tokens of the reference.
    """
    row = every = (1 << length) - 1
    for token in tokens:
        matched = row & places.get(token, 0)
        row = ((row + matched) | (row - matched)) & every
    return length - row.bit_count()


def rouge_l(prediction: str, references: Sequence[str], tokenize: Tokenize = _tokens) -> float:
    """ROUGE-L F1 in percent, the maximum over the references; by default over rouge_score's stemmed tokens.

    Those are made of a-z and 0-9: any other letter is left out, and text without one of these scores 0.
    Raises ValueError without a reference.
    """
    from rouge_score.scoring import fmeasure

    check_references(references)
    tokens = tokenize(prediction)
    best = 0.0
    for length, places in (_places(tokenize, reference) for reference in references):
        if common := _common_subsequence(length, places, tokens):
            best = max(best, fmeasure(common / len(tokens), common / length))
    return 100.0 * best


class RougeL:
    """The mean over examples of their best ROUGE-L F1 over the references."""

    name = "rouge_l"
    label = "ROUGE-L"
    score_of_sum = None

    def signature(self, references: int | None) -> str:
        """See `bench.metrics.metric.Metric`."""
        return "rouge_score rougeL F1, stemmer, maximum over references, x100, mean over examples"

    def example(self, prediction: str, references: Sequence[str]) -> float:
        """See `bench.metrics.metric.Metric`; to four decimals."""
        return round(rouge_l(prediction, references), 4)

    def caution(self, references: Sequence[str]) -> str | None:
        """See `bench.metrics.metric.CautiousMetric`: letters and emoji that rouge_score's tokens leave out."""
        dropped = [_UNREAD.findall(reference.lower()) for reference in references]
        touched = sum(map(bool, dropped))
        if not touched or touched < _WORTH_NAMING * len(references):
            return None
        lost = sum(bool(one) and not _READ.search(text.lower()) for one, text in zip(dropped, references, strict=True))
        usual = ", ".join(letter for letter, _ in Counter(letter for one in dropped for letter in one).most_common(5))
        scored = f", and {lost / len(references):.0%} have no other and score 0 whatever the answer" if lost else ""
        return (
            f"ROUGE-L reads a-z and 0-9 only: {touched / len(references):.0%} of the references have letters that it "
            f"leaves out ({usual}){scored}; rouge_l_unicode reads every script: "
            "--set evaluation.metrics=[rouge_l_unicode], or metrics in a task file"
        )


_WORTH_NAMING = 0.01  # of the references; one name with an accent in hundreds moves no score
_READ = regex.compile(r"[a-z0-9]")
_UNREAD = regex.compile(r"[[\p{L}\p{N}\p{Emoji_Presentation}]--[a-z0-9]]", regex.V1)


class RougeLUnicode:
    """ROUGE-L F1 over words of any script, not stemmed; its numbers do not compare with those of `RougeL`."""

    name = "rouge_l_unicode"
    label = "ROUGE-L (Unicode)"
    score_of_sum = None

    def signature(self, references: int | None) -> str:
        """See `bench.metrics.metric.Metric`."""
        return (
            "ROUGE-L F1 over casefolded Unicode words, characters of scripts without spaces, and emoji; no stemmer, "
            "maximum over references, x100, mean over examples"
        )

    def example(self, prediction: str, references: Sequence[str]) -> float:
        """See `bench.metrics.metric.Metric`; to four decimals."""
        return round(rouge_l(prediction, references, unicode_tokens), 4)
