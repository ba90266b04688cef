"""Tuned presets against the trials they rest on: what was tried, and what it scored on validation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench.config.layers import Layer
from bench.config.section import Section
from bench.config.tuned import Trial, TunedMethod
from bench.record.record import RunRecord
from bench.record.store import Store
from bench.system import yaml_text
from bench.system.errors import BenchError
from bench.system.strict import validated
from paper_tables.verify.found import Findings


def check_tuned(store: Store, records: Mapping[str, RunRecord], found: Findings) -> None:
    """Check each tuned preset that lies beside the records of its trials, as `bench tune` leaves it."""
    for path in sorted(store.root.glob("*.yaml")):
        try:
            tuning = validated(_Tuning, {"tuning": yaml_text.read(path).get("tuning") or {}}).tuning
        except BenchError as error:
            found.equal("tuned presets", path, "", "tuning", str(error), "methods with their trials")
            continue
        for task, of_task in tuning.items():
            for method, tuned in of_task.items():
                for trial in tuned.tried:
                    _check_trial(path, (task, method, tuned.models), tuned.seeds, trial, records, found)


class _Tuning(Section):
    tuning: dict[str, dict[str, TunedMethod]]


def _check_trial(
    path: Path,
    of: tuple[str, str, str],
    seeds: list[int],
    trial: Trial,
    records: Mapping[str, RunRecord],
    found: Findings,
) -> None:
    """Check a trial's values, seeds and scores; of one that diverged there is no record."""
    task, method, models = of
    if not trial.runs:
        found.unchecked[f"trials of {path}: they diverged, which leaves no record"] += 1
        return
    name = f"{task} {method}"
    found.equal("tuned presets", path, name, "runs and scores", [len(trial.runs), len(trial.scores)], [len(seeds)] * 2)
    for seed, run_id, score in zip(seeds, trial.runs, trial.scores, strict=False):
        if (record := records.get(run_id)) is None:
            found.unchecked[f"trials of {path}: not recorded beside it"] += 1
            continue
        holds = {"task": task, "method": method, "models": models, "seed": seed, **trial.values, "score": score}
        config = record.config.model_dump(mode="json")
        validation = record.scores.get("validation")
        should = {
            "task": record.task,
            "method": record.config.method.name,
            "models": record.config.models.name,
            "seed": record.seed,
            **{key: _value_at(config, key) for key in trial.values},
            "score": None if validation is None else validation.primary.mean,
        }
        found.equal("trials", path, name, run_id, holds, should)


def _value_at(config: Layer, key: str) -> object:
    section, _, name = key.partition(".")
    return config[section].get(name)
