"""English morphology: plurals, verb forms, articles and pronouns, for the words of all the synthetic data.

Rules, and the irregular words that the data or their neighbours need. Phrases inflect their verb (the first word) or
their noun (the last).
"""

from __future__ import annotations

import re

OBJECT_PRONOUNS = {"I": "me", "you": "you", "he": "him", "she": "her", "it": "it", "we": "us", "they": "them"}
POSSESSIVES = {"I": "my", "you": "your", "he": "his", "she": "her", "it": "its", "we": "our", "they": "their"}

_VOWELS = "aeiou"
_SILENT_H = ("hour", "honest", "honor", "honour", "heir")
# a vowel in writing, "you" or "won" in speech: European, useful, utensil, uniform (not unimportant), one-way
_CONSONANT_SOUND = re.compile(r"e[uw]|us[eu]|ut[eio]|uni(?![dmn])|(one|once)\b")

_UNCHANGED_PLURALS = ("sheep", "deer", "moose", "salmon", "trout", "cod", "carp", "fish")
_IRREGULAR_PLURALS = {
    "mouse": "mice",
    "goose": "geese",
    "child": "children",
    "wolf": "wolves",
    "scarf": "scarves",
    "thief": "thieves",
    "knife": "knives",
    "fungus": "fungi",
    "crisis": "crises",
    "tomato": "tomatoes",
    "potato": "potatoes",
    "hero": "heroes",
    "human": "humans",
}
_IRREGULAR_THIRD_PERSONS = {"be": "is", "are": "is", "have": "has", "do": "does", "go": "goes"}
# base/past/participle; a phrase stands here where it differs from its verb
_IRREGULAR_VERBS = """
    be/was/been, become/became/become, begin/began/begun, break/broke/broken, bring/brought/brought,
    build/built/built, buy/bought/bought, catch/caught/caught, choose/chose/chosen, come/came/come, cut/cut/cut,
    dig/dug/dug, do/did/done, draw/drew/drawn, drink/drank/drunk, drive/drove/driven, eat/ate/eaten,
    fall/fell/fallen, feed/fed/fed, fight/fought/fought, find/found/found, fly/flew/flown, forget/forgot/forgotten,
    get/got/got, get up/got up/gotten up, give/gave/given, go/went/gone, grow/grew/grown, hang/hung/hung,
    have/had/had, hear/heard/heard, hide/hid/hidden, hold/held/held, keep/kept/kept, know/knew/known, lead/led/led,
    leave/left/left, lend/lent/lent, lie/lay/lain, lose/lost/lost, make/made/made, meet/met/met, pay/paid/paid,
    put/put/put, read/read/read, rise/rose/risen, run/ran/run, say/said/said, see/saw/seen, sell/sold/sold,
    send/sent/sent, sew/sewed/sewn, shed/shed/shed, show/showed/shown, sing/sang/sung, sit/sat/sat,
    sleep/slept/slept, speak/spoke/spoken, spend/spent/spent, split/split/split, spread/spread/spread,
    stand/stood/stood, steal/stole/stolen, swim/swam/swum, swing/swung/swung, take/took/taken, teach/taught/taught,
    tell/told/told, think/thought/thought, throw/threw/thrown, understand/understood/understood, wake/woke/woken,
    wear/wore/worn, win/won/won, write/wrote/written
"""
_PAST_AND_PARTICIPLE = {
    base.strip(): (past, participle)
    for base, past, participle in (entry.split("/") for entry in _IRREGULAR_VERBS.strip().split(","))
}
# Verbs of several syllables double the last consonant if they stress the last syllable.
_STRESSED_AT_THE_END = frozenset(
    ("admit", "begin", "commit", "control", "equip", "forget", "occur", "permit", "prefer", "refer", "regret", "submit")
)


def _ends_in_consonant_y(word: str) -> bool:
    return word.endswith("y") and word[-2] not in _VOWELS


def _with_s(word: str) -> str:
    if _ends_in_consonant_y(word):
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")


def plural(noun: str) -> str:
    """The plural; of several words, the last one is inflected (dairy product, dairy products)."""
    head, space, last = noun.rpartition(" ")
    if last in _UNCHANGED_PLURALS:
        return noun
    regular = last[:-2] + "en" if last.endswith("man") else _with_s(last)
    return head + space + _IRREGULAR_PLURALS.get(last, regular)


def with_article(phrase: str) -> str:
    """The phrase after ``a`` or ``an``, by the sound that it starts with (an hour, a uniform)."""
    word = phrase.lower()
    vowel = word.startswith(_SILENT_H) or (word[0] in _VOWELS and not _CONSONANT_SOUND.match(word))
    return f"{'an' if vowel else 'a'} {phrase}"


def third_person(phrase: str) -> str:
    """Third person singular present of a verb phrase given in its base or plural form."""
    verb, space, rest = phrase.partition(" ")
    return _IRREGULAR_THIRD_PERSONS.get(verb, _with_s(verb)) + space + rest


def _doubled(verb: str) -> str:
    """The stem before -ed and -ing, with its last consonant doubled where it has to be (stop, stopp-)."""
    one_vowel = len(verb) > 2 and sum(letter in _VOWELS for letter in verb) == 1
    if verb in _STRESSED_AT_THE_END or (one_vowel and verb[-2] in _VOWELS and verb[-1] not in _VOWELS + "wxy"):
        return verb + verb[-1]
    return verb


def _past_forms(phrase: str) -> tuple[str, str]:
    """Simple past and past participle of a verb phrase."""
    if phrase in _PAST_AND_PARTICIPLE:
        return _PAST_AND_PARTICIPLE[phrase]
    verb, space, rest = phrase.partition(" ")
    if verb in _PAST_AND_PARTICIPLE:
        past_form, participle_form = _PAST_AND_PARTICIPLE[verb]
        return past_form + space + rest, participle_form + space + rest
    if verb.endswith("e"):
        regular = verb + "d"
    elif _ends_in_consonant_y(verb):
        regular = verb[:-1] + "ied"
    else:
        regular = _doubled(verb) + "ed"
    return regular + space + rest, regular + space + rest


def past(phrase: str) -> str:
    """Simple past of a verb phrase (carry bags, carried bags)."""
    return _past_forms(phrase)[0]


def participle(phrase: str) -> str:
    """Past participle of a verb phrase (break, broken)."""
    return _past_forms(phrase)[1]


def gerund(phrase: str) -> str:
    """The -ing form of a verb phrase (tie knots, tying knots)."""
    verb, space, rest = phrase.partition(" ")
    if verb.endswith("ie"):
        stem = verb[:-2] + "y"
    elif verb.endswith("e") and not verb.endswith("ee") and verb != "be":
        stem = verb[:-1]
    else:
        stem = _doubled(verb)
    return stem + "ing" + space + rest
