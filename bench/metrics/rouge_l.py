"""ROUGE-L F1, the metric of Dolly and SAMSum: the numbers of rouge_score, to the last bit, in a fraction of its time.

Tokens and F1 are computed by rouge_score's own code, with a stemmer that remembers its words: a task has few, and
stemming them is most of rouge_score's work. The longest common subsequence is that of Hyyrö (2004), which holds a row
of the table in the bits of one integer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache

from bench.metrics.metric import check_references


class _Stemmer:
    """rouge_score's own stemmer, which remembers what it made of a word."""

    def __init__(self) -> None:
        from rouge_score.tokenizers import porter  # here: it brings nltk, which takes a second to import

        self.stem = lru_cache(2**16)(porter.PorterStemmer().stem)


_stemmer = cache(_Stemmer)


def _tokens(text: str) -> list[str]:
    from rouge_score.tokenize import tokenize

    found: list[str] = tokenize(text, _stemmer())
    return found


@lru_cache(2**14)  # a reference is scored against for every decoding seed and validation
def _places(reference: str) -> tuple[int, dict[str, int]]:
    """How many tokens a reference has, and at which of them each token stands, as set bits."""
    tokens = _tokens(reference)
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


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """ROUGE-L F1 in percent, stemmed, the maximum over the references.

    Text outside the Latin alphabet has no tokens for rouge_score and scores 0.
    Raises ValueError without a reference.
    """
    from rouge_score.scoring import fmeasure

    check_references(references)
    tokens = _tokens(prediction)
    best = 0.0
    for length, places in map(_places, references):
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
