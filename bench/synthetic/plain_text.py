"""Generated English prose, for language modelling without prompts."""

from __future__ import annotations

from random import Random

from bench.synthetic.dolly.items import KINDS
from bench.synthetic.samsum.events import EVENTS

_PROSE_KINDS = ("facts", "compare", "biography", "story", "visit", "fable", "order")


def generate(n: int, seed: int = 0) -> list[str]:
    """Paragraphs of two to four passages of the generated world, deterministic from the seed."""
    rng = Random(f"plain_text/{seed}")
    paragraphs = []
    for _ in range(n):
        passages = []
        for _ in range(rng.randint(2, 4)):
            if rng.random() < 0.2:
                passages.append(rng.choice(EVENTS)(rng).summary(rng))
            else:
                item = KINDS[rng.choice(_PROSE_KINDS)](rng)
                passages.append(item.context or item.answer(rng))
        paragraphs.append(" ".join(passages))
    return paragraphs
