"""The events of the generated dialogues: what is said, turn by turn, and the valid summaries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from bench.synthetic.english_morphology import gerund, past, with_article
from bench.synthetic.wording import capitalise, capitalise_sentences, realise
from bench.synthetic.world.entities import adjective_thing, entities, people
from bench.synthetic.world.tables import column, table

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HOURS = (*(f"{hour} am" for hour in range(8, 12)), *(f"{hour} pm" for hour in range(1, 10)))


@dataclass(frozen=True)
class Event:
    """Turns as (speaker, text) and a sampler of valid summaries."""

    turns: list[tuple[str, str]]
    summary: Callable[[Random], str]


def _cast(rng: Random) -> dict[str, str]:
    """Slots of three distinct people: names a, b, c and the pronouns of a and b (b's with the prefix b)."""
    a, b, c = people(rng, 3)
    return {
        "a": a.name,
        "b": b.name,
        "c": c.name,
        "he": a.subject,
        "He": capitalise(a.subject),
        "him": a.object,
        "his": a.possessive,
        "bhe": b.subject,
        "Bhe": capitalise(b.subject),
        "bhis": b.possessive,
    }


def _event(rng: Random, lines: list[tuple[str, str]], slots: dict[str, str], summary: str) -> Event:
    """Fill the turns; the speaker of a line is the slot it names."""
    turns = [(slots[who], capitalise_sentences(realise(rng, text, slots))) for who, text in lines]
    return Event(turns, lambda draw: realise(draw, summary, slots))


def plan(rng: Random) -> Event:
    """A meeting whose day, hour or place changes on the way; the last word counts."""
    slots = _cast(rng)
    activity, first_place, second_place = rng.choice(table("activities"))
    day, other_day = rng.sample(DAYS, 2)
    hour, other_hour = rng.sample(HOURS, 2)
    slots |= {"act": activity, "day": day, "hour": hour, "place": first_place}
    slots |= {"oday": other_day, "ohour": other_hour, "oplace": second_place}
    lines = [
        ("a", "[hi {b}, |hey, ||]shall we {act} on {oday}?"),
        ("b", "[sure, when?|great idea, what time?|yes, at what time?]"),
        ("a", "[{ohour} {oplace}?|how about {ohour} {oplace}?]"),
    ]
    change = rng.choice(("day", "hour", "place", "none"))
    if change == "day":
        lines.append(("b", "[sorry, I work on {oday}, rather {day}.|{oday} is bad, can we do {day}?]"))
    elif change == "hour":
        lines.append(("b", "[that hour does not suit me, {hour}?|I am busy then, let us say {hour}.]"))
    elif change == "place":
        lines.append(("b", "[it is closed then, rather {place}.|let us go {place} instead.]"))
    for key in ("day", "hour", "place"):
        if key != change:
            slots[key] = slots[f"o{key}"]
    lines.append(("a" if change != "none" else "b", "[ok, deal.|fine, see you.|perfect.|all right.]"))
    summary = (
        "[{a} and {b} [will|are going to|want to] {act} {place} on {day} at {hour}."
        "|On {day} at {hour} {a} and {b} [will|are going to] {act} {place}."
        "|{a} [will meet|is meeting] {b} {place} on {day} at {hour} to {act}.]"
    )
    return _event(rng, lines, slots, summary)


def request(rng: Random) -> Event:
    """Someone asks for a thing, and gets it or not."""
    slots = _cast(rng)
    noun, thing = adjective_thing(rng)
    slots |= {"thing": noun, "use": thing.facts["purpose"], "place": thing.facts["place"], "day": rng.choice(DAYS)}
    lines = [
        ("a", "[can you lend me|could I borrow|do you still have] your {thing}?"),
        ("b", "[what for?|why do you need it?]"),
        ("a", "[I want to {use}.|I have to {use} on {day}.|to {use}.]"),
    ]
    if rng.random() < 0.6:
        lines += [
            ("b", "[ok, it is {place}.|sure, you will find it {place}.]"),
            ("a", "[thanks, you get it back on {day}.|great, I will return it on {day}.]"),
        ]
        summary = (
            "[{b} [will lend|lends] {a} {bhis} {thing}, which is {place}."
            "|{a} [will borrow|borrows] {b}'s {thing}, which is {place}.] "
            "[{a} [wants|needs it] to {use} and will [return it|give it back] on {day}."
            "|{He} will [return it|give it back] on {day} after {using}.]"
        )
        slots["using"] = gerund(slots["use"])
    else:
        lines += [
            ("b", "[sorry, I gave it to {c}.|too late, {c} has it now.]"),
            ("a", "[then I will ask {c}.|ok, I will write to {c}.]"),
        ]
        summary = (
            "[{a} wants to borrow {b}'s {thing} to {use}|{a} needs the {thing} of {b} to {use}], but "
            "[{c} has it|it is with {c}|{b} gave it to {c}][.| now.] "
            "[{a}|{He}] will [ask|contact|write to] {c}."
        )
    return _event(rng, lines, slots, summary)


def problem(rng: Random) -> Event:
    """Something fails; the first advice does not help, the second does."""
    slots = _cast(rng)
    item, fault, remedy, job = rng.choice(table("problems"))
    slots |= {"item": item, "fault": fault, "remedy": remedy, "did": past(remedy)}
    slots |= {"job": with_article(job), "day": rng.choice(DAYS)}
    lines = [
        ("a", "[help, my {item} {fault}.|my {item} {fault}, what can I do?|bad news, my {item} {fault}.]"),
        ("b", "[did you {remedy}?|just {remedy}.|maybe {remedy}?]"),
    ]
    if rng.random() < 0.5:
        lines += [
            ("a", "[I did, but it was no use.|yes, but nothing changed.]"),
            ("b", "[then call {job}.|you need {job}.]"),
            ("a", "[ok, I will call one on {day}.|I will do that on {day}.]"),
        ]
        summary = (
            "[{a}'s {item} {fault}. {He} {did}, but it did not help"
            "|{a} {did} because {his} {item} {fault}, but in vain], so "
            "[{he} will call {job} on {day}|on {day} {he} will call {job}] "
            "[on {b}'s advice.|as {b} suggests.]"
        )
    else:
        lines += [
            ("a", "[no, good idea, I will try.|let me try that.]"),
            ("a", "[wow, it worked!|now it is fine, thank you!]"),
        ]
        summary = (
            "[{a}'s {item} {fault}|{a} has a problem because {his} {item} {fault}]. "
            "[{b} tells {him} to {remedy}|{b} advises {him} to {remedy}|Following {b}'s advice, {he} {did}]"
            "[, and it works.|, which helps.| and the problem is solved.]"
        )
    return _event(rng, lines, slots, summary)


def purchase(rng: Random) -> Event:
    """A price is bargained, or the thing is not sold."""
    slots = _cast(rng)
    noun, thing = adjective_thing(rng)
    price = rng.randrange(20, 200, 5)
    slots |= {"thing": with_article(noun), "material": thing.facts["material"]}
    slots |= {"price": str(price), "low": str(price - 10)}
    slots |= {"day": rng.choice(DAYS), "city": rng.choice(column("cities"))}
    lines = [
        ("a", "[I am selling {thing} for {price} euros.|do you want {thing} for {price} euros?]"),
        ("b", "[is it made of {material}?|what is it made of?]"),
        ("a", "[yes, real {material}.|of {material}.]"),
    ]
    if rng.random() < 0.6:
        lines += [
            ("b", "[{low} and I take it.|too much, {low}?]"),
            ("a", "[ok, {low}.|agreed.] [pick it up in {city} on {day}.|come to {city} on {day}.]"),
        ]
        summary = (
            "[{a} [sells|will sell] {b} {thing} [of|made of] {material} for {low} euros"
            "|{b} [buys|will buy] {thing} [of|made of] {material} from {a} for {low} euros]"
            "[. {Bhe} will [pick it up|collect it] in {city} on {day}."
            "|, to be [picked up|collected] in {city} on {day}.]"
        )
    else:
        lines += [
            ("b", "[sorry, that is too expensive.|I do not need it, sorry.]"),
            ("a", "[then I will sell it in {city}.|I will try the market in {city}.]"),
        ]
        summary = (
            "[{a} [offers|wants to sell] {b} {thing} [of|made of] {material} for {price} euros, but {bhe} "
            "[refuses|does not want it]"
            "|{b} does not want to buy {thing} [of|made of] {material} from {a} for {price} euros]. "
            "[{a}|So {a}] will [try to sell|offer] it in {city}."
        )
    return _event(rng, lines, slots, summary)


def news(rng: Random) -> Event:
    """A new job in another city, with what the city is known for."""
    slots = _cast(rng)
    city = rng.choice(entities("city"))
    job = rng.choice(entities("job"))
    month = rng.choice(("January", "March", "April", "June", "August", "October", "December"))
    slots |= {"city": city.name, **city.facts}
    slots |= {"job": with_article(job.name), "place": job.facts["workplace"], "month": month}
    lines = [
        ("a", "[guess what, I got a job as {job}!|I found work as {job}!]"),
        ("b", "[congratulations! where?|wow, in which city?]"),
        ("a", "[in {city}, I start in {month}.|in {city} from {month} on.]"),
    ]
    if rng.random() < 0.5:
        lines.append(("b", "[can I visit you and see the {fame}?|I will come for the {fame}.]"))
        wish = "[visit {him} to see|come to see] the {fame}"
    else:
        lines.append(("b", "[send me some {dish}!|I want to taste the {dish}.]"))
        wish = "[try|taste] the {dish}"
    lines.append(("a", "[of course.|any time.|with pleasure.]"))
    summary = (
        "[{a} [got a job|found work] as {job} {place} in {city}, {country}, [and starts|starting] in {month}."
        "|In {month} {a} [will start|starts] to work as {job} {place} in {city}, {country}.] "
        f"{{b}} [wants to|would like to] {wish}."
    )
    return _event(rng, lines, slots, summary)


def party(rng: Random) -> Event:
    """An invitation with a dish to bring; a third person joins or refuses."""
    slots = _cast(rng)
    first, second, other = (city.facts["dish"] for city in rng.sample(entities("city"), 3))
    reason = rng.choice(("birthday", "housewarming", "garden", "farewell", "graduation", "New Year"))
    slots |= {"reason": reason, "day": rng.choice(DAYS), "hour": rng.choice(HOURS)}
    slots |= {"food": first, "final": first, "food2": second, "nfood": other}
    lines = [
        ("a", "[you are invited to my {reason} party on {day}.|join my {reason} party on {day}!]"),
        ("b", "[I will bring {food}.|yes! I can make {food}.]"),
    ]
    if rng.random() < 0.5:
        lines += [
            ("c", "[sorry, I am ill.|I cannot, I have to work.]"),
            ("a", "[what a pity.|get well, {c}.|too bad.] [we start at {hour}, {b}.|{b}, come at {hour}.]"),
        ]
        rest = "{c} [cannot come|will not be there]."
    else:
        lines += [
            ("c", "[me too, with {food2}.|count me in, I will bring {food2}.]"),
            ("a", "[great, it starts at {hour}.|super, come at {hour}.]"),
        ]
        rest = "{c} [brings|will bring|will come with] {food2}."
    if rng.random() < 0.4:
        lines.append(("b", "[wait, I will rather bring {nfood}.|no {food} left, so {nfood} then.]"))
        slots["final"] = other
    summary = (
        "[{a} [invites {b} and {c} to|is having] {his} {reason} party on {day} at {hour}."
        "|{a}'s {reason} party [is|starts] on {day} at {hour}.] {b} [brings|will bring|will come with] {final}"
        f"[. {rest}| and {rest}]"
    )
    return _event(rng, lines, slots, summary)


def trip(rng: Random) -> Event:
    """A journey: two destinations are weighed, one is booked."""
    slots = _cast(rng)
    chosen, dropped = rng.sample(entities("city"), 2)
    slots |= {"city": chosen.name, "fame": chosen.facts["fame"]}
    slots |= {"other": dropped.name, "ofame": dropped.facts["fame"]}
    slots |= {"by": rng.choice(("train", "bus", "car", "ferry", "plane", "bike")), "day": rng.choice(DAYS)}
    slots |= {"cost": str(rng.randrange(15, 95, 5)), "hotel": rng.choice(("hotel", "hostel", "cottage"))}
    lines = [
        ("a", "[where do we go this summer?|let us plan our trip.]"),
        ("b", "[{other} is nice, I like the {ofame}.|maybe {other}, for the {ofame}?]"),
        ("a", "[too far, rather {city}.|I have been there, so {city}?]"),
        ("b", "[ok, by {by}?|good, do we go by {by}?]"),
        (
            "a",
            "[yes, on {day}. I will book a {hotel} for {cost} euros."
            "|sure, we leave on {day}. a {hotel} is {cost} euros.]",
        ),
    ]
    summary = (
        "[{a} and {b} [will travel|are going|want to go] to {city} by {by} on {day}"
        "|On {day} {a} and {b} [will travel|are going] to {city} by {by}]"
        "[ and stay in a {hotel} for {cost} euros.|, where they stay in a {hotel} for {cost} euros.] "
        "[They can see the {fame} there.|{city} is [known|famous] for the {fame}.]"
    )
    return _event(rng, lines, slots, summary)


EVENTS: tuple[Callable[[Random], Event], ...] = (plan, request, problem, purchase, news, party, trip)
