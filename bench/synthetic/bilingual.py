"""The English-German lexicon, and the clause structure that both languages are rendered from."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from bench.synthetic import english_morphology, german
from bench.synthetic.german import Case

Tense = Literal["present", "past", "perfect", "future"]
Role = Literal["subject", "object"]


@dataclass(frozen=True)
class NounEntry:
    """An English noun (``"box"``, ``"man/men"``), its German nouns, and its semantic classes."""

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

    english: english_morphology.Verb
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
    verb = english_morphology.Verb.parse(fields[0])
    return VerbEntry(
        verb, alternatives, frame, prepositions, frozenset(objects), frozenset(subjects.split() or ["person"])
    )


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
    text = files("bench.synthetic").joinpath("english_german.txt").read_text(encoding="utf-8")
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


@dataclass(frozen=True)
class Pronoun:
    """A personal pronoun by its English subject form (``I you he she it we they``)."""

    who: str


@dataclass(frozen=True)
class Name:
    """A person's name; ``who`` is the pronoun that refers back to it (``he`` or ``she``)."""

    phrase: Phrase
    who: str


@dataclass(frozen=True)
class RelativeClause:
    """A clause whose subject or object is the noun it modifies."""

    clause: Clause
    role: Role
    english_pronoun: str


@dataclass(frozen=True)
class NounPhrase:
    """A noun with its modifiers.

    ``determiner`` is ``the a this every all many some number``, ``""``, or the pronoun of a possessive
    (``I`` for my); ``number`` is the numeral, ``owner`` is a possessor, ``degree`` an
    intensifier of the one adjective.
    """

    noun: NounEntry
    determiner: str
    number: Phrase | None = None
    plural: bool = False
    adjectives: tuple[AdjectiveEntry, ...] = ()
    degree: Phrase | None = None
    owner: NounPhrase | Name | None = None
    relative: RelativeClause | None = None


Nominal = Pronoun | Name | NounPhrase


@dataclass(frozen=True)
class Adjunct:
    """A prepositional phrase: place, cause, company; ``german`` holds (preposition, case) alternatives."""

    english: str
    german: tuple[tuple[str, Case], ...]
    nominal: Nominal | Phrase


@dataclass(frozen=True)
class Clause:
    """What a clause says, without word order.

    ``complement`` belongs to the frames ``that`` and ``to``, ``predicate`` to the copula (``verb`` None);
    with ``passive`` the subject is what undergoes the action and ``agent`` may name who does it.
    """

    subject: Nominal
    verb: VerbEntry | None
    tense: Tense = "present"
    modal: str = ""
    negated: bool = False
    passive: bool = False
    object: Nominal | None = None
    indirect: Nominal | None = None
    predicate: AdjectiveEntry | NounPhrase | None = None
    degree: Phrase | None = None
    agent: NounPhrase | None = None
    goal: Adjunct | None = None
    place: Adjunct | None = None
    cause: Adjunct | None = None
    manner: Phrase | None = None
    frequency: Phrase | None = None
    time: Phrase | None = None
    time_first: bool = False
    complementizer: Phrase | None = None
    complement: Clause | None = None


@dataclass(frozen=True)
class Link:
    """How a clause joins the one before it.

    ``kind`` is ``coordinate`` (verb second), ``adverb`` (a conjunctional adverb in first place, inversion) or
    ``subordinate`` (verb final); ``german`` holds alternatives as (kind, word) pairs, because English
    "because" is weil (subordinate) or denn (coordinate).
    """

    english: str
    german: tuple[tuple[str, str], ...]
    comma: bool = True


@dataclass(frozen=True)
class Sentence:
    """One or more clauses; ``fronted`` is a subordinate clause that opens the sentence."""

    clauses: tuple[tuple[Link | None, Clause], ...]
    opener: Phrase | None = None
    fronted: tuple[Link, Clause] | None = None
    question: bool = False


def who_of(nominal: Nominal) -> str:
    """The English pronoun that agrees with a nominal as a subject."""
    if isinstance(nominal, (Pronoun, Name)):
        return nominal.who
    return "they" if nominal.plural else "it"
