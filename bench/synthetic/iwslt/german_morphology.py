"""German morphology: declension of noun phrases and conjugation of verbs from their principal parts.

The forms follow the standard tables (Duden, Die Grammatik): four cases, three genders, strong, weak and mixed
adjective endings, weak (n-declension) nouns, weak and strong verbs, separable prefixes, modal verbs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Gender = Literal["m", "f", "n"]
Case = Literal["nom", "acc", "dat", "gen"]
Declension = Literal["strong", "weak", "mixed"]
Tense = Literal["present", "past"]
# Grammatical person and number of a subject; the formal "Sie" takes the forms of "3p".
Person = Literal["1s", "2s", "3s", "1p", "3p"]

_GENDER_OF_ARTICLE: dict[str, Gender] = {"der": "m", "die": "f", "das": "n"}

# Columns: masculine, feminine, neuter, plural.
_COLUMN = {"m": 0, "f": 1, "n": 2, "p": 3}
_DEFINITE = {
    "nom": "der die das die",
    "acc": "den die das die",
    "dat": "dem der dem den",
    "gen": "des der des der",
}
_STRONG = {"nom": "er e es e", "acc": "en e es e", "dat": "em er em en", "gen": "es er es er"}
_WEAK = {"nom": "e e e en", "acc": "en e e en", "dat": "en en en en", "gen": "en en en en"}
_DER_WORDS = {"dies", "jed", "viel", "einig", "all"}

_PRONOUNS: dict[str, tuple[str, str, str]] = {  # nominative, accusative, dative
    "I": ("ich", "mich", "mir"),
    "you": ("du", "dich", "dir"),
    "You": ("Sie", "Sie", "Ihnen"),
    "he": ("er", "ihn", "ihm"),
    "she": ("sie", "sie", "ihr"),
    "it": ("es", "es", "ihm"),
    "we": ("wir", "uns", "uns"),
    "they": ("sie", "sie", "ihnen"),
}
_REFLEXIVE = {"I": "mich", "you": "dich", "we": "uns"}
POSSESSIVES = {
    "I": "mein",
    "you": "dein",
    "You": "Ihr",
    "he": "sein",
    "she": "ihr",
    "it": "sein",
    "we": "unser",
    "they": "ihr",
}
_CONTRACTIONS = {
    ("in", "dem"): "im",
    ("an", "dem"): "am",
    ("zu", "dem"): "zum",
    ("zu", "der"): "zur",
    ("von", "dem"): "vom",
    ("bei", "dem"): "beim",
    ("in", "das"): "ins",
    ("an", "das"): "ans",
}


@dataclass(frozen=True)
class Noun:
    """A German noun by its dictionary entry: gender, nominative and genitive singular, nominative plural."""

    gender: Gender
    singular: str
    genitive: str
    plural: str

    @classmethod
    def parse(cls, entry: str) -> Noun:
        """Read ``"der Mann, Mannes, Männer"``; raises KeyError on an unknown article."""
        nominative, genitive, plural = (part.strip() for part in entry.split(","))
        article, singular = nominative.split()
        return cls(_GENDER_OF_ARTICLE[article], singular, genitive, plural)

    @property
    def is_weak(self) -> bool:
        """Whether the noun takes -(e)n outside the nominative singular (der Student, des Studenten)."""
        return self.gender == "m" and self.genitive == self.plural and self.genitive.endswith("n")

    def form(self, case: Case, plural: bool = False) -> str:
        """The inflected noun without determiner."""
        if plural:
            return self.plural + ("n" if case == "dat" and self.plural[-1] not in "ns" else "")
        if case == "gen" or (self.is_weak and case != "nom"):
            return self.genitive
        return self.singular


@dataclass(frozen=True)
class Verb:
    """A German verb by its principal parts; ``third`` is the 3rd person singular present."""

    stem_infinitive: str
    third: str
    preterite: str
    participle: str
    prefix: str = ""
    reflexive: bool = False
    auxiliary: Literal["haben", "sein"] = "haben"

    @classmethod
    def parse(cls, entry: str) -> Verb:
        """Read ``"[sich ][*][prefix.]infinitive, third, preterite, participle"``; ``*`` means sein."""
        infinitive, third, preterite, participle = (part.strip() for part in entry.split(","))
        reflexive = infinitive.startswith("sich ")
        infinitive = infinitive.removeprefix("sich ")
        auxiliary: Literal["haben", "sein"] = "sein" if infinitive.startswith("*") else "haben"
        prefix, _, stem = infinitive.removeprefix("*").rpartition(".")
        return cls(stem, third, preterite, participle, prefix, reflexive, auxiliary)

    @property
    def infinitive(self) -> str:
        """The infinitive with its prefix (``anfangen``)."""
        return self.prefix + self.stem_infinitive

    @property
    def zu_infinitive(self) -> str:
        """The infinitive with zu, inside the word after a separable prefix (``anzufangen``)."""
        return f"{self.prefix}zu{self.stem_infinitive}" if self.prefix else f"zu {self.stem_infinitive}"

    def finite(self, tense: Tense, person: Person) -> str:
        """The finite form without the separable prefix."""
        if self.infinitive in _IRREGULAR_PRESENT and tense == "present":
            return _IRREGULAR_PRESENT[self.infinitive].split()[("1s", "2s", "3s", "1p", "3p").index(person)]
        return self._present(person) if tense == "present" else self._past(person)

    def _present(self, person: Person) -> str:
        if person in ("1p", "3p"):
            return self.stem_infinitive
        if person == "3s":
            return self.third
        if person == "1s":
            if self.stem_infinitive.endswith("eln"):
                return self.stem_infinitive[:-3] + "le"
            return self.stem_infinitive.removesuffix("n").removesuffix("e") + "e"
        stem = self.stem_infinitive.removesuffix("n").removesuffix("e")
        if stem.endswith("t") and not self.third.endswith("et"):  # er hält, du hältst
            return self.third + "st"
        stem = self.third.removesuffix("t")
        return stem + ("t" if stem[-1] in "sßzx" else "st")

    def _past(self, person: Person) -> str:
        weak = self.preterite.endswith("te")
        if person in ("1s", "3s"):
            return self.preterite
        if person == "2s":
            return self.preterite + ("est" if not weak and self.preterite[-1] in "dtsßz" else "st")
        return self.preterite + ("n" if self.preterite.endswith("e") else "en")


_IRREGULAR_PRESENT = {  # ich, du, er, wir, sie
    "sein": "bin bist ist sind sind",
    "haben": "habe hast hat haben haben",
    "werden": "werde wirst wird werden werden",
    "wissen": "weiß weißt weiß wissen wissen",
    "können": "kann kannst kann können können",
    "müssen": "muss musst muss müssen müssen",
    "wollen": "will willst will wollen wollen",
    "sollen": "soll sollst soll sollen sollen",
    "dürfen": "darf darfst darf dürfen dürfen",
}
SEIN = Verb.parse("*sein, ist, war, gewesen")
HABEN = Verb.parse("haben, hat, hatte, gehabt")
WERDEN = Verb.parse("*werden, wird, wurde, geworden")
MODALS = {
    "can": Verb.parse("können, kann, konnte, gekonnt"),
    "must": Verb.parse("müssen, muss, musste, gemusst"),
    "want": Verb.parse("wollen, will, wollte, gewollt"),
    "should": Verb.parse("sollen, soll, sollte, gesollt"),
    "may": Verb.parse("dürfen, darf, durfte, gedurft"),
}


def _column(gender: Gender, plural: bool) -> int:
    return _COLUMN["p" if plural else gender]


def definite_article(gender: Gender, case: Case, plural: bool = False) -> str:
    """The inflected definite article."""
    return _DEFINITE[case].split()[_column(gender, plural)]


def relative_pronoun(gender: Gender, case: Case, plural: bool = False) -> str:
    """The relative pronoun (nominative, accusative or dative)."""
    return "denen" if plural and case == "dat" else definite_article(gender, case, plural)


def determiner(word: str, gender: Gender, case: Case, plural: bool = False) -> tuple[str, Declension]:
    """Inflect a determiner given by its stem and name the declension of the adjectives after it.

    ``word`` is ``"der"``, a der-word stem (``dies jed viel einig all``), an ein-word (``ein kein mein ...``),
    or an invariable numeral or ``""``, after which adjectives are strong.
    """
    column = _column(gender, plural)
    if word == "der":
        return definite_article(gender, case, plural), "weak"
    if word in _DER_WORDS:
        return word + _STRONG[case].split()[column], "strong" if word in ("viel", "einig") else "weak"
    if word in ("ein", "kein") or word in POSSESSIVES.values():
        bare = not plural and ((case == "nom" and gender != "f") or (case == "acc" and gender == "n"))
        return word + ("" if bare else _STRONG[case].split()[column]), "mixed"
    return word, "strong"


def adjective_ending(declension: Declension, gender: Gender, case: Case, plural: bool = False) -> str:
    """The ending of an attributive adjective."""
    column = _column(gender, plural)
    if declension == "strong":
        return "en" if case == "gen" and column in (0, 2) else _STRONG[case].split()[column]
    if declension == "mixed" and not plural and (case == "nom" or (case == "acc" and gender == "n")):
        return _STRONG[case].split()[column]
    return _WEAK[case].split()[column]


def inflect_adjective(stem: str, declension: Declension, gender: Gender, case: Case, plural: bool = False) -> str:
    """The inflected attributive adjective; a stem in -e keeps a single e."""
    return stem.removesuffix("e") + adjective_ending(declension, gender, case, plural)


def personal_pronoun(who: str, case: Case) -> str:
    """The personal pronoun for an English one (``"You"`` is the formal Sie)."""
    return _PRONOUNS[who][("nom", "acc", "dat").index(case)]


def reflexive_pronoun(who: str) -> str:
    """The accusative reflexive pronoun that goes with the subject ``who``."""
    return _REFLEXIVE.get(who, "sich")


def contract(preposition: str, phrase: str) -> str:
    """Join a preposition and a noun phrase, contracting with the definite article (``in dem`` to ``im``)."""
    first, _, rest = phrase.partition(" ")
    short = _CONTRACTIONS.get((preposition, first))
    return f"{short} {rest}" if short else f"{preposition} {phrase}"
