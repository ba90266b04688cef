"""Presets of `bench suite --equal-time` against the recorded times that their steps follow from."""

from __future__ import annotations

from pathlib import Path

from bench.config.layers import Layer
from bench.config.presets import is_path
from bench.record.store import Store
from bench.system import yaml_text
from bench.system.errors import BenchError
from paper_tables.numbers.runs import RunIndex
from paper_tables.suite.equal_time import AS_LONG_AS, TABLES, equal_time_preset
from paper_tables.verify.found import Findings


def check_equal_time(store: Store, found: Findings) -> None:
    """Plan the steps of each such preset again, and compare them method by method."""
    for path in sorted(store.root.glob(f"*{AS_LONG_AS}*.yaml")):
        try:
            content: Layer = yaml_text.read(path)
            base = content.get("extends", "")
            index = RunIndex(store, str(path.parent / base) if is_path(base) else base)
            for pair, block in content.get("pairs", {}).items():
                _check_pair(path, index, pair, block["methods"], found)
        except BenchError as error:
            found.unchecked[f"{path}: {error}"] += 1
        except (AttributeError, KeyError, TypeError):
            found.equal("presets of equal time", path, "", "pairs", "another form", "steps by pair and method")


def _check_pair(path: Path, index: RunIndex, pair: str, there: Layer, found: Findings) -> None:
    reference = path.stem.rpartition(AS_LONG_AS)[2]
    for name in TABLES:
        planned = equal_time_preset(index, [name], reference, only=list(there), pairs=[pair])["pairs"].get(pair)
        if planned is not None and there.keys() <= planned["methods"].keys():
            for method, block in there.items():
                should = planned["methods"][method]["training"]
                found.equal("presets of equal time", path, f"{pair} {method}", "training", block["training"], should)
            return
    raise BenchError(f"no table has all its methods with models {pair}")
