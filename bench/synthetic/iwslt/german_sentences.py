"""Rendering of clause structures as German sentences, at random among valid wordings and word orders.

The order follows the field model of the German clause: first field, finite verb, middle field, verb end,
final field. Main clauses put the finite verb second, subordinate clauses put it last.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.synthetic.iwslt.clauses import Adjunct, Clause, Name, Nominal, NounPhrase, Pronoun, Sentence, who_of
from bench.synthetic.iwslt.german_morphology import (
    HABEN,
    MODALS,
    POSSESSIVES,
    SEIN,
    WERDEN,
    Case,
    Noun,
    Person,
    Tense,
    Verb,
    contract,
    determiner,
    inflect_adjective,
    personal_pronoun,
    reflexive_pronoun,
    relative_pronoun,
)
from bench.synthetic.iwslt.lexicon import AdjectiveEntry, Phrase

T = TypeVar("T")

_DETERMINERS = {
    "the": "der",
    "a": "ein",
    "this": "dies",
    "every": "jed",
    "all": "all",
    "many": "viel",
    "some": "einig",
}
_PERSON: dict[str, Person] = {"I": "1s", "you": "2s", "You": "3p", "we": "1p", "they": "3p"}


@dataclass
class _Fields:
    """The fields of a clause: ``middle`` holds (kind, text) pairs, ``final`` what follows the verb end."""

    finite: str
    prefix: str
    subject: str
    middle: list[tuple[str, str]]
    end: list[str]
    final: str = ""

    def verb_second(self, front: str | None = None) -> str:
        """Main clause; ``front`` is the kind of the part in first place, ``""`` if another clause is."""
        middle = [text for kind, text in self.middle if kind != front]
        first = [text for kind, text in self.middle if kind == front]
        start = [self.subject, self.finite] if front is None else [*first, self.finite, self.subject]
        return self._close(start + middle + self.end + ([self.prefix] if self.prefix else []))

    def verb_final(self, introduction: str) -> str:
        """Subordinate clause after a conjunction or a relative pronoun (an empty ``subject`` is skipped)."""
        words = [introduction, self.subject] + [text for _, text in self.middle]
        return self._close([*words, *self.end, self.prefix + self.finite])

    def _close(self, words: list[str]) -> str:
        return " ".join(word for word in words if word) + (f", {self.final}," if self.final else "")


class GermanWriter:
    """Writes one German rendering; each instance draws its style (tense of the past, form of address)."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._spoken_past = rng.random() < 0.5
        self._formal = rng.random() < 0.5

    def _one(self, options: Sequence[T]) -> T:
        return options[0] if len(options) == 1 else options[self._rng.randrange(len(options))]

    def _who(self, who: str) -> str:
        return "You" if who == "you" and self._formal else who

    def _nominal(self, item: Nominal | Phrase, case: Case, kein: bool = False) -> str:
        if isinstance(item, Pronoun):
            return personal_pronoun(self._who(item.who), case)
        if isinstance(item, Name):
            return self._one(item.phrase.german)
        return self._one(item.german) if isinstance(item, Phrase) else self._noun_phrase(item, case, kein)

    def _noun_phrase(self, phrase: NounPhrase, case: Case, kein: bool) -> str:
        noun = self._one(phrase.noun.german)
        words, owner_after = self._determined(phrase, noun, case, kein)
        words.append(noun.form(case, phrase.plural))
        if owner_after:
            words.append(owner_after)
        text = " ".join(word for word in words if word)
        if phrase.relative is not None:
            text += f", {self._relative(phrase, noun)},"
        return text

    def _determined(self, phrase: NounPhrase, noun: Noun, case: Case, kein: bool) -> tuple[list[str], str]:
        """The words before the noun, and a possessor that follows it."""
        owner, owner_after, word = phrase.owner, "", phrase.determiner
        if word in POSSESSIVES:
            stem = POSSESSIVES[self._who(word)]
        elif phrase.number is not None:
            stem = phrase.number.german[0]
        else:
            stem = _DETERMINERS.get(word, word)
        if kein and stem in ("ein", ""):
            stem = "kein"
        if isinstance(owner, Name):
            name = self._one(owner.phrase.german)
            if name.endswith("s") or self._rng.random() < 0.3:
                stem, owner_after = "der", f"von {name}"
            else:
                stem = f"{name}s"
        elif owner is not None:
            if self._rng.random() < 0.3:
                owner_after = contract("von", self._nominal(owner, "dat"))
            else:
                owner_after = self._nominal(owner, "gen")
        head, declension = determiner(stem, noun.gender, case, phrase.plural)
        words = [head] + ([self._one(phrase.degree.german)] if phrase.degree else [])
        for adjective in phrase.adjectives:
            _, stem = self._one(adjective.german)
            words.append(inflect_adjective(stem, declension, noun.gender, case, phrase.plural))
        return words, owner_after

    def _relative(self, phrase: NounPhrase, noun: Noun) -> str:
        assert phrase.relative is not None
        clause, role = phrase.relative.clause, phrase.relative.role
        case: Case = "nom"
        preposition = ""
        if role == "object":
            assert clause.verb is not None
            case = "dat" if clause.verb.frame == "dat" else "acc"
            if clause.verb.prepositions:
                _, preposition, case = clause.verb.prepositions
        pronoun = relative_pronoun(noun.gender, case, phrase.plural)
        fields = self._fields(clause, gap=role)
        return fields.verb_final(f"{preposition} {pronoun}".strip())

    def _adjunct(self, item: Adjunct) -> str:
        preposition, case = self._one(item.german)
        return contract(preposition, self._nominal(item.nominal, case))

    def _verb_group(self, clause: Clause, verb: Verb, person: Person) -> tuple[str, str, list[str]]:
        """The finite form, a separable prefix that goes with it, and the non-finite verbs at the end."""
        tense: Tense = "past" if clause.tense == "past" else "present"
        if clause.passive:
            return WERDEN.finite(tense, person), "", [verb.participle]
        if clause.modal:
            return MODALS[clause.modal].finite(tense, person), "", [verb.infinitive]
        if clause.tense == "future":
            # German often leaves the future to a time adverbial.
            if clause.time is None or self._rng.random() < 0.5:
                return WERDEN.finite("present", person), "", [verb.infinitive]
            return verb.finite("present", person), verb.prefix, []
        if clause.tense == "perfect" or (clause.tense == "past" and self._spoken_past and verb is not SEIN):
            auxiliary = SEIN if verb.auxiliary == "sein" else HABEN
            return auxiliary.finite("present", person), "", [verb.participle]
        return verb.finite(tense, person), verb.prefix, []

    def _middle(self, clause: Clause, verb: Verb, who: str, gap: str) -> list[tuple[str, str]]:
        """The middle field after the subject, in an unmarked order."""
        rng = self._rng
        pronouns: list[tuple[str, str]] = [("pronoun", reflexive_pronoun(who))] if verb.reflexive else []
        definite: list[tuple[str, str]] = []
        late: list[tuple[str, str]] = []
        case: Case = "dat" if clause.verb and clause.verb.frame == "dat" else "acc"
        negated = clause.negated
        if clause.indirect is not None:
            target = pronouns if isinstance(clause.indirect, Pronoun) else definite
            target.append(("indirect", self._nominal(clause.indirect, "dat")))
        if clause.object is not None and gap != "object":
            assert clause.verb is not None
            if clause.verb.prepositions:
                _, preposition, case = clause.verb.prepositions
                late.append(("object", contract(preposition, self._nominal(clause.object, case))))
            elif isinstance(clause.object, NounPhrase) and clause.object.determiner in ("a", ""):
                bare = clause.object.owner is None
                target = late if bare else definite
                target.append(("object", self._nominal(clause.object, case, kein=negated and bare)))
                negated = negated and not bare
            else:
                target = pronouns if isinstance(clause.object, Pronoun) else definite
                target.append(("object", self._nominal(clause.object, case)))
        times = [("time", self._one(clause.time.german))] if clause.time else []
        if clause.frequency is not None:
            times.append(("frequency", self._one(clause.frequency.german)))
        circumstances = [(kind, self._adjunct(item)) for kind, item in self._circumstances(clause)]
        early = definite + times if times and definite and rng.random() < 0.35 else times + definite
        if clause.agent is not None:
            early.append(("agent", contract("von", self._nominal(clause.agent, "dat"))))
        middle = pronouns + early + circumstances
        if negated and not (isinstance(clause.predicate, NounPhrase) and clause.predicate.determiner == "a"):
            middle.append(("not", "nicht"))
        if clause.manner is not None:
            middle.append(("manner", self._one(clause.manner.german)))
        if clause.goal is not None:
            late.append(("goal", self._adjunct(clause.goal)))
        if isinstance(clause.predicate, AdjectiveEntry):
            degree = self._one(clause.degree.german) + " " if clause.degree else ""
            late.append(("predicate", degree + self._one(clause.predicate.german)[0]))
        elif clause.predicate is not None:
            late.append(("predicate", self._nominal(clause.predicate, "nom", kein=negated)))
        return middle + late

    def _circumstances(self, clause: Clause) -> list[tuple[str, Adjunct]]:
        return [(kind, item) for kind, item in (("cause", clause.cause), ("place", clause.place)) if item]

    def _fields(self, clause: Clause, gap: str = "") -> _Fields:
        verb = SEIN if clause.verb is None else self._one(clause.verb.german)
        who = self._who(who_of(clause.subject))
        finite, prefix, end = self._verb_group(clause, verb, _PERSON.get(who, "3s"))
        subject = "" if gap == "subject" else self._nominal(clause.subject, "nom")
        fields = _Fields(finite, prefix, subject, self._middle(clause, verb, who, gap), end)
        if clause.complement is not None:
            if clause.complementizer is not None:
                fields.final = self._fields(clause.complement).verb_final(self._one(clause.complementizer.german))
            else:
                fields.final = self._infinitive(clause.complement)
        return fields

    def _infinitive(self, clause: Clause) -> str:
        assert clause.verb is not None
        verb = self._one(clause.verb.german)
        middle = self._middle(clause, verb, self._who(who_of(clause.subject)), gap="")
        return " ".join([text for _, text in middle] + [verb.zu_infinitive])

    def _main(self, clause: Clause) -> str:
        """A main clause with the subject or an adverbial in first place."""
        fields = self._fields(clause)
        kinds = {kind for kind, _ in fields.middle}
        draw = self._rng.random()
        if "time" in kinds and draw < (0.65 if clause.time_first else 0.4):
            return fields.verb_second("time")
        if "cause" in kinds and draw > 0.8:
            return fields.verb_second("cause")
        if "place" in kinds and draw > 0.9:
            return fields.verb_second("place")
        return fields.verb_second()

    def sentence(self, item: Sentence) -> str:
        """The sentence with punctuation and an initial capital."""
        parts = []
        if item.opener is not None:
            options = [o for o in item.opener.german if o != ("weißt du," if self._formal else "wissen Sie,")]
            parts.append(self._one(options))
        for index, (link, clause) in enumerate(item.clauses):
            if index == 0 and item.fronted is not None:
                _, conjunction = self._one(item.fronted[0].german)
                parts.append(self._fields(item.fronted[1]).verb_final(conjunction) + ",")
                parts.append(self._fields(clause).verb_second(""))
            elif link is None:
                parts.append(self._fields(clause).verb_second("") if item.question else self._main(clause))
            else:
                kind, word = self._one(link.german)
                if link.comma or kind == "subordinate" or word == "denn":
                    parts[-1] += ","
                if kind == "subordinate":
                    parts.append(self._fields(clause).verb_final(word))
                elif kind == "adverb":
                    parts.append(f"{word} {self._fields(clause).verb_second('')}")
                else:
                    parts.append(f"{word} {self._main(clause)}")
        text = " ".join(parts).replace(",,", ",").rstrip(",")
        return text[0].upper() + text[1:] + ("?" if item.question else ".")
