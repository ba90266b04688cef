"""Generated dialogues with summaries in the shape of SAMSum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from bench.synthetic.lexicon import sentence, table
from bench.synthetic.samsum_events import EVENTS, Event
from bench.synthetic.splits import owner

SIZES: Mapping[str, int] = {"train": 2000, "validation": 100, "test": 150, "teacher_train": 20000}
DEFAULT_SPLITS = ("train", "validation", "test")
REFERENCES = 6
_ATTEMPTS = 40
MAX_TURNS = 8


def _with_small_talk(rng: Random, event: Event) -> list[tuple[str, str]]:
    """The turns with a distracting exchange before or after the event, in about half of the dialogues."""
    if len(event.turns) + 2 > MAX_TURNS or rng.random() < 0.5:
        return event.turns
    first, second = event.turns[0][0], event.turns[1][0]
    opening, reply = rng.choice(table("chat"))
    talk = [(first, sentence(opening)), (second, sentence(reply))]
    return talk + event.turns if rng.random() < 0.7 else event.turns + talk


def _split(split: str, seed: int, size: int) -> list[dict[str, object]]:
    rng = Random(f"samsum/{split}/{seed}")
    seen: set[str] = set()
    records: list[dict[str, object]] = []
    while len(records) < size:
        event = rng.choice(EVENTS)(rng)
        dialogue = "\n".join(f"{name}: {text}" for name, text in _with_small_talk(rng, event))
        if owner(dialogue) != split or dialogue in seen:
            continue
        seen.add(dialogue)
        record: dict[str, object] = {
            "id": f"{split}-{len(records)}",
            "dialogue": dialogue,
            "summary": event.summary(rng),
        }
        if split in ("validation", "test"):
            drawn = (event.summary(rng) for _ in range(_ATTEMPTS))
            references = list(dict.fromkeys(drawn))[:REFERENCES]
            record |= {"summary": references[0], "references": references}
        records.append(record)
    return records


def generate(
    seed: int = 0,
    splits: Sequence[str] = DEFAULT_SPLITS,
    sizes: Mapping[str, int] | None = None,
) -> dict[str, list[dict[str, object]]]:
    """Records of the splits asked for: id, dialogue (lines "Name: text"), summary.

    Outside the two training splits a record also holds ``references``, valid summaries of which ``summary`` is
    the first. ``sizes`` overrides ``SIZES`` per split. A split's records do not depend on which other splits are
    asked for. Raises ``KeyError`` for an unknown split.
    """
    wanted = {**SIZES, **(sizes or {})}
    return {split: _split(split, seed, wanted[split]) for split in splits}
