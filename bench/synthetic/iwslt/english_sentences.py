"""Rendering of clause structures as English sentences."""

from __future__ import annotations

from bench.synthetic.english_morphology import (
    OBJECT_PRONOUNS,
    POSSESSIVES,
    participle,
    past,
    plural,
    third_person,
    with_article,
)
from bench.synthetic.iwslt.clauses import Adjunct, Clause, Name, Nominal, NounPhrase, Pronoun, Sentence, who_of
from bench.synthetic.iwslt.lexicon import AdjectiveEntry, Phrase

_MODAL_PAST = {"can": "could"}  # the sampler draws no other; "must" becomes "had to"
_SINGULAR = ("he", "she", "it")


def _be(tense: str, who: str) -> str:
    if tense == "present":
        return {"I": "am", "you": "are", "we": "are", "they": "are"}.get(who, "is")
    return "were" if who in ("you", "we", "they") else "was"


def _finite(verb: str, tense: str, who: str) -> str:
    if tense == "past":
        return past(verb)
    return third_person(verb) if who in _SINGULAR else verb


def noun_phrase(phrase: NounPhrase) -> str:
    """A noun phrase with its possessor and relative clause."""
    words = [adjective.english for adjective in phrase.adjectives]
    if phrase.degree is not None:
        words.insert(0, phrase.degree.english)
    words.append(plural(phrase.noun.english) if phrase.plural else phrase.noun.english)
    if isinstance(phrase.owner, Name):
        words.insert(0, phrase.owner.phrase.english + "'s")
    elif phrase.number is not None:
        words.insert(0, phrase.number.english)
    elif phrase.determiner == "a":
        words[0] = with_article(words[0])
    elif phrase.determiner == "this":
        words.insert(0, "these" if phrase.plural else "this")
    elif phrase.determiner:
        words.insert(0, POSSESSIVES.get(phrase.determiner, phrase.determiner))
    if isinstance(phrase.owner, NounPhrase):
        words += ["of", noun_phrase(phrase.owner)]
    if phrase.relative is not None:
        gap = phrase.relative.role
        words += [phrase.relative.english_pronoun, clause(phrase.relative.clause, gap)]
    return " ".join(words)


def nominal(item: Nominal | Phrase, subject: bool = False) -> str:
    """A pronoun, name, noun phrase or fixed phrase."""
    if isinstance(item, Pronoun):
        return item.who if subject else OBJECT_PRONOUNS[item.who]
    if isinstance(item, Name):
        return item.phrase.english
    return item.english if isinstance(item, Phrase) else noun_phrase(item)


def _adjunct(item: Adjunct | None) -> list[str]:
    return [f"{item.english} {nominal(item.nominal)}"] if item else []


def _verb_group(item: Clause, who: str) -> tuple[list[str], list[str]]:
    """Split the verb group at the place of an adverb: auxiliaries (with not) and the rest."""
    if item.verb is None:
        verb = "be"
    elif item.passive:
        verb = "be " + participle(item.verb.english)
    else:
        verb = item.verb.english
    negation = ["not"] if item.negated else []
    if item.modal == "want" or (item.modal == "must" and item.tense == "past"):
        helper = "want" if item.modal == "want" else "have"
        if item.negated:
            return [_finite("do", item.tense, who), "not"], [helper, "to", verb]
        return [], [_finite(helper, item.tense, who), "to", verb]
    if item.modal:
        return [_MODAL_PAST[item.modal] if item.tense == "past" else item.modal, *negation], [verb]
    if item.tense == "future":
        return ["will", *negation], [verb]
    if item.tense == "perfect":
        return ["has" if who in _SINGULAR else "have", *negation], [participle(verb)]
    if item.verb is None or item.passive:
        return [_be(item.tense, who), *negation], verb.split()[1:]
    if item.negated:
        return [_finite("do", item.tense, who), "not"], [verb]
    return [], [_finite(verb, item.tense, who)]


def _after_verb(item: Clause, gap: str) -> list[str]:
    words: list[str] = []
    if item.degree is not None:
        words.append(item.degree.english)
    if isinstance(item.predicate, AdjectiveEntry):
        words.append(item.predicate.english)
    elif item.predicate is not None:
        words.append(noun_phrase(item.predicate))
    if item.verb is not None and item.verb.prepositions and item.verb.prepositions[0]:
        words.append(item.verb.prepositions[0])
    if item.object is not None and gap != "object":
        words.append(nominal(item.object))
    if item.indirect is not None:
        words += ["to", nominal(item.indirect)]
    words += _adjunct(item.goal)
    if item.agent is not None:
        words += ["by", noun_phrase(item.agent)]
    if item.manner is not None:
        words.append(item.manner.english)
    words += _adjunct(item.place) + _adjunct(item.cause)
    return words


def clause(item: Clause, gap: str = "", *, infinitive: bool = False, question: bool = False) -> str:
    """A clause; ``gap`` names the role of a relative pronoun, ``question`` inverts subject and auxiliary."""
    who = who_of(item.subject)
    auxiliaries, rest = _verb_group(item, who)
    if infinitive:
        assert item.verb is not None
        auxiliaries, rest = ["to"], [item.verb.english]
    if question and not auxiliaries:
        assert item.verb is not None
        auxiliaries, rest = [_finite("do", item.tense, who)], [item.verb.english]
    subject = [] if infinitive or gap == "subject" else [nominal(item.subject, subject=True)]
    words = [auxiliaries[0], *subject, *auxiliaries[1:]] if question else subject + auxiliaries
    if item.time is not None and item.time_first and not infinitive:
        words.insert(0, item.time.english + ",")
    if item.frequency is not None:
        words.append(item.frequency.english)
    words += rest + _after_verb(item, gap)
    if item.time is not None and (not item.time_first or infinitive):
        words.append(item.time.english)
    if item.complement is not None:
        if item.complementizer is not None:
            words += [item.complementizer.english, clause(item.complement)]
        else:
            words.append(clause(item.complement, infinitive=True))
    return " ".join(words)


def sentence(item: Sentence) -> str:
    """The sentence with punctuation and an initial capital."""
    parts = [item.opener.english] if item.opener else []
    if item.fronted is not None:
        link, fronted = item.fronted
        parts.append(f"{link.english} {clause(fronted)},")
    for link_or_none, body in item.clauses:
        if link_or_none is not None:
            if link_or_none.comma:
                parts[-1] += ","
            parts.append(link_or_none.english)
        parts.append(clause(body, question=item.question and link_or_none is None))
    text = " ".join(parts).replace("can not ", "cannot ")
    return text[0].upper() + text[1:] + ("?" if item.question else ".")
