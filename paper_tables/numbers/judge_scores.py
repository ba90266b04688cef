"""Columns of what a language model thought of the responses, from `bench judge`."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.record.store import JUDGED, Store
from bench.system.files import read_json
from bench.system.hashing import digest
from paper_tables.numbers.cells import Measured
from paper_tables.numbers.runs import Run, Selection
from paper_tables.paper.tables import INSTRUCTION_SETS, Table

SAME = ("judge", "prompt", "decoding_seeds", "limit", "repeats")
"""What judgements in one column share."""
SETS = ("dolly", "selfinst", "vicuna")


@dataclass(frozen=True)
class Judgements:
    """Cells by row and evaluation set, as the table names it; and what is to be known about them."""

    labels: Mapping[str, str] = field(default_factory=dict)
    cells: Mapping[tuple[str, str], Measured] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def judgements(table: Table, selection: Selection, store: Store) -> Judgements:
    """The ratings of a table's runs by one judge: where several judged, by the one that judged most of them.

    Empty for a table whose columns are no instruction sets, or where nothing was judged.
    """
    if {column.name for column in table.columns} != set(INSTRUCTION_SETS):
        return Judgements()
    found = {run.record["run_id"]: _of_run(store, run) for runs in selection.runs.values() for run in runs}
    counts = Counter(key for by_judge in found.values() for key, judged in by_judge.items() for _ in judged["results"])
    if not counts:
        return Judgements()
    chosen = min(counts, key=lambda key: (-counts[key], key))
    by_run = {run_id: by_judge[chosen] for run_id, by_judge in found.items() if chosen in by_judge}
    cells: dict[tuple[str, str], Measured] = {}
    for row in table.rows:
        runs = [run for arm in row.arms.values() for run in selection.runs[arm] if run.record["run_id"] in by_run]
        for name in SETS:
            scored = [(run, score) for run in runs if (score := _score(by_run[run.record["run_id"]], name)) is not None]
            if scored:
                values = [score for _, score in scored]
                sd = statistics.stdev(values) if len(values) > 1 else None
                cells[row.name, name] = Measured(statistics.fmean(values), sd, tuple(run for run, _ in scored))
    labels = {name: f"judge, {INSTRUCTION_SETS[name][0]}" for name in SETS if any(key[1] == name for key in cells)}
    return Judgements(labels, cells, (_note(list(by_run.values()), len(counts)),))


def _of_run(store: Store, run: Run) -> dict[str, dict[str, Any]]:
    """A run's ratings beside references, by what judgements in one column share; sets judged one by one are merged."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((store.folder(run.record["run_id"]) / JUDGED).glob("rating-*.json")):
        try:
            judged = read_json(path)
            key = digest({name: judged[name] for name in SAME})
            found[key] = _merged(found[key], judged) if key in found else judged
        except (OSError, ValueError, KeyError, TypeError):
            store.warn(f"skipped {path}: no judgement that can be read")
    return found


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two judgements that share all but their sets; a set that both judged is taken from the later one."""
    earlier, later = sorted((one, other), key=lambda judged: judged["asked"])
    both = {name: sorted({*earlier[name], *later[name]}) for name in ("models_served", "asked")}
    return later | both | {"results": earlier["results"] | later["results"]}


def _score(judged: Mapping[str, Any], name: str) -> float | None:
    for there in INSTRUCTION_SETS[name][1]:
        result = judged["results"].get(there)
        if result and result["score"]:
            value: float = result["score"]["value"]
            return value
    return None


def _note(judged: list[Mapping[str, Any]], judges: int) -> str:
    one = judged[0]
    models = sorted({model for each in judged for model in each["models_served"]})
    asked = sorted({date for each in judged for date in each["asked"]})
    unscored = sum(
        count
        for each in judged
        for result in each["results"].values()
        for outcome, count in result["outcomes"].items()
        if outcome != "scored"
    )
    others = f" Another {judges - 1} judged fewer of these runs and are left out." if judges > 1 else ""
    return (
        f"Judge: {one['judge']['model']} (served as {', '.join(models)}), temperature {one['judge']['temperature']:g}, "
        f"prompt {one['prompt_version']}, asked {' to '.join(dict.fromkeys((asked[0], asked[-1])))}; 100 x sum of its "
        "ratings of the responses / sum of its ratings of the references, both orders; "
        f"{unscored} items could not be scored and count nowhere.{others}"
    )
