"""Rendering of clause structures as English sentences."""

from __future__ import annotations

from bench.synthetic import english_morphology as morphology
from bench.synthetic.bilingual import (
    AdjectiveEntry,
    Adjunct,
    Clause,
    Name,
    Nominal,
    NounPhrase,
    Phrase,
    Pronoun,
    Sentence,
    who_of,
)

_MODAL_PRESENT = {"can": "can", "must": "must", "should": "should", "may": "may"}
_MODAL_PAST = {"can": "could"}


def _be(tense: str, who: str) -> str:
    if tense == "present":
        return {"I": "am", "you": "are", "we": "are", "they": "are"}.get(who, "is")
    return "were" if who in ("you", "we", "they") else "was"


def noun_phrase(phrase: NounPhrase) -> str:
    """A noun phrase with its possessor and relative clause."""
    noun = morphology.plural(phrase.noun.english) if phrase.plural else phrase.noun.english.partition("/")[0]
    words = [adjective.english for adjective in phrase.adjectives]
    if phrase.degree is not None:
        words.insert(0, phrase.degree.english)
    words.append(noun)
    if isinstance(phrase.owner, Name):
        words.insert(0, phrase.owner.phrase.english + "'s")
    elif phrase.number is not None:
        words.insert(0, phrase.number.english)
    elif phrase.determiner == "a":
        words.insert(0, morphology.indefinite_article(words[0]))
    elif phrase.determiner == "this":
        words.insert(0, "these" if phrase.plural else "this")
    elif phrase.determiner:
        words.insert(0, morphology.POSSESSIVES.get(phrase.determiner, phrase.determiner))
    if isinstance(phrase.owner, NounPhrase):
        words += ["of", noun_phrase(phrase.owner)]
    if phrase.relative is not None:
        gap = phrase.relative.role
        words += [phrase.relative.english_pronoun, clause(phrase.relative.clause, gap)]
    return " ".join(words)


def nominal(item: Nominal | Phrase, subject: bool = False) -> str:
    """A pronoun, name, noun phrase or fixed phrase."""
    if isinstance(item, Pronoun):
        return item.who if subject else morphology.OBJECT_PRONOUNS[item.who]
    if isinstance(item, Name):
        return item.phrase.english
    return item.english if isinstance(item, Phrase) else noun_phrase(item)


def _adjunct(item: Adjunct | None) -> list[str]:
    return [f"{item.english} {nominal(item.nominal)}"] if item else []


def _verb_group(item: Clause, who: str) -> tuple[list[str], list[str]]:
    """Split the verb group at the place of an adverb: auxiliaries (with not) and the rest."""
    if item.verb is None:
        verb, copula = morphology.Verb("be", "", "been"), True
    elif item.passive:
        verb, copula = morphology.Verb("be " + item.verb.english.participle, "", ""), True
    else:
        verb, copula = item.verb.english, False
    rest = verb.base.split()[1:] if copula else []
    third = who in ("he", "she", "it")
    negation = ["not"] if item.negated else []
    if item.modal == "want" or (item.modal in ("must", "may") and item.tense == "past"):
        phrase = {"want": "want", "must": "have", "may": "be allowed"}[item.modal].split()
        if phrase[0] == "be":
            return [_be(item.tense, who), *negation], ["allowed to", verb.base]
        helper = morphology.Verb("want", "wanted", "") if phrase == ["want"] else morphology.Verb("have", "had", "")
        if negation:
            auxiliary = "did" if item.tense == "past" else "does" if third else "do"
            return [auxiliary, "not"], [helper.base, "to", verb.base]
        form = helper.past if item.tense == "past" else helper.third if third else helper.base
        return [], [form, "to", verb.base]
    if item.modal:
        modal = (_MODAL_PAST if item.tense == "past" else _MODAL_PRESENT)[item.modal]
        return [modal, *negation], [verb.base]
    if item.tense == "future":
        return ["will", *negation], [verb.base]
    if item.tense == "perfect":
        return ["has" if third else "have", *negation], [verb.participle, *rest]
    if copula:
        return [_be(item.tense, who), *negation], rest
    if negation:
        return ["did" if item.tense == "past" else "does" if third else "do", "not"], [verb.base]
    if item.tense == "past":
        return [], [verb.past]
    return [], [verb.third if third else verb.base]


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
        auxiliaries, rest = ["to"], [item.verb.english.base]
    if question and not auxiliaries:
        assert item.verb is not None
        auxiliaries = ["did" if item.tense == "past" else "does" if who in ("he", "she", "it") else "do"]
        rest = [item.verb.english.base]
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
