"""Random clause structures: sentences in the style of spoken talks, of one to three clauses."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

from bench.synthetic.iwslt.clauses import (
    Adjunct,
    Clause,
    Link,
    Name,
    Nominal,
    NounPhrase,
    Pronoun,
    RelativeClause,
    Sentence,
    Tense,
    who_of,
)
from bench.synthetic.iwslt.german_morphology import Case
from bench.synthetic.iwslt.lexicon import AdjectiveEntry, Lexicon, NounEntry, Phrase, VerbEntry

T = TypeVar("T")
Cases: TypeAlias = tuple[tuple[str, Case], ...]

_SUB = "subordinate"
_COORDINATORS = (
    Link("and", (("coordinate", "und"),), comma=False),
    Link("but", (("coordinate", "aber"),)),
    Link("so", (("adverb", "deshalb"), ("adverb", "deswegen"), ("adverb", "daher"))),
    Link("and then", (("adverb", "und dann"), ("adverb", "und danach")), comma=False),
)
_BECAUSE = Link("because", ((_SUB, "weil"), (_SUB, "da"), ("coordinate", "denn")), comma=False)
_SUBORDINATORS = (
    Link("although", ((_SUB, "obwohl"), (_SUB, "obgleich")), comma=False),
    Link("before", ((_SUB, "bevor"), (_SUB, "ehe")), comma=False),
    Link("while", ((_SUB, "während"),), comma=False),
    Link("until", ((_SUB, "bis"),), comma=False),
)
_IF = Link("if", ((_SUB, "wenn"), (_SUB, "falls")), comma=False)
_WHEN_PRESENT = Link("when", ((_SUB, "wenn"),), comma=False)
_WHEN_PAST = Link("when", ((_SUB, "als"),), comma=False)
_BECAUSE_FRONTED = Link("because", ((_SUB, "weil"), (_SUB, "da")), comma=False)

_THAT = Phrase("that", ("dass",))
_INDIRECT_QUESTIONS = (
    Phrase("why", ("warum", "weshalb", "wieso")),
    Phrase("when", ("wann",)),
    Phrase("how", ("wie",)),
    Phrase("where", ("wo",)),
)
_ASKING = ("know", "explain", "forget", "realize", "discover")  # verbs that indirect questions can follow
_DEGREES = (
    Phrase("very", ("sehr",)),
    Phrase("really", ("wirklich",)),
    Phrase("too", ("zu",)),
    Phrase("quite", ("ziemlich",)),
    Phrase("extremely", ("äußerst", "extrem")),
)
_ADJUNCTS: tuple[tuple[str, Cases, str], ...] = (
    ("because of", (("wegen", "gen"), ("aufgrund", "gen")), "cause"),
    ("despite", (("trotz", "gen"),), "cause"),
    ("during", (("während", "gen"),), "event"),
    ("before", (("vor", "dat"),), "event"),
    ("after", (("nach", "dat"),), "event"),
    ("with", (("mit", "dat"),), "person"),
    ("without", (("ohne", "acc"),), "person"),
    ("for", (("für", "acc"),), "person"),
)
_LOCATION: dict[str, Cases] = {
    "in": (("in", "dat"),),
    "at": (("an", "dat"),),
    "on": (("auf", "dat"),),
}
_DIRECTION: dict[str, Cases] = {
    "in": (("in", "acc"), ("zu", "dat")),
    "at": (("zu", "dat"),),
    "on": (("auf", "acc"), ("zu", "dat")),
}
_UNITS = (("days", "Tagen"), ("weeks", "Wochen"), ("months", "Monaten"), ("years", "Jahren"))
_FRAMES = ("copula", "acc", "dat", "dat+acc", "prep", "intr", "loc", "dir", "that", "to")
_FRAME_WEIGHTS = (14, 36, 6, 9, 12, 6, 5, 6, 6, 6)
_INANIMATE = ("thing", "topic", "text", "building", "event")
_RELATIVE_TENSES: tuple[Tense, ...] = ("present", "past", "past")
_MODALS_PRESENT = ("can", "must", "want", "should", "may")
_MODALS_PAST = ("can", "must", "want")
# The exponent of the skew of word frequencies: 1 is uniform.
_SKEW = 3.0
_SIMPLE_FRAMES = {"copula", "acc", "dat", "prep", "intr", "loc", "dir"}


def _subordinate_tense(tense: Tense, link: Link) -> Tense:
    """The tense of a subordinate clause: English puts the future into the present, except after because."""
    return "present" if tense == "future" and link.english not in ("because", "although") else tense


class ClauseSampler:
    """Draws clause structures; every choice comes from one generator of random numbers."""

    def __init__(self, rng: random.Random, lexicon: Lexicon) -> None:
        self._rng = rng
        self._phrases = lexicon.phrases
        self._nouns: dict[str, list[NounEntry]] = {}
        for noun in lexicon.nouns:
            for name in noun.classes:
                self._nouns.setdefault(name, []).append(noun)
        self._adjectives = {
            noun: [entry for entry in lexicon.adjectives if entry.classes & (noun.classes | {"any"})]
            for noun in lexicon.nouns
        }
        self._verbs: dict[str, list[VerbEntry]] = {}
        for verb in lexicon.verbs:
            self._verbs.setdefault(verb.frame, []).append(verb)
        self._names = [Name(phrase, "she") for phrase in lexicon.phrases["women"]]
        self._names += [Name(phrase, "he") for phrase in lexicon.phrases["men"]]

    def _chance(self, probability: float) -> bool:
        return self._rng.random() < probability

    def _one(self, options: Sequence[T]) -> T:
        return options[self._rng.randrange(len(options))]

    def _skewed(self, options: Sequence[T]) -> T:
        """A draw that favours the front of the list, as words differ in frequency."""
        return options[int(len(options) * self._rng.random() ** _SKEW)]

    def sentence(self) -> Sentence:
        """A sentence of one to three clauses."""
        tense: Tense = self._rng.choices(("present", "past", "perfect", "future"), (42, 36, 8, 14))[0]
        draw = self._rng.random()
        if draw < 0.08:
            return self._question(tense)
        if draw >= 0.78:
            return self._fronted(tense, longer=draw >= 0.94)
        first = self._clause(tense)
        opener = self._one(self._phrases["openers"]) if self._chance(0.08) else None
        if draw < 0.46:
            return Sentence(((None, first),), opener)
        if draw < 0.62:
            link = self._one(_COORDINATORS)
            return Sentence(((None, first), (link, self._clause(tense, self._next_subject(first)))), opener)
        link = self._after(tense)
        second = self._clause(_subordinate_tense(tense, link), self._next_subject(first), fronted=True)
        return Sentence(((None, first), (link, second)), opener)

    def _fronted(self, tense: Tense, *, longer: bool) -> Sentence:
        """A sentence that opens with a subordinate clause; ``longer`` adds a coordinate clause."""
        link = self._before(tense)
        fronted = self._clause(_subordinate_tense(tense, link), fronted=True)
        body = self._clause(tense, self._next_subject(fronted), fronted=True)
        clauses: list[tuple[Link | None, Clause]] = [(None, body)]
        if longer:
            clauses.append((self._one(_COORDINATORS), self._clause(tense, self._next_subject(body), fronted=True)))
        return Sentence(tuple(clauses), fronted=(link, fronted))

    def _question(self, tense: Tense) -> Sentence:
        subject = Pronoun(self._one(("you", "you", "he", "she", "we", "they")))
        return Sentence(((None, self._clause(tense, subject, fronted=True)),), question=True)

    def _after(self, tense: Tense) -> Link:
        draw = self._rng.random()
        if draw < 0.45:
            return _BECAUSE
        return self._when(tense) if draw < 0.65 else self._one(_SUBORDINATORS)

    def _before(self, tense: Tense) -> Link:
        return self._when(tense) if self._chance(0.5) else self._one((_BECAUSE_FRONTED, *_SUBORDINATORS[:3]))

    def _when(self, tense: Tense) -> Link:
        return _WHEN_PAST if tense == "past" else self._one((_IF, _WHEN_PRESENT))

    def _next_subject(self, clause: Clause) -> Nominal | None:
        """The subject of the next clause: often a pronoun for the last one."""
        subject = clause.subject
        if not self._chance(0.5):
            return None
        if isinstance(subject, Pronoun):
            return subject
        if isinstance(subject, NounPhrase) and not subject.plural:
            genders = {noun.gender for noun in subject.noun.german}
            if "person" not in subject.noun.classes or genders not in ({"m"}, {"f"}):
                return None
            return Pronoun("he" if genders == {"m"} else "she")
        return Pronoun(who_of(subject))

    def _time(self, tense: Tense) -> Phrase:
        draw = self._rng.random()
        if draw < 0.12:
            day = self._one(self._phrases["weekdays"])
            return Phrase(f"on {day.english}", tuple(f"am {name}" for name in day.german))
        if draw < 0.22:
            month = self._one(self._phrases["months"])
            return Phrase(f"in {month.english}", tuple(f"im {name}" for name in month.german))
        if tense == "present":
            return self._skewed(self._phrases["present"])
        if draw < 0.42:
            number = self._one(self._phrases["numbers"])
            unit, units = self._one(_UNITS)
            if tense == "future":
                return Phrase(f"in {number.english} {unit}", (f"in {number.german[0]} {units}",))
            return Phrase(f"{number.english} {unit} ago", (f"vor {number.german[0]} {units}",))
        return self._skewed(self._phrases["future" if tense == "future" else "past"])

    def _adjective(self, noun: NounEntry) -> AdjectiveEntry:
        return self._skewed(self._adjectives[noun])

    def _noun_phrase(self, classes: Sequence[str], *, plain: bool = False, definite: bool = False) -> NounPhrase:
        """A noun phrase; ``plain`` without possessor and relative clause, ``definite`` not a/many."""
        noun = self._skewed(self._nouns[self._one(classes)])
        draw = self._rng.random()
        plural = self._chance(0.25)
        if draw < 0.42:
            determiner = "the"
        elif draw < 0.58:
            determiner = self._one(("I", "he", "she", "we", "they", "you"))
        elif draw < 0.68:
            determiner = "this"
        elif definite:
            determiner = "the"
        elif plural:
            determiner = self._one(("many", "some", "all", "", "", "number"))
        else:
            determiner = "every" if draw > 0.96 else "a"
        number = self._one(self._phrases["numbers"]) if determiner == "number" else None
        adjectives = (self._adjective(noun),) if self._chance(0.32) else ()
        degree = self._one(_DEGREES[:2]) if adjectives and determiner == "a" and self._chance(0.2) else None
        phrase = NounPhrase(noun, determiner, number, plural, adjectives, degree)
        if plain or determiner != "the":
            return phrase
        draw = self._rng.random()
        if draw < 0.14:
            owner: Name | NounPhrase = self._one(self._names)
            if self._chance(0.6):
                owner = self._noun_phrase(("person",), plain=True, definite=True)
            return replace(phrase, owner=owner)
        if draw < 0.26:
            return replace(phrase, relative=self._relative(phrase))
        return phrase

    def _relative(self, phrase: NounPhrase) -> RelativeClause | None:
        tense = self._one(_RELATIVE_TENSES)
        classes = phrase.noun.classes
        if "person" in classes and self._chance(0.6):
            clause = self._clause(tense, phrase, small=True)
            return RelativeClause(clause, "subject", "who")
        verbs = [v for f in ("acc", "dat", "prep") for v in self._verbs[f] if v.objects & classes]
        verbs = [v for v in verbs if "person" in v.subjects]
        if not verbs:
            return None
        subject = self._subject(("person",), plain=True)
        clause = Clause(subject, self._skewed(verbs), tense, object=phrase)
        return RelativeClause(clause, "object", "who" if "person" in classes else self._one(("that", "which")))

    def _subject(self, classes: Sequence[str], *, plain: bool = False) -> Nominal:
        name = self._one(classes)
        if name == "person":
            draw = self._rng.random()
            if draw < 0.38:
                return Pronoun(self._one(("I", "I", "you", "he", "she", "we", "we", "they")))
            if draw < 0.50:
                return self._one(self._names)
        return self._noun_phrase((name,), plain=plain)

    def _verb(self, subject: Nominal | None, small: bool) -> VerbEntry | None:
        """A verb that goes with the subject, or None for the copula."""
        frames = [f for f in _FRAMES if not small or f in _SIMPLE_FRAMES]
        weights = [w for f, w in zip(_FRAMES, _FRAME_WEIGHTS, strict=True) if not small or f in _SIMPLE_FRAMES]
        while True:
            frame = self._rng.choices(frames, weights)[0]
            if frame == "copula":
                return None
            verb = self._skewed(self._verbs[frame])
            classes = subject.noun.classes if isinstance(subject, NounPhrase) else {"person"}
            if subject is None or verb.subjects & classes:
                return verb

    def _clause(
        self, tense: Tense, subject: Nominal | None = None, *, fronted: bool = False, small: bool = False
    ) -> Clause:
        """A clause; ``fronted`` keeps the time adverbial out of first place, ``small`` avoids embedding."""
        verb = self._verb(subject, small)
        if verb is None:
            clause = self._copula(tense, subject, small)
        elif subject is None and verb.frame == "acc" and self._chance(0.15):
            clause = self._passive(tense, verb)
        else:
            subject = subject or self._subject(sorted(verb.subjects), plain=small)
            clause = self._modality(Clause(subject, verb, tense))
            clause = self._complete(clause, verb, small)
        return self._circumstances(clause, fronted, small)

    def _copula(self, tense: Tense, subject: Nominal | None, small: bool) -> Clause:
        subject = subject or self._subject(("person", "person", *_INANIMATE), plain=small)
        noun = subject.noun if isinstance(subject, NounPhrase) else self._nouns["person"][0]
        negated = self._chance(0.15)
        if "person" in noun.classes and who_of(subject) in ("I", "he", "she", "it") and self._chance(0.25):
            adjectives = (self._adjective(noun),) if self._chance(0.7) else ()
            profession = NounPhrase(self._skewed(self._nouns["person"]), "a", adjectives=adjectives)
            return Clause(subject, None, tense, negated=negated, predicate=profession)
        degree = self._one(_DEGREES) if self._chance(0.35) else None
        return Clause(subject, None, tense, negated=negated, predicate=self._adjective(noun), degree=degree)

    def _passive(self, tense: Tense, verb: VerbEntry) -> Clause:
        subject = self._noun_phrase(sorted(verb.objects))
        agent = self._noun_phrase(("person",), plain=True) if self._chance(0.6) else None
        return Clause(subject, verb, "present" if tense == "present" else "past", passive=True, agent=agent)

    def _modality(self, clause: Clause) -> Clause:
        """Add a modal verb or a negation."""
        assert clause.verb is not None
        modal = ""
        if clause.tense in ("present", "past") and clause.verb.frame not in ("that", "to") and self._chance(0.24):
            modal = self._one(_MODALS_PRESENT if clause.tense == "present" else _MODALS_PAST)
        # "must not" and "may not" differ in meaning from their German cognates.
        negated = modal not in ("must", "may", "should") and self._chance(0.16)
        return replace(clause, modal=modal, negated=negated)

    def _complete(self, clause: Clause, verb: VerbEntry, small: bool) -> Clause:
        """Fill the slots of the verb's frame."""
        if verb.frame in ("acc", "dat", "dat+acc", "prep"):
            item: Nominal = self._noun_phrase(sorted(verb.objects), plain=small, definite=clause.negated)
            if "person" in verb.objects and self._chance(0.3):
                item = self._other_person(clause.subject)
            clause = replace(clause, object=item)
            if verb.frame == "dat+acc":
                person = self._noun_phrase(("person",), plain=True, definite=True)
                clause = replace(clause, indirect=self._one((person, person, self._other_person(clause.subject))))
        elif verb.frame == "loc":
            clause = replace(clause, place=self._place(_LOCATION, "in", "in"))
        elif verb.frame == "dir":
            clause = replace(clause, goal=self._place(_DIRECTION, "to", "nach"))
        elif verb.frame == "that":
            indirect = verb.english in _ASKING and self._chance(0.5)
            word = self._one(_INDIRECT_QUESTIONS) if indirect else _THAT
            inner = self._clause(clause.tense, fronted=True, small=True)
            clause = replace(clause, complementizer=word, complement=inner)
        elif verb.frame == "to":
            while (other := self._verb(clause.subject, small=True)) is None:
                pass
            inner = self._complete(Clause(clause.subject, other), other, small=True)
            clause = replace(clause, complement=inner)
        return clause

    def _other_person(self, subject: Nominal) -> Nominal:
        """A name or pronoun that cannot be taken for the subject."""
        if self._chance(0.4):
            name = self._one(self._names)
            return name if name != subject else Pronoun("they")
        who = who_of(subject)
        taken = {"I": ("I", "we"), "we": ("I", "we"), "you": ("you",)}.get(who, ("he", "she", "it", "they"))
        return Pronoun(self._one([other for other in ("I", "you", "he", "she", "we", "they") if other not in taken]))

    def _place(self, prepositions: dict[str, Cases], to: str, to_city: str) -> Adjunct:
        if self._chance(0.3):
            section = self._one(("cities", "countries"))
            return Adjunct(to, ((to_city, "dat"),), self._one(self._phrases[section]))
        noun = self._noun_phrase(("place",), plain=True, definite=True)
        kind = noun.noun.preposition
        return Adjunct(kind if prepositions is _LOCATION else to, prepositions[kind], noun)

    def _circumstances(self, clause: Clause, fronted: bool, small: bool) -> Clause:
        """Add time, place, cause and manner."""
        action = clause.verb is not None and clause.verb.frame not in ("that", "to")
        if clause.tense != "perfect" and self._chance(0.12 if small else 0.36):
            first = not fronted and not small and self._chance(0.4)
            clause = replace(clause, time=self._time(clause.tense), time_first=first)
        elif clause.tense in ("present", "past") and not clause.negated and not clause.passive and self._chance(0.12):
            clause = replace(clause, frequency=self._one(self._phrases["frequency"]))
        if small:
            return clause
        if action and clause.place is None and clause.goal is None and self._chance(0.12):
            clause = replace(clause, place=self._place(_LOCATION, "in", "in"))
        if self._chance(0.1):
            english, german, name = self._one(_ADJUNCTS)
            noun = self._noun_phrase((name,), plain=True, definite=True)
            clause = replace(clause, cause=Adjunct(english, german, replace(noun, plural=False)))
        if action and isinstance(clause.subject, (Pronoun, Name)) and self._chance(0.1):
            clause = replace(clause, manner=self._one(self._phrases["manner"]))
        return clause
