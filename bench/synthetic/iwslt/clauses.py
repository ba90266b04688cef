"""Clause structures, without words' forms and order: what English and German sentences are rendered from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.synthetic.iwslt.german_morphology import Case
from bench.synthetic.iwslt.lexicon import AdjectiveEntry, NounEntry, Phrase, VerbEntry

Tense = Literal["present", "past", "perfect", "future"]
Role = Literal["subject", "object"]


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
