"""Generated instruction data in the shape of databricks-dolly-15k, with out-of-distribution sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from bench.synthetic.dolly_instructions import STYLES
from bench.synthetic.dolly_items import KINDS, Item
from bench.synthetic.lexicon import realise
from bench.synthetic.splits import owner

SIZES: Mapping[str, int] = {
    "train": 2000,
    "validation": 100,
    "test": 150,
    "teacher_train": 20000,
    "selfinst": 80,
    "vicuna": 80,
    "sinst": 80,
    "uinst": 80,
}
DEFAULT_SPLITS = ("train", "validation", "test", "selfinst", "vicuna", "sinst", "uinst")
REFERENCES = 6
_ATTEMPTS = 40
# Longer answers are drawn again or left out, which keeps nearly all below 48 tokens of a vocabulary of 2000.
MAX_ANSWER = 150


def _references(item: Item, response: str, rng: Random) -> list[str]:
    """The response and further valid answers, all different."""
    found: dict[str, None] = {response: None}
    for _ in range(_ATTEMPTS):
        answer = item.answer(rng)
        if len(answer) <= MAX_ANSWER:
            found[answer] = None
        if len(found) == REFERENCES:
            break
    return list(found)


def _split(split: str, seed: int, size: int) -> list[dict[str, object]]:
    style = STYLES.get(split, STYLES["dolly"])
    share = "test" if split in STYLES else split
    kinds = list(style)
    rng = Random(f"dolly/{split}/{seed}")
    seen: set[str] = set()
    records: list[dict[str, object]] = []
    while len(records) < size:
        item = KINDS[rng.choice(kinds)](rng)
        instruction = realise(rng, style[item.kind], item.slots)
        prompt = f"{instruction}\n{item.context}"
        response = item.answer(rng)
        if owner(prompt) != share or prompt in seen or len(response) > MAX_ANSWER:
            continue
        seen.add(prompt)
        record: dict[str, object] = {
            "id": f"{split}-{len(records)}",
            "instruction": instruction,
            "context": item.context,
            "response": response,
            "category": item.category,
        }
        if split not in ("train", "teacher_train"):
            record["references"] = _references(item, response, rng)
        records.append(record)
    return records


def generate(
    seed: int = 0,
    splits: Sequence[str] = DEFAULT_SPLITS,
    sizes: Mapping[str, int] | None = None,
) -> dict[str, list[dict[str, object]]]:
    """Records of the splits asked for: id, instruction, context, response, category.

    Outside the two training splits a record also holds ``references``, valid answers of which the response is
    the first. ``sizes`` overrides ``SIZES`` per split. A split's records do not depend on which other splits are
    asked for. Raises ``KeyError`` for an unknown split.
    """
    wanted = {**SIZES, **(sizes or {})}
    return {split: _split(split, seed, wanted[split]) for split in splits}
