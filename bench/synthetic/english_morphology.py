"""English morphology for the parallel data: plurals, verb forms, articles."""

from __future__ import annotations

from dataclasses import dataclass

_VOWELS = "aeiou"
_A_BEFORE_VOWEL = ("uni", "use", "euro")
_AN_BEFORE_CONSONANT = ("hour", "honest")

OBJECT_PRONOUNS = {"I": "me", "you": "you", "he": "him", "she": "her", "it": "it", "we": "us", "they": "them"}
POSSESSIVES = {
    "I": "my",
    "you": "your",
    "he": "his",
    "she": "her",
    "it": "its",
    "we": "our",
    "they": "their",
}


def _ends_in_consonant_y(word: str) -> bool:
    return word.endswith("y") and word[-2] not in _VOWELS


def _with_s(word: str) -> str:
    if _ends_in_consonant_y(word):
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh", "go", "do")) else "s")


def plural(noun: str) -> str:
    """The plural of ``"box"`` (boxes) or of ``"man/men"``, which names an irregular one."""
    singular, _, irregular = noun.partition("/")
    return irregular or _with_s(singular)


def indefinite_article(following: str) -> str:
    """``a`` or ``an``, by the sound that the following word starts with."""
    word = following.lower()
    if word.startswith(_AN_BEFORE_CONSONANT):
        return "an"
    return "an" if word[0] in _VOWELS and not word.startswith(_A_BEFORE_VOWEL) else "a"


@dataclass(frozen=True)
class Verb:
    """An English verb (or verb with particle) by base form, past tense and past participle."""

    base: str
    past: str
    participle: str

    @classmethod
    def parse(cls, entry: str) -> Verb:
        """Read ``"buy/bought/bought"``, or a regular verb by its base form alone."""
        base, _, rest = entry.partition("/")
        if rest:
            past, participle = rest.split("/")
            return cls(base, past, participle)
        head, space, particle = base.partition(" ")
        if _ends_in_consonant_y(head):
            regular = head[:-1] + "ied"
        elif head.endswith("e"):
            regular = head + "d"
        else:
            regular = head + (head[-1] if head in ("plan", "stop", "hug") else "") + "ed"
        return cls(base, regular + space + particle, regular + space + particle)

    @property
    def third(self) -> str:
        """The third person singular present."""
        head, space, particle = self.base.partition(" ")
        return _with_s(head) + space + particle
