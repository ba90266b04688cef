"""Entities and people of the world, and the ways to word a fact about an entity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from bench.synthetic.english_morphology import OBJECT_PRONOUNS, POSSESSIVES, plural, third_person
from bench.synthetic.wording import capitalise, realise
from bench.synthetic.world.tables import table

# Predicates in the plural form; the first word is inflected for a singular subject.
PREDICATES: dict[str, dict[str, str]] = {
    "animal": {
        "home": "[live|are found|spend the year] {v}",
        "food": "[eat|feed on|live on] {v}",
        "looks": "[are|look] {v}",
        "habit": "[{v}|like to {v}|are known to {v}]",
        "class": "[belong to|are counted among] the {v}",
        "weight": "[weigh|have a weight of] about {v}",
    },
    "food": {
        "class": "[belong to|are counted among] the {v}",
        "colour": "[are|look] {v}",
        "taste": "[taste|have a taste that is] {v}",
        "origin": "are [produced|found] {v}",
        "use": "[are used for|go into|are needed for] {v}",
    },
    "job": {
        "workplace": "[work|are at work|spend the day] {v}",
        "tool": "[use|work with|rely on] {v}",
        "task": "[{v}|are paid to {v}|know how to {v}]",
    },
    "thing": {
        "material": "[are made of|consist of] {v}",
        "place": "are [kept|stored|usually found] {v}",
        "purpose": "[are used to|help people to|serve to] {v}",
    },
    "city": {
        "country": "[lie in|are located in|are a city in] {v}",
        "fame": "are [famous|known|praised] for the {v}",
        "water": "[stand on|lie beside|are built beside] {v}",
        "dish": "[offer|serve|are proud of] the {v}",
    },
}
TOPIC_NAMES: dict[str, str] = {
    "home": "[home|habitat]",
    "food": "[diet|food]",
    "looks": "[looks|appearance]",
    "habit": "[habits|behaviour]",
    "class": "[class|category]",
    "weight": "weight",
    "colour": "colour",
    "taste": "[taste|flavour]",
    "origin": "[origin|source]",
    "use": "[use in dishes|use in the kitchen]",
    "workplace": "[workplace|place of work]",
    "tool": "[tool|equipment]",
    "task": "[tasks|duties]",
    "material": "material",
    "place": "[usual place|location]",
    "purpose": "[purpose|function]",
    "country": "[country|land]",
    "fame": "[fame|main attraction]",
    "water": "[waterside|river or sea]",
    "dish": "[local dish|speciality]",
}


@dataclass(frozen=True)
class Entity:
    """Something of the world: name, generic subject (plural but for mass and proper nouns) and facts."""

    domain: str
    name: str
    subject: str
    is_plural: bool
    facts: dict[str, str]

    @property
    def pronoun(self) -> str:
        """Subject pronoun of the generic subject."""
        return "they" if self.is_plural else "it"

    def predicate(self, rng: Random, topic: str) -> str:
        """One wording of the fact on a topic, inflected for the generic subject."""
        text = realise(rng, PREDICATES[self.domain][topic], {"v": self.facts[topic]})
        return text if self.is_plural else third_person(text)

    def describe(self, rng: Random, topics: Sequence[str]) -> str:
        """One or two sentences on the topics, in any order."""
        order = rng.sample(topics, len(topics))
        clauses = [self.predicate(rng, topic) for topic in order]
        cut = rng.randint(1, len(clauses) - 1) if len(clauses) > 1 else 1
        first = f"{self.subject} {' and '.join(clauses[:cut])}"
        pronoun = realise(rng, f"[{self.pronoun}|in addition, {self.pronoun}]")
        second = f"{pronoun} {' and '.join(clauses[cut:])}"
        if len(clauses) == 1:
            return f"{capitalise(first)}."
        joint = rng.choice([". ", ", and "])
        return f"{capitalise(first)}{joint}{capitalise(second) if joint == '. ' else second}."


def _animal(row: tuple[str, ...]) -> Entity:
    name, group, colour, size, home, food, habit, weight = row
    kilos = "1 kilo" if weight == "1" else f"{weight} kilos"
    facts = {"home": home, "food": food, "looks": f"{size} and {colour}", "habit": habit}
    return Entity("animal", name, plural(name), True, facts | {"class": plural(group), "weight": kilos})


def _food(row: tuple[str, ...]) -> Entity:
    name, many, group, colour, taste, origin, dish = row
    facts = {"class": plural(group), "colour": colour, "taste": taste, "origin": origin, "use": dish}
    return Entity("food", name, name if many == "-" else many, many != "-", facts)


def _job(row: tuple[str, ...]) -> Entity:
    name, workplace, tool, task = row
    return Entity("job", name, plural(name), True, {"workplace": workplace, "tool": tool, "task": task})


def _thing(row: tuple[str, ...]) -> Entity:
    name, material, place, use = row
    return Entity("thing", name, plural(name), True, {"material": material, "place": place, "purpose": use})


def _city(row: tuple[str, ...]) -> Entity:
    name, country, fame, water, dish = row
    return Entity("city", name, name, False, {"country": country, "fame": fame, "water": water, "dish": dish})


_TABLES = {
    "animal": ("animals", _animal),
    "food": ("foods", _food),
    "job": ("jobs", _job),
    "thing": ("things", _thing),
    "city": ("cities", _city),
}
DOMAINS = tuple(_TABLES)


@cache
def entities(domain: str) -> tuple[Entity, ...]:
    """All entities of one of the ``DOMAINS``."""
    name, make = _TABLES[domain]
    return tuple(make(row) for row in table(name))


@cache
def groups() -> dict[str, tuple[str, ...]]:
    """Names by class, for the classes with at least three members (birds, fruits, cities of a land)."""
    found: dict[str, list[str]] = {}
    for domain in ("animal", "food"):
        for entity in entities(domain):
            found.setdefault(entity.facts["class"], []).append(entity.name)
    for entity in entities("city"):
        found.setdefault(f"cities in {entity.facts['country']}", []).append(entity.name)
    found["jobs"] = [entity.name for entity in entities("job")]
    found["household goods"] = [entity.name for entity in entities("thing")]
    return {label: tuple(names) for label, names in found.items() if len(names) >= 3}


def adjective_thing(rng: Random) -> tuple[str, Entity]:
    """A thing and a noun phrase for it with an adjective and no article."""
    thing = rng.choice(entities("thing"))
    return f"{rng.choice(table('adjectives'))[0]} {thing.name}", thing


@dataclass(frozen=True)
class Person:
    """A named person; ``subject`` is he or she."""

    name: str
    subject: str

    @property
    def object(self) -> str:
        """The pronoun after a verb: him or her."""
        return OBJECT_PRONOUNS[self.subject]

    @property
    def possessive(self) -> str:
        """The pronoun before a noun: his or her."""
        return POSSESSIVES[self.subject]


def people(rng: Random, count: int) -> list[Person]:
    """Distinct people drawn from the table of names."""
    return [Person(name, "she" if gender == "f" else "he") for name, gender in rng.sample(table("names"), count)]
