"""Small English-German translation data in the shape of IWSLT 2017, generated from a grammar.

A clause structure is drawn first; the English sentence is one rendering of it, the German translations are
several (synonyms, spoken or written past tense, polite or familiar address, what stands in first place, weil
or denn). The same seed gives the same data on every machine.
"""

from __future__ import annotations

import random
import zlib

from bench.synthetic import english_syntax
from bench.synthetic.bilingual import Sentence, load_lexicon
from bench.synthetic.german_syntax import GermanWriter
from bench.synthetic.talk_sampler import TalkSampler

SIZES = {"train": 4000, "validation": 100, "test": 200, "teacher_train": 20000}
MAX_REFERENCES = 8
MIN_REFERENCES = 3
MAX_ENGLISH_WORDS = 40
MIN_ENGLISH_WORDS = 7
_REFERENCE_TRIES = 24
# A sentence belongs to the split of its checksum, so that no sentence can be in two splits.
_BUCKETS = {"test": (0,), "validation": (1,), "train": (2, 3, 4), "teacher_train": (5, 6, 7)}


def _translations(sentence: Sentence, rng: random.Random) -> list[str]:
    """Distinct German renderings in the order drawn, at most ``MAX_REFERENCES``."""
    drawn: dict[str, None] = {}
    for _ in range(_REFERENCE_TRIES):
        drawn[GermanWriter(rng).sentence(sentence)] = None
        if len(drawn) == MAX_REFERENCES:
            break
    return list(drawn)


def _split(name: str, seed: int) -> list[dict[str, object]]:
    rng = random.Random(f"{seed}-{name}")
    sampler = TalkSampler(rng, load_lexicon())
    seen: set[str] = set()
    records: list[dict[str, object]] = []
    while len(records) < SIZES[name]:
        sentence = sampler.sentence()
        english = english_syntax.sentence(sentence)
        words = len(english.split())
        if english in seen or not MIN_ENGLISH_WORDS <= words <= MAX_ENGLISH_WORDS:
            continue
        if zlib.crc32(english.encode()) % 8 not in _BUCKETS[name]:
            continue
        record: dict[str, object] = {"id": f"{name}-{len(records)}"}
        if name in ("validation", "test"):
            references = _translations(sentence, rng)
            if len(references) < MIN_REFERENCES:
                continue
            record |= {"translation": {"en": english, "de": references[0]}, "references": references}
        else:
            record["translation"] = {"en": english, "de": GermanWriter(rng).sentence(sentence)}
        seen.add(english)
        records.append(record)
    return records


def generate(
    seed: int = 0, splits: tuple[str, ...] = ("train", "validation", "test")
) -> dict[str, list[dict[str, object]]]:
    """Generate the named splits (``train validation test teacher_train``).

    Records are ``{"id": str, "translation": {"en": str, "de": str}}``; those of validation and test also
    hold ``"references"``, three to eight valid translations of which the first is ``translation["de"]``. No
    English sentence occurs twice, neither within nor across splits. Raises KeyError for an unknown split.
    """
    return {name: _split(name, seed) for name in splits}
