"""Dialogues, with small talk around an event, and their summaries."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from bench.synthetic.samsum.events import EVENTS, Event
from bench.synthetic.splits import Candidate, Record, collect, distinct
from bench.synthetic.wording import capitalise
from bench.synthetic.world.tables import table

SIZES: Mapping[str, int] = {"train": 2000, "validation": 100, "test": 150, "teacher_train": 20000}
MAX_TURNS = 8
_REFERENCES = 6
_ATTEMPTS = 40


def _with_small_talk(rng: Random, event: Event) -> list[tuple[str, str]]:
    """The turns with a distracting exchange before or after the event, in about half of the dialogues."""
    if len(event.turns) + 2 > MAX_TURNS or rng.random() < 0.5:
        return event.turns
    first, second = event.turns[0][0], event.turns[1][0]
    opening, reply = rng.choice(table("chat"))
    talk = [(first, capitalise(opening)), (second, capitalise(reply))]
    return talk + event.turns if rng.random() < 0.7 else event.turns + talk


def generate(split: str, seed: int = 0, size: int | None = None) -> list[Record]:
    """Records of one split: ``id``, ``dialogue`` (lines "Name: text"), ``summary``.

    Those of validation and test also hold ``references``, valid summaries of which ``summary`` is the first.

    Raises:
        KeyError: unknown split.
    """
    rng = Random(f"samsum/{split}/{seed}")

    def draw() -> Candidate:
        event = rng.choice(EVENTS)(rng)
        dialogue = "\n".join(f"{name}: {text}" for name, text in _with_small_talk(rng, event))
        return dialogue, lambda: complete(dialogue, event)

    def complete(dialogue: str, event: Event) -> Record:
        summary = event.summary(rng)
        if split not in ("validation", "test"):
            return {"dialogue": dialogue, "summary": summary}
        references = distinct([event.summary(rng) for _ in range(_ATTEMPTS)], _REFERENCES)
        return {"dialogue": dialogue, "summary": references[0], "references": references}

    return collect(split, SIZES[split] if size is None else size, draw)
