"""Where metrics come from: this package, installed packages, or a file of the user's.

Importing this module imports no metric's library (nltk, sacreBLEU): each is imported at the first score.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from bench.metrics.bleu import Bleu
from bench.metrics.chrf import ChrF
from bench.metrics.exact_match import ExactMatch
from bench.metrics.metric import Metric
from bench.metrics.rouge_l import RougeL, RougeLUnicode
from bench.system.errors import BenchError, did_you_mean
from bench.system.extensions import from_file, in_file, users_code, with_packages
from bench.system.files import sha256_of
from bench.system.names import checked_name

ENTRY_POINTS = "distillm_bench.metrics"

_SHIPPED: tuple[Metric, ...] = (RougeL(), RougeLUnicode(), Bleu(), ChrF(), ExactMatch())
_PARTS = ("name", "label", "signature", "example", "score_of_sum")


@cache
def metrics() -> dict[str, Metric]:
    """All metrics known by name: those that ship, and those of installed packages that declare an entry point.

    Raises:
        BenchError: two metrics share a name, or an entry point fails to load or gives something else than a metric.
    """
    return with_packages({metric.name: metric for metric in _SHIPPED}, ENTRY_POINTS, _checked, "metric")


def find_metric(name: str) -> Metric:
    """A metric by its name, or by `path/to/file.py:NAME`, a metric or its class.

    Raises:
        BenchError: unknown name, no such file, or the file does not define such a metric.
    """
    if (place := in_file(name)) is None:
        check_known(name)
        return metrics()[name]
    where = f"metric {name}"
    found, _ = from_file(*place, lambda value: isinstance(value, Metric), where)
    metric = _checked(found, where)
    if metric.name in metrics():
        raise BenchError(f"{where}: a metric named {metric.name!r} exists already; rename yours")
    return metric


def find_metrics(names: Sequence[str]) -> tuple[Metric, ...]:
    """The metrics of a task, in its order.

    Raises:
        BenchError: as `find_metric`, and where two of them have the same name.
    """
    found = {name: find_metric(name) for name in names}
    by_name = {metric.name: name for name, metric in found.items()}
    for name, metric in found.items():
        if by_name[metric.name] != name:
            raise BenchError(f"metric {name}: {by_name[metric.name]} has the name {metric.name!r} too; rename one")
    return tuple(found.values())


def check_known(name: str) -> None:
    """Refuse a metric that is not there, without running a file of the user's.

    Raises:
        BenchError: unknown name or no such file.
    """
    if place := in_file(name):
        if not place[0].is_file():
            raise BenchError(f"there is no file {place[0]}")
    elif name not in metrics():
        raise BenchError(
            f"unknown metric {name!r}: {did_you_mean(name, metrics())}; a metric of your own: path/to/file.py:NAME"
        )


def check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """A task's metrics, each of which is known and stands once; no file of the user's is run.

    Raises:
        ValueError: says which is not.
    """
    if len(set(names)) < len(names):
        raise ValueError("each metric once")
    try:
        for name in names:
            check_known(name)
    except BenchError as error:
        raise ValueError(str(error)) from error
    return names


def metric_identity(name: str) -> str:
    """What a metric's name stands for: the name, or what the user's file is called in it and the file's SHA-256."""
    place = in_file(name)
    return name if place is None else f"{place[1]}@{sha256_of(place[0])}"


def _checked(found: object, where: str) -> Metric:
    if isinstance(found, type):
        with users_code(f"{where}: a metric's class is called without arguments"):
            found = found()
    if not isinstance(found, Metric):
        lacking = [part for part in _PARTS if not hasattr(found, part)]
        raise BenchError(f"{where}: expected a metric (bench.metrics.metric.Metric); it lacks {', '.join(lacking)}")
    if not (isinstance(found.name, str) and re.fullmatch(r"[\w-]+", found.name, re.ASCII)):
        raise BenchError(f"{where}: its name is {found.name!r}; use letters, digits, - and _")
    checked_name(found.name, where)
    # what a record holds is known before a run trains, not when it is written
    if not all(isinstance(text, str) for text in (found.label, found.signature(1), found.signature(None))):
        raise BenchError(f"{where}: its label and what its signature returns must be texts")
    if found.score_of_sum is not None and not callable(found.score_of_sum):
        raise BenchError(f"{where}: score_of_sum must be None or a function, got {found.score_of_sum!r}")
    return found
