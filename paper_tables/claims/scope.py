"""What a verdict speaks of: at which scale its runs were made, and whether the mechanism it is about was at work.

A claim about DistiLLM, or about adaptive use of student outputs, says nothing where the run hardly used any. Its
probability φ of training on student outputs starts at 0 and rises by 0.1 when the validation loss has risen. The rule:
a tenth of the batches at least have to be student outputs, generated for the step or drawn from the buffer. A single
rise does not give that: φ starts at 0, and a rise at the first of V validations leaves 0.1 (V - 1) / V, which is 9.4 %
of the batches where there are 16. It is a mean over the runs of each arm with adaptive φ that the claim compares. Where
an arm is below, the claim is neither reproduced nor refuted. (At first φ itself was averaged over the curve, which
packing thins. On the published runs both say the same.)

What is drawn from the buffer costs next to nothing. So a claim about time asks for a share of generated batches, too:
that which the replay rule gives where φ is a tenth from the first step to the last. Without a buffer every batch of
student outputs is generated, which is the tenth again. With one, such a batch is generated with probability 1 - t/T at
step t of T (1/2 or t/T where the run says so), and always until the buffer is full. The mean of φ (1 - t/T) over the
steps is φ/2, and so is that of the two others: a twentieth. What fills the buffer comes on top and is not asked for.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.record.record import RunRecord
from bench.record.store import Store
from distillm.sources import SOURCES
from paper_tables.paper.methods import METHOD_LABELS, OUTPUT_SOURCES

ACTIVE_SHARE = 0.1
"""Of each arm with adaptive φ, the least share of batches that counts as having used student outputs."""
GENERATED_OF_REPLAYED = 0.5
"""With a buffer, the share of these batches that the replay rule has generated where φ stays the same."""


@dataclass(frozen=True)
class Used:
    """How an arm with adaptive φ used student outputs, mean over its runs.

    Attributes:
        share: of batches that were student outputs.
        generated: of batches that were generated for their step.
        enough_generated: the least such share that counts for a claim about time.
        runs: how many it has.
        without: how many of them never trained on a student output.
    """

    share: float
    generated: float
    enough_generated: float
    runs: int = 1
    without: int = 0


def used(store: Store, records: Iterable[RunRecord]) -> dict[str, Used]:
    """By arm, in words, how it used student outputs; of runs with adaptive φ alone.

    Of runs that did not count their steps by kind it is φ, averaged over the curve, and what the replay rule makes of
    it.
    """
    found: dict[str, list[Used]] = {}
    for record in records:
        rule = SOURCES[record.config.sgo.source]
        if rule.phi != "adaptive":
            continue
        of_share = GENERATED_OF_REPLAYED if rule.buffered else 1.0
        enough = ACTIVE_SHARE * of_share
        if steps := {kind: one.count for kind, one in record.time.steps.items()}:
            total = sum(steps.values())
            student = total - steps.get("dataset", 0)
            one = Used(student / total, steps.get("generate", 0) / total, enough)
        elif points := [point["phi"] for point in store.curve(record) if "phi" in point]:
            one = Used(share := statistics.fmean(points), of_share * share, enough)
        else:
            continue
        found.setdefault(_arm(record), []).append(one)
    return {
        name: Used(
            statistics.fmean(one.share for one in its),
            statistics.fmean(one.generated for one in its),
            its[0].enough_generated,
            len(its),
            sum(not one.share for one in its),
        )
        for name, its in found.items()
    }


def not_active(arms: Mapping[str, Used], *, of_time: bool) -> str:
    """Why the mechanism was not active: which arms hardly used student outputs, in words; "" where all did.

    Args:
        arms: by name.
        of_time: whether it is about time, which generated batches alone cost.
    """
    few = [f"{name}: {one.share:.1%}{_without([one])}" for name, one in arms.items() if one.share < ACTIVE_SHARE]
    if few:
        return f"fewer than {ACTIVE_SHARE:.0%} of batches were student outputs ({'; '.join(few)})"
    if of_time and (few := [_few_generated(n, one) for n, one in arms.items() if one.generated < one.enough_generated]):
        return f"fewer batches were generated than the replay rule gives at φ = {ACTIVE_SHARE:g} ({'; '.join(few)})"
    return ""


def _without(arms: Iterable[Used]) -> str:
    """In how many runs of some arms no batch was a student output, which a mean share hides; "" where all had some."""
    found = list(arms)
    runs, without = sum(one.runs for one in found), sum(one.without for one in found)
    return f", none at all in {without} of {runs} runs" if without else ""


def with_generated(arms: Mapping[str, Used]) -> str:
    """What a claim about the time of adaptive use holds or fails with, in words; "" without such an arm."""
    shares = [one.generated for one in arms.values()]
    return f"with {_ends(shares).replace('%', ' %')} of batches generated" if shares else ""


def _few_generated(name: str, one: Used) -> str:
    return f"{name}: {one.generated:.1%} of {one.enough_generated:.0%}"


def _arm(record: RunRecord) -> str:
    config = record.config
    parts = [METHOD_LABELS.get(config.method.name, config.method.name), record.task, config.models.name]
    parts += [f"{config.init} init student"]
    parts += [config.sgo.source] if config.sgo.source != OUTPUT_SOURCES.get(config.method.name) else []
    parts += [f"buffer of {config.sgo.capacity}"] if SOURCES[config.sgo.source].buffered else []
    return ", ".join(parts)


def scope(preset: str, records: Sequence[RunRecord], arms: Mapping[str, Used], hardware: str = "") -> str:
    """The preset, model sizes and hardware that some runs speak of, in a line.

    Args:
        preset: its name.
        records: of the runs.
        arms: how those with adaptive φ used student outputs.
        hardware: of something else that was measured with their models; "" for that of the runs.
    """
    if not records and not hardware:
        return f"Preset {preset}; nothing measured."
    models = [
        f"{record.config.models.name} (teacher {record.models.teacher_parameters:,}, student "
        f"{record.models.student_parameters:,} parameters)"
        for record in records
    ]
    machines = [hardware] if hardware else [record.environment.hardware for record in records]
    of_batches = []
    if arms:
        share, generated = _ends([one.share for one in arms.values()]), _ends([one.generated for one in arms.values()])
        told = f"{share} of batches with adaptive φ were student outputs, {generated} generated for their step"
        of_batches = [told + _without(arms.values())]
    return f"Preset {preset}; {'; '.join(dict.fromkeys([*models, *machines, *of_batches]))}."


def _ends(shares: Sequence[float]) -> str:
    return " to ".join(dict.fromkeys(f"{end:.0%}" for end in (min(shares), max(shares))))
