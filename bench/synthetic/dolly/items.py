"""The kinds of generated instruction items: what is asked, on which context, and the valid answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from bench.synthetic.english_morphology import participle, past, plural, with_article
from bench.synthetic.wording import capitalise, listing, realise
from bench.synthetic.world.entities import DOMAINS, TOPIC_NAMES, Entity, adjective_thing, entities, groups, people
from bench.synthetic.world.tables import column, table


@dataclass(frozen=True)
class Item:
    """A question before its wording: slots of the instruction, the context and a sampler of valid answers."""

    kind: str
    category: str
    slots: dict[str, str]
    answer: Callable[[Random], str]
    context: str = ""


def _topics(rng: Random, domain: str, count: int) -> list[str]:
    names = list(entities(domain)[0].facts)
    return rng.sample(names, min(count, len(names)))


def _topic_names(rng: Random, topics: list[str]) -> str:
    return listing([realise(rng, TOPIC_NAMES[topic]) for topic in topics])


def facts(rng: Random) -> Item:
    """Facts of the world about one entity."""
    entity = rng.choice(entities(rng.choice(DOMAINS)))
    topics = _topics(rng, entity.domain, rng.choice((3, 4)))
    slots = {"topics": _topic_names(rng, topics), "subject": entity.subject}
    return Item("facts", "open_qa", slots, lambda draw: entity.describe(draw, topics))


def compare(rng: Random) -> Item:
    """Two entities of one domain side by side."""
    domain = rng.choice(DOMAINS)
    first, second = rng.sample(entities(domain), 2)
    topics = _topics(rng, domain, 2)
    slots = {"topics": _topic_names(rng, topics), "first": first.subject, "second": second.subject}

    def answer(draw: Random) -> str:
        sentences = []
        for topic in draw.sample(topics, len(topics)):
            one, two = (first, second) if draw.random() < 0.7 else (second, first)
            left = f"{one.subject} {one.predicate(draw, topic)}"
            right = f"{two.subject} {two.predicate(draw, topic)}"
            form = "[While {l}, {r}.|Whereas {l}, {r}.|{L}, but {r}.|{L}, while {r}.]"
            sentences.append(realise(draw, form, {"l": left, "r": right, "L": capitalise(left)}))
        return " ".join(sentences)

    return Item("compare", "general_qa", slots, answer)


def classify(rng: Random) -> Item:
    """Names sorted into two classes."""
    labels = rng.sample(list(groups()), 2)
    counts = rng.choice(((2, 2), (2, 3), (3, 2)))
    members = [rng.sample(groups()[label], count) for label, count in zip(labels, counts, strict=True)]
    names = members[0] + members[1]
    rng.shuffle(names)
    slots = {"labels": f"{labels[0]} or {labels[1]}", "names": ", ".join(names)}
    ordered = [[name for name in names if name in group] for group in members]
    numbers = {2: "two", 3: "three"}

    def answer(draw: Random) -> str:
        sides = list(zip(labels, ordered, strict=True))
        if draw.random() < 0.3:
            sides.reverse()
        (one, left), (two, right) = sides
        values = {"one": one, "two": two, "left": listing(left), "right": listing(right)}
        values |= {"n": numbers[len(left)], "m": numbers[len(right)]}
        form = (
            "[The {one} are {left}|In the list, {left} are {one}], [while|and|whereas] "
            "[the {two} are {right}|{right} are {two}]. "
            "[There are|This makes|The list has] {n} {one} and {m} {two}."
        )
        return realise(draw, form, values)

    return Item("classify", "classification", slots, answer)


def _biography(rng: Random) -> dict[str, str]:
    person, partner = people(rng, 2)
    born = rng.randint(1900, 1985)
    home, work = rng.sample(column("cities"), 2)
    thing, _ = adjective_thing(rng)
    return {
        "name": f"{person.name} {rng.choice(column('surnames'))}",
        "first": person.name,
        "he": person.subject,
        "He": capitalise(person.subject),
        "his": person.possessive,
        "His": capitalise(person.possessive),
        "partner": partner.name,
        "relation": rng.choice(("friend", "cousin", "neighbour", "colleague", "teacher", "partner")),
        "born": str(born),
        "moved": str(born + rng.randint(18, 35)),
        "home": home,
        "work": work,
        "job": with_article(rng.choice(column("jobs"))),
        "hobby": rng.choice(column("hobbies")),
        "thing": with_article(thing),
    }


BIOGRAPHY = (
    "[{name} was born in {home} in {born}.|Born in {born}, {name} grew up in {home}.] "
    "[In {moved} {he} moved to {work} and became {job}.|{He} worked as {job} in {work} from {moved} on.] "
    "[{He} loved {hobby} and shared it with {his} {relation} {partner}."
    "|{His} {relation} {partner} taught {first} {hobby}.] "
    "[{partner} once gave {first} {thing}.|As a gift, {first} got {thing} from {partner}.]"
)
BIOGRAPHY_ANSWERS = {
    "[birth|origin]": "[{first} was born in {home} in {born}|In {born} {first} was born in {home}]",
    "[job|work]": "[{first} worked as {job} in {work}|in {work} {first} had a job as {job}]",
    "[hobby|free time]": "[{first} enjoyed {hobby} with {partner}|{partner} and {first} shared the hobby {hobby}]",
    "[gift|present]": "[{partner} gave {first} {thing}|{first} was given {thing} by {partner}]",
    "[move|new home]": "[{first} moved to {work} in {moved}|in {moved} {first} left for {work}]",
}


def biography(rng: Random) -> Item:
    """Questions on a short life story given as the context."""
    record = _biography(rng)
    chosen = rng.sample(list(BIOGRAPHY_ANSWERS), rng.choice((2, 3)))
    slots = {"topics": listing([realise(rng, topic) for topic in chosen]), "first": record["first"]}

    def answer(draw: Random) -> str:
        clauses = [realise(draw, BIOGRAPHY_ANSWERS[topic], record) for topic in chosen]
        if draw.random() < 0.5:
            return " ".join(f"{capitalise(clause)}." for clause in clauses)
        return f"{capitalise(', and '.join(clauses))}."

    return Item("biography", "closed_qa", slots, answer, realise(rng, BIOGRAPHY, record))


def extract(rng: Random) -> Item:
    """People, places and years named in a text."""
    record = _biography(rng)
    parts = {
        "people": f"{record['first']} and {record['partner']}",
        "places": f"{record['home']} and {record['work']}",
        "years": f"{record['born']} and {record['moved']}",
    }
    chosen = rng.sample(list(parts), rng.choice((2, 3)))

    def answer(draw: Random) -> str:
        named = [realise(draw, "the {k} [are|named are] {v}", {"k": k, "v": parts[k]}) for k in chosen]
        lead = realise(draw, "[In the text, |Here ||]")
        return f"{capitalise(lead + listing(named))}."

    slots = {"parts": listing(chosen)}
    return Item("extract", "information_extraction", slots, answer, realise(rng, BIOGRAPHY, record))


STORY = (
    "[{a}, {job} from {city}, {did} {thing} {when}.|{When} {a}, {job} from {city}, {did} {thing}.] "
    "[The weather was {weather}.|It was a {weather} day.|The street was full of people.] "
    "{A} [asked {his} {role} {b} for help.|called {his} {role} {b}.] "
    "{b} [{help}.|had time and {help}.] [To say thanks, {a} cooked {dish}.|{a} thanked {b} with {dish}.]"
)
STORY_ANSWERS = (
    "[{When} {a} {did} {thing}, so {his} {role} {b} {help}.|{a} {did} {thing}, but {his} {role} {b} {help}.] "
    "[As thanks {b} got {dish}.|{b} was thanked with {dish}.|In return {a} cooked {dish}.]"
)
HELP = {
    "lose": ("found it {place}", "searched {place} and found it"),
    "break": ("repaired it {place}", "fixed it with glue"),
    "forget": ("brought it back", "fetched it from the station"),
    "damage": ("bought a new one", "paid for a new one"),
    "drop": ("caught it in time", "picked up the pieces"),
    "need": ("lent one for a week", "borrowed one from the museum"),
}


def story(rng: Random) -> Item:
    """Summary of a small story."""
    person, helper = people(rng, 2)
    noun, _ = adjective_thing(rng)
    verb = rng.choice(list(HELP))
    city = rng.choice(entities("city"))
    relatives = ("sister", "aunt", "mother") if helper.object == "her" else ("brother", "uncle", "father")
    times = ("Monday", "Tuesday", "Friday", "Sunday", "winter", "spring", "summer", "autumn")
    when = f"last {rng.choice(times)}"
    other = rng.choice(entities("thing"))
    slots = {
        "a": person.name,
        "A": capitalise(person.subject),
        "his": person.possessive,
        "b": helper.name,
        "role": rng.choice((*relatives, "boss", "friend", "neighbour", "cousin", "colleague")),
        "job": with_article(rng.choice(column("jobs"))),
        "city": city.name,
        "did": past(verb),
        "thing": with_article(noun),
        "when": when,
        "When": capitalise(when),
        "weather": rng.choice(("rainy", "sunny", "windy", "foggy", "stormy", "chilly", "mild")),
        "help": rng.choice(HELP[verb]).format(place=other.facts["place"]),
        "dish": city.facts["dish"],
    }
    context = realise(rng, STORY, slots)
    return Item("story", "summarization", {}, lambda draw: realise(draw, STORY_ANSWERS, slots), context)


def visit(rng: Random) -> Item:
    """Ideas for a visit to one or two cities."""
    city, second = rng.sample(entities("city"), 2)
    slots = {"city": city.name, "second": second.name}
    values = slots | city.facts | {"fame2": second.facts["fame"], "dish2": second.facts["dish"]}
    form = (
        "[In {city} you [can|could] [visit|see|enjoy] the {fame}, walk along {water} "
        "and [try|taste] the {dish}."
        "|Start in {city} with a walk along {water}, [see|visit] the {fame} and [taste|try] the {dish}.] "
        "[In {second} [enjoy|see|visit] the {fame2} and [try|taste] the {dish2}."
        "|{second} offers the {fame2} and the {dish2}.]"
    )
    return Item("visit", "brainstorming", slots, lambda draw: realise(draw, form, values))


def _identified(rng: Random) -> tuple[Entity, list[str], list[str]]:
    """An entity, two topics that together single it out in its domain, and one or two further topics."""
    while True:
        entity = rng.choice(entities(rng.choice(DOMAINS)))
        topics = rng.sample(list(entity.facts), len(entity.facts))
        clues = {topic: entity.facts[topic] for topic in topics[:2]}
        same = [other for other in entities(entity.domain) if clues.items() <= other.facts.items()]
        if len(same) == 1:
            return entity, topics[:2], topics[2:4]


def riddle(rng: Random) -> Item:
    """An entity found from two facts, then described with a third."""
    entity, clues, rest = _identified(rng)
    asked = f"{plural(entity.domain)} are these" if entity.is_plural else f"{entity.domain} is this"
    known = " and ".join(entity.predicate(rng, topic) for topic in clues)
    slots = {"clues": f"{entity.pronoun} {known}", "asked": asked}
    slots["Clues"] = capitalise(slots["clues"])
    answer_form = "[The answer is {s}.|These clues point to {s}.|This fits {s}.] {more}"

    def answer(draw: Random) -> str:
        lead = "" if draw.random() < 0.4 else "Besides, "
        more = entity.describe(draw, rest)
        if lead and entity.domain != "city":
            more = more[0].lower() + more[1:]
        return realise(draw, answer_form, {"s": entity.subject, "more": lead + more})

    return Item("riddle", "open_qa", slots, answer)


def fable(rng: Random) -> Item:
    """A very short story on given characters."""
    animal, friend = rng.sample(entities("animal"), 2)
    noun, thing = adjective_thing(rng)
    trait = rng.choice(column("traits"))
    city = rng.choice(column("cities"))
    hero = with_article(f"{trait} {animal.name}")
    slots = {"hero": hero, "thing": with_article(noun), "city": city, "friend": with_article(friend.name)}
    values = slots | {"home": animal.facts["home"], "purpose": thing.facts["purpose"], "name": animal.name}
    values["Friend"] = capitalise(slots["friend"])
    form = (
        "[Once {hero} lived {home}.|Once upon a time there was {hero} {home}.] "
        "[One day it went to {city} and [found|discovered] {thing}."
        "|In {city} it [found|discovered] {thing} one day.] "
        "[With {friend} it learned to {purpose}.|{Friend} showed the {name} how to {purpose}."
        "|The {name} and {friend} used it to {purpose}.]"
    )
    return Item("fable", "creative_writing", slots, lambda draw: realise(draw, form, values))


REWRITES = {
    "passive": "[The {o} was {pp} by the {s} {p}.|{P} the {o} was {pp} by the {s}.]",
    "future": "[The {s} will {b} the {o} {p}.|{P} the {s} will {b} the {o}.]",
    "negative": "[The {s} did not {b} the {o} {p}.|{P} the {s} did not {b} the {o}.]",
    "question": "[Did the {s} {b} the {o} {p}?|{P}, did the {s} {b} the {o}?]",
}
FORM_NAMES = {
    "passive": "[passive voice|passive]",
    "future": "future tense",
    "negative": "[negative|negative form]",
    "question": "[question form|form of questions]",
}


def rewrite(rng: Random) -> Item:
    """Two sentences put into another form."""
    how = rng.choice(list(REWRITES))
    sources, clauses = [], []
    for job in rng.sample(column("jobs"), 2):
        noun, thing = adjective_thing(rng)
        verb = rng.choice(rng.choice(table("actions")))
        values = {"s": job, "o": noun, "b": verb, "pp": participle(verb), "p": thing.facts["place"]}
        values["P"] = capitalise(values["p"])
        sources.append(f"The {job} {past(verb)} the {noun} {values['p']}.")
        clauses.append(values)
    context = " ".join(sources)

    def answer(draw: Random) -> str:
        return " ".join(realise(draw, REWRITES[how], values) for values in clauses)

    return Item("rewrite", "information_extraction", {"how": realise(rng, FORM_NAMES[how])}, answer, context)


def order(rng: Random) -> Item:
    """Animals by weight."""
    chosen = rng.sample(entities("animal"), 3)
    while len({animal.facts["weight"] for animal in chosen}) < 3:
        chosen = rng.sample(entities("animal"), 3)
    light, middle, heavy = sorted(chosen, key=lambda animal: int(animal.facts["weight"].split()[0]))
    slots = {"names": ", ".join(animal.name for animal in chosen)}
    values = {"a": light.name, "b": middle.name, "c": heavy.name}
    values |= {"wa": light.facts["weight"], "wb": middle.facts["weight"], "wc": heavy.facts["weight"]}
    form = (
        "[The {a} is the lightest with about {wa}|With about {wa} the {a} is the lightest], "
        "[followed by|then comes] the {b} with {wb}[, and| and finally] the {c} "
        "[is the heaviest with about {wc}.|with about {wc} is the heaviest.]"
    )
    return Item("order", "classification", slots, lambda draw: realise(draw, form, values))


def needs(rng: Random) -> Item:
    """The things needed for two purposes."""
    person = people(rng, 1)[0]
    one, two = rng.sample(entities("thing"), 2)
    slots = {"name": person.name, "he": person.subject}
    slots |= {"one": one.facts["purpose"], "two": two.facts["purpose"]}
    values = slots | {
        "He": capitalise(person.subject),
        "a": with_article(one.name),
        "b": with_article(two.name),
        "an": one.name,
        "bn": two.name,
        "ap": one.facts["place"],
        "bp": two.facts["place"],
    }
    form = (
        "[{He}|{name}] [needs|should get|should use] {a} to {one} and {b} to {two}. "
        "[The {an} is [kept|stored] {ap}, [and|while] the {bn} is [kept|stored] {bp}."
        "|Look for the {an} {ap} and for the {bn} {bp}.]"
    )
    return Item("needs", "general_qa", slots, lambda draw: realise(draw, form, values))


_MAKERS = (facts, compare, classify, biography, extract, story, visit, riddle, fable, rewrite, order, needs)
KINDS: dict[str, Callable[[Random], Item]] = {make.__name__: make for make in _MAKERS}
