"""What a verdict speaks of: at which scale its runs were made, and whether the mechanism it is about was at work.

A claim about DistiLLM, or about adaptive use of student outputs, says nothing where the run hardly used any. Its
probability φ of training on student outputs starts at 0 and rises by 0.1 when the validation loss has risen. The rule:
a tenth of the batches at least have to be student outputs, generated for the step or drawn from the buffer. One rise
gives that when it is there from the start. It is a mean over the runs of each arm with adaptive φ that the claim
compares. Where an arm is below, the claim is neither reproduced nor refuted. (At first φ itself was averaged over the
curve, which packing thins. On the published runs both say the same.)
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from bench.record.record import RunRecord
from bench.record.store import Store
from distillm.sources import SOURCES
from paper_tables.paper.methods import METHOD_LABELS, OUTPUT_SOURCES

ACTIVE_SHARE = 0.1
"""Of each arm with adaptive φ, the least share of batches that counts as having used student outputs."""


def shares_used(store: Store, records: Iterable[RunRecord]) -> dict[str, float]:
    """By arm, in words, the mean share of batches that were student outputs; of runs with adaptive φ alone.

    Of runs that did not count their steps by kind it is φ, averaged over the curve.
    """
    shares: dict[str, list[float]] = {}
    for record in records:
        if SOURCES[record.config.sgo.source].phi != "adaptive":
            continue
        if steps := {kind: one.count for kind, one in record.time.steps.items()}:
            used = sum(count for kind, count in steps.items() if kind != "dataset")
            shares.setdefault(_arm(record), []).append(used / sum(steps.values()))
        elif points := [point["phi"] for point in store.curve(record) if "phi" in point]:
            shares.setdefault(_arm(record), []).append(statistics.fmean(points))
    return {name: statistics.fmean(found) for name, found in shares.items()}


def inactive_arms(shares: Mapping[str, float]) -> list[str]:
    """Of arms with the share of batches that were student outputs, those that hardly used any, in words."""
    return [f"{name}: {share:.1%}" for name, share in shares.items() if share < ACTIVE_SHARE]


def _arm(record: RunRecord) -> str:
    config = record.config
    parts = [METHOD_LABELS.get(config.method.name, config.method.name), record.task, config.models.name]
    parts += [f"{config.init} init student"]
    parts += [config.sgo.source] if config.sgo.source != OUTPUT_SOURCES.get(config.method.name) else []
    parts += [f"buffer of {config.sgo.capacity}"] if SOURCES[config.sgo.source].buffered else []
    return ", ".join(parts)


def scope(preset: str, records: Sequence[RunRecord], shares: Mapping[str, float], hardware: str = "") -> str:
    """The preset, model sizes and hardware that some runs speak of, in a line.

    Args:
        preset: its name.
        records: of the runs.
        shares: of batches that were student outputs, by arm, where φ is adaptive.
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
    ends = dict.fromkeys(f"{end:.0%}" for end in (min(shares.values()), max(shares.values()))) if shares else ()
    used = [f"{' to '.join(ends)} of batches with adaptive φ were student outputs"] if ends else []
    return f"Preset {preset}; {'; '.join(dict.fromkeys([*models, *machines, *used]))}."
