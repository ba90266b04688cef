"""Instructions in the wording of a split, each with its context and answers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from random import Random

from bench.synthetic.dolly.instructions import DOLLY, OUT_OF_DISTRIBUTION
from bench.synthetic.dolly.items import KINDS, Item
from bench.synthetic.splits import SHARES, Candidate, Record, collect, distinct
from bench.synthetic.wording import realise

SIZES: Mapping[str, int] = {
    "train": 2000,
    "validation": 100,
    "test": 150,
    "teacher_train": 20000,
    **dict.fromkeys(OUT_OF_DISTRIBUTION, 80),
}
MAX_ANSWER = 150
"""Characters of an answer: longer ones are left out, which keeps nearly all below 48 tokens of a vocabulary of 2000."""
_REFERENCES = 6
_ATTEMPTS = 40
_SHARES = {**SHARES, **dict.fromkeys(OUT_OF_DISTRIBUTION, SHARES["test"])}


def generate(split: str, seed: int = 0, size: int | None = None) -> list[Record]:
    """Records of one split: ``id``, ``instruction``, ``context``, ``response``, ``category``.

    Outside the two training splits they also hold ``references``, valid answers of which the response is the first.

    Raises:
        KeyError: unknown split.
    """
    rng = Random(f"dolly/{split}/{seed}")
    wordings = OUT_OF_DISTRIBUTION.get(split, DOLLY)
    kinds = list(wordings)

    def draw() -> Candidate:
        item = KINDS[rng.choice(kinds)](rng)
        instruction = realise(rng, wordings[item.kind], item.slots)
        response = item.answer(rng)
        return f"{instruction}\n{item.context}", lambda: complete(item, instruction, response)

    def complete(item: Item, instruction: str, response: str) -> Record | None:
        if len(response) > MAX_ANSWER:
            return None
        record: Record = {
            "instruction": instruction,
            "context": item.context,
            "response": response,
            "category": item.category,
        }
        if split not in ("train", "teacher_train"):
            answers = (item.answer(rng) for _ in range(_ATTEMPTS))
            short = (answer for answer in answers if len(answer) <= MAX_ANSWER)
            record["references"] = distinct(chain([response], short), _REFERENCES)
        return record

    return collect(split, SIZES[split] if size is None else size, draw, _SHARES)
