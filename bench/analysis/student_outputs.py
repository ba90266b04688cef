"""Whether runs whose use of student outputs adapts had any."""

from __future__ import annotations

from collections.abc import Iterable

from bench.record.record import RunRecord
from distillm.sources import SOURCES


def none_used(records: Iterable[RunRecord]) -> str:
    """How many of some runs with adaptive φ never trained on a student output, in words; "" where all did.

    φ starts at 0 and rises with the validation loss. Where that does not turn, DistiLLM is its loss on fixed data.
    """
    counted = [one for one in records if SOURCES[one.config.sgo.source].phi == "adaptive" and one.time.steps]
    without = [one for one in counted if not sum(n.count for kind, n in one.time.steps.items() if kind != "dataset")]
    if not without:
        return ""
    of = "its one run" if len(counted) == 1 else f"{len(without)} of {len(counted)} runs"
    return f"in {of} φ stayed 0 and no batch was of student outputs: the same as training on fixed data"
