"""Is the difference between two recorded runs real? Paired bootstrap over the examples of each test set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from bench.analysis.significance import holm, paired_bootstrap
from bench.record.example_scores import example_scores, pooled_bleu
from bench.record.store import Record, Store
from bench.system.errors import BenchError


def differences(first: object, second: object, path: str = "") -> Iterator[str]:
    """Dotted keys at which two nested mappings differ, with both values."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in sorted(first.keys() | second.keys()):
            yield from differences(first.get(key), second.get(key), f"{path}.{key}" if path else str(key))
    elif first != second:
        yield f"{path}: {first!r} against {second!r}"


def compare_runs(store: Store, first: Record, second: Record, resamples: int) -> list[dict[str, Any]]:
    """One row per test set: both scores, the difference (first minus second), its interval and p-value.

    An example's score is the mean over its decoding seeds (its summed statistics for BLEU). The intervals speak of
    other test examples, not of other training seeds. `p_holm` corrects for testing several sets.

    Raises:
        BenchError: the runs differ in more than method, output source, start and seed; it says in what.
    """
    if first["comparison_key"] != second["comparison_key"]:
        found = list(differences(first["comparison_fields"], second["comparison_fields"]))
        raise BenchError(
            f"{first['run_id']} and {second['run_id']} cannot be compared; they differ in\n  " + "\n  ".join(found)
        )
    one, two = (example_scores(store.predictions(record)) for record in (first, second))
    bleu = first["metric"]["name"] == "BLEU"
    rows = []
    for name, examples in one.items():
        ids = sorted(examples)
        if ids != sorted(two[name]):
            raise BenchError(f"{name}: the two runs' predictions are not over the same examples")
        a, b = (np.array([side[name][i] for i in ids], dtype=np.float64) for side in (one, two))
        try:
            result = paired_bootstrap(a, b, score=pooled_bleu if bleu else None, resamples=resamples)
        except ValueError as error:  # a single example, say
            raise BenchError(f"{name}: no interval can be given: {error}") from error
        rows.append(
            {
                "set": name,
                "metric": first["metric"]["name"],
                "first": {"run": first["run_id"], "score": pooled_bleu(a.sum(0)) if bleu else float(a.mean())},
                "second": {"run": second["run_id"], "score": pooled_bleu(b.sum(0)) if bleu else float(b.mean())},
                "difference": result.difference,
                "low": result.low,
                "high": result.high,
                "p": result.p_value,
                "examples": result.n,
            }
        )
    for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = adjusted
    return rows
