"""What the engine is to reach, and whether it does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from bench.perf.measure import OURS, Comparison


class Target(NamedTuple):
    """A bound on one figure of one comparison.

    Attributes:
        comparison: the name of the comparison.
        against: the arm that ours is compared with; of `seconds`, ours alone.
        figure: `speed`, how many times as fast as that arm, at least; `memory`, our share of that arm's peak, at most;
            `seconds`, of the CPU a unit of work, at most; `MiB`, our own peak, at most.
        bound: the number.
        why: where it comes from.
    """

    comparison: str
    against: str
    figure: Literal["speed", "memory", "seconds", "MiB"]
    bound: float
    why: str

    def value(self, found: Comparison) -> float | None:
        """The figure as measured; None where it was not."""
        if self.figure == "speed":
            return found.speed(self.against)
        if self.figure == "memory":
            return found.memory(self.against)
        ours = found.arms[OURS]
        return ours.memory_mib if self.figure == "MiB" else ours.seconds("cpu")

    def met(self, value: float) -> bool:
        """Whether a figure reaches the bound."""
        return value >= self.bound if self.figure == "speed" else value <= self.bound


_BEGAN = "the first engine's own figure was"
CPU = (
    Target("srkl, 512 tokens", "first engine", "speed", 1 / 0.85, "at most 0.85 of its time"),
    Target("srkl, 2,048 tokens", "first engine", "memory", 0.15, "at most 0.15 of its memory, which was 2,345 MiB"),
    Target("kld of logits, 512 tokens", "first engine", "speed", 1 / 0.6, "at most 0.6: it ran the skew kernel"),
    Target("kld, fixed responses, batch 4", "TRL's GKD", "speed", 3.5, f"{_BEGAN} 2.9"),
    Target("kld, fixed responses, batch 4", "plain", "speed", 6.0, f"{_BEGAN} 5.9"),
    Target("kld, the student's responses, batch 4", "TRL's GKD", "speed", 3.0, f"{_BEGAN} 1.6"),
    Target(
        "GPT-2, batch 16", "first engine", "speed", 1.8, "rows that ended are dropped, and half of all row-steps were"
    ),
    Target("GPT-2, batch 64", "first engine", "speed", 3.0, "the larger a batch, the more of its rows end early"),
    Target("T5, batch 64", "first engine", "speed", 2.5, "the same for an encoder-decoder model"),
    Target("Llama, batch 64", "first engine", "speed", 2.0, "the same for a Llama"),
    Target("tiny Llama, batch 64", "first engine", "speed", 1.0, "models of the tiny preset must not become slower"),
)
CUDA = (
    Target("srkl, 4,096 tokens", "first engine", "speed", 1 / 0.65, "at most 0.65 of its time"),
    Target("srkl, 4,096 tokens", "first engine", "memory", 0.2, "at most 0.2 of its memory"),
    Target("arithmetic of kld, batch 64", "matrix product", "speed", 0.45, "of what the device can do; at first 0.25"),
    Target("arithmetic of kld, captured, batch 8", "matrix product", "speed", 0.2, "the same; at first 0.06"),
    Target(
        "imitkd, batch 8", "kld", "speed", 1 / 3, "student outputs may make a step three times as long; at first 20"
    ),
    Target("GPT-2, batch 16", "first engine", "speed", 10.0, "a captured graph a step leaves no time for launches"),
    Target("GPT-2, batch 64", "first engine", "speed", 8.0, "the same with more rows"),
)
EVERYWHERE = (
    Target("ROUGE-L", "rouge_score", "speed", 20.0, "what a sketch with a stem cache and a bit-parallel LCS reached"),
    Target("--help", OURS, "seconds", 0.3, "nothing heavy is imported for it; on a core of an AMD EPYC"),
    Target("list methods", OURS, "seconds", 1.0, "6.5 at first, most of it imports; on the same core"),
    Target("list runs of the published runs", OURS, "seconds", 1.0, "the same"),
    Target("tables of the published runs", OURS, "seconds", 7.0, "23 for 186 runs at first; on the same core"),
    Target("claims of the published runs", OURS, "seconds", 7.0, "22 for 186 runs at first; on the same core"),
    Target("tables of 2,000 runs", OURS, "seconds", 35.0, "98 at first; on the same core"),
    Target("claims of 2,000 runs", OURS, "seconds", 35.0, "89 at first; on the same core"),
    Target("report of 5,000 runs", OURS, "seconds", 60.0, "at first it did not end in 95; on the same core"),
    Target("report of 5,000 runs", OURS, "MiB", 1024.0, "it must run on a laptop beside other work"),
)


def targets(device: str) -> tuple[Target, ...]:
    """The targets that hold on a kind of device."""
    return (*(CUDA if device == "cuda" else CPU), *EVERYWHERE)


def judged(found: Comparison, device: str) -> Iterable[tuple[Target, float | None]]:
    """A comparison's targets, each with the figure that was measured."""
    return [(target, target.value(found)) for target in targets(device) if target.comparison == found.name]


def told(target: Target, value: float) -> str:
    """The bound, and whether a figure reaches it."""
    bound = {"speed": "≥ {:.2f}", "memory": "MiB ≤ {:.2f}", "seconds": "≤ {:.2f} s", "MiB": "≤ {:,.0f} MiB"}
    return f"{bound[target.figure].format(target.bound)} {'met' if target.met(value) else 'missed'}"
