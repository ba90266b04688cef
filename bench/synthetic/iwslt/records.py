"""English sentences and their German translations.

A clause structure is drawn first; the English sentence is one rendering of it, the German translations are
several (synonyms, spoken or written past tense, polite or familiar address, what stands in first place, weil
or denn).
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from bench.synthetic.iwslt import english_sentences
from bench.synthetic.iwslt.clause_sampler import ClauseSampler
from bench.synthetic.iwslt.clauses import Sentence
from bench.synthetic.iwslt.german_sentences import GermanWriter
from bench.synthetic.iwslt.lexicon import load_lexicon
from bench.synthetic.splits import Candidate, Record, Shares, collect, distinct

SIZES: Mapping[str, int] = {"train": 4000, "validation": 100, "test": 200, "teacher_train": 20000}
MAX_REFERENCES = 8
MIN_REFERENCES = 3
MAX_ENGLISH_WORDS = 40
MIN_ENGLISH_WORDS = 7
SHARES: Shares = {  # eighths of all sentences
    "test": range(0, 1),
    "validation": range(1, 2),
    "train": range(2, 5),
    "teacher_train": range(5, 8),
}
_ATTEMPTS = 24


def generate(split: str, seed: int = 0, size: int | None = None) -> list[Record]:
    """Records of one split: ``id`` and ``translation``, with the texts ``en`` and ``de``.

    Those of validation and test also hold ``references``, three to eight valid translations of which
    ``translation["de"]`` is the first.

    Raises:
        KeyError: unknown split.
    """
    rng = Random(f"{seed}-{split}")
    sampler = ClauseSampler(rng, load_lexicon())

    def draw() -> Candidate:
        sentence = sampler.sentence()
        english = english_sentences.sentence(sentence)
        return english, lambda: complete(english, sentence)

    def complete(english: str, sentence: Sentence) -> Record | None:
        if not MIN_ENGLISH_WORDS <= len(english.split()) <= MAX_ENGLISH_WORDS:
            return None
        if split not in ("validation", "test"):
            return {"translation": {"en": english, "de": GermanWriter(rng).sentence(sentence)}}
        references = distinct((GermanWriter(rng).sentence(sentence) for _ in range(_ATTEMPTS)), MAX_REFERENCES)
        if len(references) < MIN_REFERENCES:
            return None
        return {"translation": {"en": english, "de": references[0]}, "references": references}

    return collect(split, SIZES[split] if size is None else size, draw, SHARES)
