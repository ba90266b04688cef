"""What a verdict speaks of: at which scale its runs were made, and whether the mechanism it is about was at work.

A claim about DistiLLM, or about adaptive use of student outputs, says nothing where the run hardly used any. Its
probability φ of training on student outputs starts at 0 and rises by 0.1 when the validation loss has risen. The rule:
over training, φ has to be 0.1 on average at least, the share of batches that one rise gives when it is there from the
start. It is a mean over the runs of each arm with adaptive φ that the claim compares. φ is the expected share of
batches that were generated or drawn from the buffer; of packed runs, whose curves are thin, it is known better than the
share that was drawn. Where an arm is below, the claim is neither reproduced nor refuted.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from bench.record.record import RunRecord
from bench.record.store import Store
from distillm.sources import SOURCES
from paper_tables.paper.methods import METHOD_LABELS, OUTPUT_SOURCES

ACTIVE_PHI = 0.1
"""Of each arm with adaptive φ, the least mean of φ over training that counts as having used student outputs."""


def mean_phis(store: Store, records: Iterable[RunRecord]) -> dict[str, float]:
    """By arm, in words, the mean of φ over training and runs, of the arms with adaptive φ among some runs."""
    phis: dict[str, list[float]] = {}
    for record in records:
        if SOURCES[record.config.sgo.source].phi != "adaptive":
            continue
        if points := [point["phi"] for point in store.curve(record) if "phi" in point]:
            phis.setdefault(_arm(record), []).append(statistics.fmean(points))
    return {name: statistics.fmean(found) for name, found in phis.items()}


def inactive_arms(phis: Mapping[str, float]) -> list[str]:
    """Of arms with their mean φ, those that hardly used student outputs, in words."""
    return [f"{name}: {mean:.3f}" for name, mean in phis.items() if mean < ACTIVE_PHI]


def _arm(record: RunRecord) -> str:
    config = record.config
    parts = [METHOD_LABELS.get(config.method.name, config.method.name), record.task, config.models.name]
    parts += [f"{config.init} init student"]
    parts += [config.sgo.source] if config.sgo.source != OUTPUT_SOURCES.get(config.method.name) else []
    parts += [f"buffer of {config.sgo.capacity}"] if SOURCES[config.sgo.source].buffered else []
    return ", ".join(parts)


def scope(preset: str, records: Sequence[RunRecord], phis: Mapping[str, float], hardware: str = "") -> str:
    """The preset, model sizes and hardware that some runs speak of, in a line.

    Args:
        preset: its name.
        records: of the runs.
        phis: mean φ by arm, where it is adaptive.
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
    ends = dict.fromkeys(f"{phi:.2f}" for phi in (min(phis.values()), max(phis.values()))) if phis else ()
    used = [f"adaptive φ {' to '.join(ends)} on average"] if ends else []
    return f"Preset {preset}; {'; '.join(dict.fromkeys([*models, *machines, *used]))}."
