"""Presets of `bench suite --equal-time` against the runs that were made with them, and the times recorded now.

Steps stay as they were planned when their runs were begun, whatever is timed later, so that other times are no fault of
the file. Other steps than those of its runs are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.config.layers import Layer
from bench.config.presets import is_path
from bench.record.record import RunRecord
from bench.record.store import Store
from bench.system import yaml_text
from bench.system.errors import BenchError
from paper_tables.numbers.runs import RunIndex
from paper_tables.suite.equal_time import AS_LONG_AS, TABLES, equal_time_preset
from paper_tables.verify.found import Findings

AGAINST_RUNS = "steps of equal time against runs"
AGAINST_TIMES = "steps of equal time against times"


def check_equal_time(store: Store, records: Sequence[RunRecord], found: Findings) -> None:
    """Compare the steps of each such preset, method by method."""
    for path in sorted(store.root.glob(f"*{AS_LONG_AS}*.yaml")):
        try:
            content: Layer = yaml_text.read(path)
            pairs = {
                pair: {method: one["training"] for method, one in block["methods"].items()}
                for pair, block in content.get("pairs", {}).items()
            }
            for pair, there in pairs.items():
                planned = _planned(store, path, content, pair, there, found)
                for method, training in there.items():
                    _check_method(path, pair, method, training, planned.get(method), records, found)
        except BenchError as error:
            found.unchecked[f"{path}: {error}"] += 1
        except (AttributeError, KeyError, TypeError):
            found.equal("presets of equal time", path, "", "pairs", "another form", "steps by pair and method")


def _planned(store: Store, path: Path, content: Layer, pair: str, there: Layer, found: Findings) -> Layer:
    """By method, what would be planned from the times recorded now; nothing where these do not say."""
    reference, base = path.stem.rpartition(AS_LONG_AS)[2], content.get("extends", "")
    try:
        index = RunIndex(store, str(path.parent / base) if is_path(base) else base)
        for name in TABLES:
            planned = equal_time_preset(index, [name], reference, only=list(there), pairs=[pair])["pairs"].get(pair)
            if planned is not None and there.keys() <= planned["methods"].keys():
                return {method: block["training"] for method, block in planned["methods"].items()}
        raise BenchError(f"no table has all its methods with models {pair}")
    except BenchError as error:
        found.unchecked[f"{path}: {error}"] += 1
        return {}


def _check_method(
    path: Path,
    pair: str,
    method: str,
    training: Layer,
    planned: Layer | None,
    records: Sequence[RunRecord],
    found: Findings,
) -> None:
    steps, row = training["steps"], f"{pair} {method}"
    made = {
        own
        for record in records
        if record.evaluated is None
        and (own := record.config.training.steps) is not None
        and (record.config.preset, record.config.models.name, record.config.method.name) == (path.stem, pair, method)
    }
    where = f"{path}: {pair}: steps of {method}"
    if planned is not None and made and steps not in made and steps == planned["steps"]:
        had = ", ".join(map(str, sorted(made)))
        found.unchecked[f"{where}: planned anew, and no run has them yet ({steps} in the file, {had} in runs)"] += 1
    elif made:
        should = steps if steps in made else " or ".join(map(str, sorted(made)))
        found.equal(AGAINST_RUNS, path, row, "training.steps", steps, should)
        if steps in made and (others := sorted(made - {steps})):
            had = ", ".join(map(str, others))
            found.unchecked[f"{where}: other runs have other steps ({steps} in the file, {had} in these runs)"] += 1
    if planned is None:
        return
    rest = {key: value for key, value in training.items() if key != "steps"}
    found.equal(AGAINST_TIMES, path, row, "training", rest, {k: v for k, v in planned.items() if k != "steps"})
    if steps != planned["steps"]:
        reference = path.stem.rpartition(AS_LONG_AS)[2]
        found.unchecked[
            f"{where}: planned from other times than those recorded now ({steps} in the file, {planned['steps']} now); "
            f"`bench suite ... --equal-time {reference} --replan` plans them anew"
        ] += 1
