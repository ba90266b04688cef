"""The English lexicon of the generated data: word tables, morphology and the paraphrase templates.

The tables under ``english/`` are one fixed world of facts (what an animal eats, where a city lies); a seed
changes which prompts are drawn, never the facts, so a model can learn the facts from one draw and be asked in
another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from random import Random

VOWELS = "aeiou"
IRREGULAR_PLURALS = {
    "mouse": "mice",
    "goose": "geese",
    "sheep": "sheep",
    "deer": "deer",
    "moose": "moose",
    "salmon": "salmon",
    "trout": "trout",
    "cod": "cod",
    "carp": "carp",
    "fish": "fish",
    "wolf": "wolves",
    "scarf": "scarves",
    "fungus": "fungi",
    "tomato": "tomatoes",
    "potato": "potatoes",
    "child": "children",
}
# Polysyllabic regular verbs stressed on the last syllable also double the final consonant.
DOUBLING_VERBS = frozenset({"admit", "prefer", "regret", "refer", "occur"})
CONSONANT_SOUND = ("uni", "use", "eu", "one")
VOWEL_SOUND = ("hour", "honest", "heir")


@cache
def table(name: str) -> tuple[tuple[str, ...], ...]:
    """Rows of ``english/NAME.txt``: columns divided by ``|``, lines with ``#`` are headings."""
    text = (files("bench.synthetic") / "english" / f"{name}.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return tuple(tuple(cell.strip() for cell in line.split("|")) for line in lines)


def column(name: str, index: int = 0) -> tuple[str, ...]:
    """One column of a table."""
    return tuple(row[index] for row in table(name))


@cache
def plural(noun: str) -> str:
    """Plural of a noun; of several words, the last one is inflected (fisherman -> fishermen)."""
    head, _, last = noun.rpartition(" ")
    if last in IRREGULAR_PLURALS:
        form = IRREGULAR_PLURALS[last]
    elif last.endswith("man"):
        form = last[:-3] + "men"
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        form = last + "es"
    elif last.endswith("y") and last[-2] not in VOWELS:
        form = last[:-1] + "ies"
    else:
        form = last + "s"
    return f"{head} {form}".strip()


def with_article(phrase: str) -> str:
    """The phrase after its indefinite article, chosen by sound (an hour, a uniform)."""
    word = phrase.lower()
    vowel = word.startswith(VOWEL_SOUND) or (word[0] in VOWELS and not word.startswith(CONSONANT_SOUND))
    return f"{'an' if vowel else 'a'} {phrase}"


@cache
def _irregular() -> dict[str, tuple[str, str]]:
    return {base: (past_form, participle_form) for base, past_form, participle_form in table("irregular_verbs")}


def _doubles(verb: str) -> bool:
    if verb in DOUBLING_VERBS:
        return True
    vowels = sum(letter in VOWELS for letter in verb)
    return vowels == 1 and len(verb) > 2 and verb[-2] in VOWELS and verb[-1] not in VOWELS + "wxy"


def _split(phrase: str) -> tuple[str, str]:
    verb, space, rest = phrase.partition(" ")
    return verb, space + rest


@cache
def third_person(phrase: str) -> str:
    """Third person singular present of a verb phrase given in its base or plural form."""
    verb, rest = _split(phrase)
    special = {"be": "is", "are": "is", "have": "has", "do": "does", "go": "goes"}
    if verb in special:
        form = special[verb]
    elif verb.endswith(("s", "x", "z", "ch", "sh")):
        form = verb + "es"
    elif verb.endswith("y") and verb[-2] not in VOWELS:
        form = verb[:-1] + "ies"
    else:
        form = verb + "s"
    return form + rest


def _regular_past(verb: str) -> str:
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in VOWELS:
        return verb[:-1] + "ied"
    return verb + (verb[-1] if _doubles(verb) else "") + "ed"


@cache
def past(phrase: str) -> str:
    """Simple past of a verb phrase."""
    verb, rest = _split(phrase)
    return (_irregular()[verb][0] if verb in _irregular() else _regular_past(verb)) + rest


@cache
def participle(phrase: str) -> str:
    """Past participle of a verb phrase."""
    verb, rest = _split(phrase)
    return (_irregular()[verb][1] if verb in _irregular() else _regular_past(verb)) + rest


@cache
def gerund(phrase: str) -> str:
    """The -ing form of a verb phrase."""
    verb, rest = _split(phrase)
    if verb.endswith("ie"):
        form = verb[:-2] + "ying"
    elif verb.endswith("e") and not verb.endswith("ee") and verb != "be":
        form = verb[:-1] + "ing"
    else:
        form = verb + (verb[-1] if _doubles(verb) else "") + "ing"
    return form + rest


def listing(items: Sequence[str], conjunction: str = "and") -> str:
    """Items joined as "a, b and c"."""
    if len(items) == 1:
        return items[0]
    return f"{', '.join(items[:-1])} {conjunction} {items[-1]}"


def sentence(text: str) -> str:
    """Text with a capital letter at its start."""
    return text[:1].upper() + text[1:]


def capitalise(text: str) -> str:
    """Text with a capital letter at the start of every sentence."""
    return re.sub(r"([.?!] )([a-z])", lambda match: match[1] + match[2].upper(), sentence(text))


Node = str | tuple[tuple["Node", ...], ...]


@cache
def _parse(template: str) -> tuple[Node, ...]:
    """Template as a sequence of literal texts and choices (each a tuple of sequences)."""
    stack: list[list[list[Node]]] = [[[]]]
    text = ""
    for letter in template:
        if letter not in "[|]" or (letter == "|" and len(stack) == 1):
            text += letter
            continue
        if text:
            stack[-1][-1].append(text)
            text = ""
        if letter == "[":
            stack.append([[]])
        elif letter == "|":
            stack[-1].append([])
        else:
            choice = stack.pop()
            stack[-1][-1].append(tuple(tuple(option) for option in choice))
    if len(stack) != 1:
        raise ValueError(f"unbalanced brackets in template: {template!r}")
    if text:
        stack[-1][-1].append(text)
    return tuple(stack[0][0])


def _draw(rng: Random, nodes: tuple[Node, ...]) -> str:
    return "".join(node if isinstance(node, str) else _draw(rng, rng.choice(node)) for node in nodes)


def realise(rng: Random, template: str | Sequence[str], slots: Mapping[str, str] | None = None) -> str:
    """One wording of a template (or of one of several).

    ``[a|b]`` is a free choice of wording, ``{slot}`` a value. Values are put in after the choice, so they may
    hold any letters.
    """
    chosen = template if isinstance(template, str) else rng.choice(template)
    text = _draw(rng, _parse(chosen))
    return text.format_map(slots) if slots else text


class Person:
    """A named person with pronouns."""

    def __init__(self, name: str, gender: str) -> None:
        self.name = name
        self.subject, self.object, self.possessive = ("she", "her", "her") if gender == "f" else ("he", "him", "his")


def people(rng: Random, count: int) -> list[Person]:
    """Distinct people drawn from the table of names."""
    return [Person(name, gender) for name, gender in rng.sample(table("names"), count)]
