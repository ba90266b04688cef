"""The English-German lexicon: the entries of ``english_german.txt``."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from bench.synthetic.iwslt import german_morphology as german
from bench.synthetic.iwslt.german_morphology import Case


@dataclass(frozen=True)
class NounEntry:
    """An English noun, its German nouns, and its semantic classes."""

    english: str
    german: tuple[german.Noun, ...]
    classes: frozenset[str]

    @property
    def preposition(self) -> str:
        """The preposition of place (``in``, ``at``, ``on``), or ``""`` when the noun is no place."""
        return next((word for word in ("in", "at", "on") if word in self.classes), "")


@dataclass(frozen=True)
class VerbEntry:
    """A verb, its German counterparts and its frame.

    ``frame`` is one of ``acc dat dat+acc prep intr loc dir that to``; ``prepositions`` holds the English and
    the German preposition and case for ``prep``; ``objects`` and ``subjects`` are semantic classes.
    """

    english: str
    german: tuple[german.Verb, ...]
    frame: str
    prepositions: tuple[str, str, Case] | None
    objects: frozenset[str]
    subjects: frozenset[str]


@dataclass(frozen=True)
class AdjectiveEntry:
    """An adjective: German (predicative form, inflected stem) pairs and the classes of nouns it goes with."""

    english: str
    german: tuple[tuple[str, str], ...]
    classes: frozenset[str]


@dataclass(frozen=True)
class Phrase:
    """A fixed phrase (adverbial, name, number) with its German alternatives."""

    english: str
    german: tuple[str, ...]


@dataclass(frozen=True)
class Lexicon:
    """All entries of ``english_german.txt``; ``phrases`` maps the other section names to their entries."""

    nouns: tuple[NounEntry, ...]
    verbs: tuple[VerbEntry, ...]
    adjectives: tuple[AdjectiveEntry, ...]
    phrases: dict[str, tuple[Phrase, ...]]


def _noun(fields: list[str]) -> NounEntry:
    alternatives = tuple(german.Noun.parse(entry) for entry in fields[1].split("|"))
    classes = set(fields[2].split())
    if classes & {"in", "at", "on"}:
        classes.add("place")
    return NounEntry(fields[0], alternatives, frozenset(classes))


def _verb(fields: list[str]) -> VerbEntry:
    alternatives = tuple(german.Verb.parse(entry.strip()) for entry in fields[1].split("|"))
    left, _, subjects = fields[2].partition("<")
    frame, *objects = left.split()
    prepositions: tuple[str, str, Case] | None = None
    if frame == "prep":
        preposition, _, case = objects[1].partition("+")
        prepositions = (objects[0].strip("-"), preposition, "acc" if case == "acc" else "dat")
        objects = objects[2:]
    classes = frozenset(subjects.split() or ["person"])
    return VerbEntry(fields[0], alternatives, frame, prepositions, frozenset(objects), classes)


def _adjective(fields: list[str]) -> AdjectiveEntry:
    pairs = []
    for alternative in fields[1].split("|"):
        form, _, stem = alternative.partition(",")
        pairs.append((form.strip(), stem.strip() or form.strip()))
    return AdjectiveEntry(fields[0], tuple(pairs), frozenset(fields[2].split()))


def _phrase(fields: list[str]) -> Phrase:
    return Phrase(fields[0], tuple(part.strip() for part in fields[-1].split("|")))


@cache
def load_lexicon() -> Lexicon:
    """Read the lexicon that ships with the package; raises ValueError on a malformed line."""
    sections: dict[str, list[list[str]]] = defaultdict(list)
    name = ""
    text = (files("bench.synthetic.iwslt") / "english_german.txt").read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("["):
            name = line.strip("[]")
        elif line and not line.startswith("#"):
            fields = [part.strip() for part in line.split(";")]
            if len(fields) != 3 and name in ("nouns", "verbs", "adjectives"):
                raise ValueError(f"english_german.txt:{number}: expected 3 fields separated by ';': {line}")
            sections[name].append(fields)
    return Lexicon(
        nouns=tuple(_noun(fields) for fields in sections.pop("nouns")),
        verbs=tuple(_verb(fields) for fields in sections.pop("verbs")),
        adjectives=tuple(_adjective(fields) for fields in sections.pop("adjectives")),
        phrases={section: tuple(_phrase(fields) for fields in rows) for section, rows in sections.items()},
    )
