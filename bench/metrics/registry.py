"""Metrics by name."""

from __future__ import annotations

from bench.metrics.bleu import Bleu
from bench.metrics.exact_match import ExactMatch
from bench.metrics.metric import Metric
from bench.metrics.rouge_l import RougeL
from bench.system.errors import BenchError, did_you_mean

METRICS: dict[str, Metric] = {metric.name: metric for metric in (RougeL(), Bleu(), ExactMatch())}


def find_metric(name: str) -> Metric:
    """A metric by its name.

    Raises:
        BenchError: there is none of that name.
    """
    if name not in METRICS:
        raise BenchError(f"unknown metric {name!r}: {did_you_mean(name, METRICS)}")
    return METRICS[name]
