"""Tuned presets against the trials they rest on: what was tried, and what it scored on validation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bench.config.strict import validated
from bench.config.tuned import TunedMethod
from bench.record.record import RunRecord
from bench.record.store import Store
from bench.system import yaml_text
from bench.system.errors import BenchError
from paper_tables.verify.found import Findings


def check_tuned(store: Store, records: Mapping[str, RunRecord], found: Findings) -> None:
    """Check each tuned preset that lies beside the records of its trials, as `bench tune` leaves it."""
    for path in sorted(store.root.glob("*.yaml")):
        try:
            by_task = yaml_text.read(path).get("tuning", {})
            methods = [
                (f"{task} {m}", validated(TunedMethod, e)) for task, of in by_task.items() for m, e in of.items()
            ]
        except BenchError as error:
            found.equal("tuned presets", path, "", "tuning", str(error), "methods with their trials")
            continue
        for name, tuned in methods:
            for trial in tuned.tried:
                for seed, run_id, score in zip(tuned.seeds, trial.runs, trial.scores, strict=False):
                    if (record := records.get(run_id)) is None:
                        found.unchecked[f"trials of {path}: not recorded beside it"] += 1
                        continue
                    holds = {**trial.values, "seed": seed, "score": score}
                    found.equal("trials", path, name, run_id, holds, _tried(record, trial.values))


def _tried(record: RunRecord, keys: Iterable[str]) -> dict[str, object]:
    config = record.config.model_dump(mode="json")
    tried = {}
    for key in keys:
        section, _, name = key.partition(".")
        tried[key] = (config["method"]["options"] if section == "method" else config[section])[name]
    return {**tried, "seed": record.seed, "score": record.scores["validation"].primary.mean}
