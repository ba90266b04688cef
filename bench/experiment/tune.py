"""Tuning: the same number of trials for every method, scored on validation, and a preset that holds the best.

A trial is an ordinary run with `score_on=validation`, recorded in a folder of its own. Records are all the memory there
is: what is recorded is not made again, and an interrupted trial goes on from its last checkpoint.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, JsonValue

from bench.config.layers import Layer, with_values
from bench.config.presets import change_preset, is_path, read_preset, shipped
from bench.config.resolve import resolve
from bench.config.section import Section
from bench.config.sections import Config
from bench.config.tuned import LEARNING_RATE, Trial, TunedMethod, best
from bench.data import find_task
from bench.record.record import RunRecord
from bench.system import yaml_text
from bench.system.errors import BenchError, did_you_mean
from bench.system.hashing import digest
from bench.system.names import checked_name
from bench.system.paths import check_file
from bench.system.strict import validated
from bench.training.job import NonFiniteLoss
from distillm import Method

Values = dict[str, JsonValue]
"""Settings of a trial, by dotted key."""
Make = Callable[[Config, Method], RunRecord]


class _SpaceFile(Section):
    options: dict[str, dict[str, list[JsonValue]]] = Field(description="by method, the values to try of one option")


@dataclass(frozen=True)
class Study:
    """What is tried of one method on one task.

    Attributes:
        preset: whose runs are tuned: a shipped preset's name, or a user's file.
        task: a task's name or file.
        method: a method's name or `path/to/file.py:NAME`.
        seeds: training seeds of each trial.
        device: as for `resolve`.
        data_dir: as for `resolve`.
        space: values by dotted key; every combination is a trial.
        models: the model pair; None = the preset's.
    """

    preset: str
    task: str
    method: str
    seeds: tuple[int, ...]
    device: str | None
    data_dir: str | None
    space: Mapping[str, Sequence[JsonValue]]
    models: str | None = None

    def run(self, values: Values, seed: int) -> tuple[Config, Method]:
        """The run that tries some values at a training seed."""
        settings = [f"{key}={json.dumps(value)}" for key, value in values.items()]
        return resolve(
            preset=self.preset,
            task=self.task,
            method=self.method,
            models=self.models,
            seed=seed,
            device=self.device,
            data_dir=self.data_dir,
            assignments=["score_on=validation", *settings],
        )


def rates_of_trials(trials: int) -> list[float]:
    """Factors of a preset's learning rate, at steps of 2 around it: of four trials 1/4, 1/2, 1 and 2."""
    return [2.0**power for power in range(-(trials // 2), trials - trials // 2)]


def plan_studies(
    preset: str,
    tasks: Sequence[str],
    methods: Sequence[str],
    factors: Sequence[float],
    seeds: Sequence[int],
    *,
    device: str | None = None,
    data_dir: str | None = None,
    space_file: Path | None = None,
    models: str | None = None,
) -> list[Study]:
    """What to try: the preset's learning rate times each factor, the same number of trials for every method.

    A method with an option in the space file tries each of its values with as many rates as the trials allow, those
    nearest to the preset's own.

    Raises:
        BenchError: an unknown name, a preset that is tuned, a space that does not fit the trials, or a value that no
            configuration takes.
    """
    if read_preset(preset).is_tuned:
        raise BenchError(
            f"--preset {preset}: it is tuned; give the preset that it extends, whose rates the grids are of"
        )
    options = {} if space_file is None else _read_space(space_file)
    if unknown := [name for name in options if name not in methods]:
        raise BenchError(f"--space {space_file}: {unknown[0]} is not tuned: {did_you_mean(unknown[0], methods)}")
    studies = []
    for task in tasks:
        for method in methods:
            option = {f"method.{name}": values for name, values in options.get(method, {}).items()}
            rates, rest = divmod(len(factors), max(1, *map(len, option.values())) if option else 1)
            if rest or not rates:
                raise BenchError(
                    f"--space {space_file}: {method}: {len(factors)} trials do not divide among the values of "
                    f"{next(iter(option))}; every method gets as many trials, so change their number or the values"
                )
            usual, _ = resolve(preset=preset, task=task, method=method, models=models, data_dir=data_dir)
            nearest = sorted(sorted(factors, key=lambda one: (abs(math.log(one)), one))[:rates])
            grid = [usual.training.learning_rate * factor for factor in nearest]
            study = Study(preset, task, method, tuple(seeds), device, data_dir, {LEARNING_RATE: grid, **option}, models)
            for key, values in study.space.items():
                for value in values:
                    study.run({key: value}, seeds[0])  # refuses what no configuration takes, before any work
            studies.append(study)
    return studies


def tune(study: Study, make: Make) -> TunedMethod:
    """Make all trials of a study, and choose the best by its mean score on validation over training seeds.

    Args:
        study: what to try.
        make: makes a run, or gives back its record.

    Raises:
        BenchError: every trial diverged, or the trials do not share all but what is tuned.
    """
    tried: list[Trial] = []
    records: list[RunRecord] = []
    for combination in itertools.product(*study.space.values()):
        values: Values = dict(zip(study.space, combination, strict=True))
        try:
            made = [make(*study.run(values, seed)) for seed in study.seeds]
        except NonFiniteLoss:
            tried.append(Trial(values=values, scores=[], runs=[]))
            continue
        records.extend(made)
        scores = [record.scores["validation"].primary.mean for record in made]
        tried.append(Trial(values=values, scores=scores, runs=[record.run_id for record in made]))
    if not records:
        raise BenchError(f"{study.method} on {study.task}: every trial diverged; give the preset a lower learning rate")
    shared = {digest(_shared(record)) for record in records}
    if len(shared) > 1:
        raise BenchError(f"the trials of {study.method} on {study.task} differ in more than what is tuned")
    return TunedMethod(
        trials=len(tried),
        seeds=list(study.seeds),
        space={key: list(space) for key, space in study.space.items()},
        chosen=best(tried).values,
        models=records[0].config.models.name,
        metric=records[0].metric.label,
        tried=tried,
        seconds=round(sum(record.seconds for record in records), 1),
        made=max(record.started for record in records)[:10],
        commits=sorted({_commit(record) for record in records}),
        settings=shared.pop(),
    )


def check_target(path: Path, studies: Sequence[Study]) -> None:
    """Refuse a file that could not take what is found, before any work is done for it.

    Raises:
        BenchError: its name is no preset's, is that of one that ships, or it cannot be written; it extends another
            preset than the studies', or holds methods of their tasks that were tuned with another budget or pair.
    """
    checked_name(path.stem, f"--to {path}")
    if path.suffix not in (".yaml", ".yml") or path.stem in shipped("presets"):
        raise BenchError(f"--to {path}: give a name that ends in .yaml and is no shipped preset's")
    check_file(path, "--to", write=True)
    if not path.exists():
        return
    read_preset(str(path))
    content: Layer = yaml_text.read(path)
    for study in studies:
        _check_base(path, content, study)
        config, _ = study.run({}, study.seeds[0])
        task, method, pair = find_task(study.task).name, config.method.name, config.models.name
        trials = math.prod(map(len, study.space.values()))
        for other, entry in content.get("tuning", {}).get(task, {}).items():
            there = validated(TunedMethod, entry)
            if other != method and (there.trials, there.seeds) != (trials, list(study.seeds)):
                raise _other_budget(path, task, other, there, method, trials, study.seeds)
            if there.models != pair:
                raise BenchError(
                    f"{path}: {other} on {task} was tuned with the models {there.models}, not {pair}; give another "
                    "file with --to"
                )


def write_tuned(path: Path, study: Study, found: TunedMethod, method: str) -> None:
    """Put what was found into a preset that extends the study's, beside what it holds of other methods and tasks.

    Raises:
        BenchError: the file extends another preset, cannot be written, or holds methods of the task that were tuned
            with another budget or otherwise than in what was tuned.
    """
    task = find_task(study.task).name

    def with_method(there: Layer | None) -> Layer:
        content: Layer = {"extends": _base(path, study)} if there is None else there
        _check_base(path, content, study)
        of_task = content.setdefault("tuning", {}).setdefault(task, {})
        for other, entry in of_task.items():
            tuned = validated(TunedMethod, entry)
            if other != method and _budget(tuned) != _budget(found):
                raise _other_budget(path, task, other, tuned, method, found.trials, found.seeds)
        of_task[method] = found.model_dump(mode="json")
        return content

    change_preset(path, with_method)


def _base(path: Path, study: Study) -> str:
    """What a tuned preset says that it extends."""
    base = os.path.relpath(study.preset, path.parent) if is_path(study.preset) else study.preset
    return base if base == study.preset or "/" in base else f"./{base}"


def _check_base(path: Path, content: Layer, study: Study) -> None:
    if content.get("extends") != (base := _base(path, study)):
        raise BenchError(f"{path} extends {content.get('extends')}, not {base}; give another file with --to")


def _other_budget(
    path: Path, task: str, other: str, there: TunedMethod, method: str, trials: int, seeds: Sequence[int]
) -> BenchError:
    return BenchError(
        f"{path}: {other} on {task} was tuned with {there.trials} trials and training seeds {there.seeds}, and "
        f"{method} with {trials} and {list(seeds)}, or on other data, devices or versions: tune all methods of a task "
        "alike, or give another file with --to"
    )


def _budget(found: TunedMethod) -> tuple[int, list[int], str]:
    return found.trials, found.seeds, found.settings


def _shared(record: RunRecord) -> Layer:
    """What the trials of all methods on a task must share: all that runs of a table do, but the learning rate."""
    fields = dict(record.comparison_fields)
    return {**fields, "config": with_values(fields["config"], {LEARNING_RATE: None})}


def _commit(record: RunRecord) -> str:
    git = record.environment.git
    return "unknown" if git is None else f"{git.commit}{' with changes' if git.changed else ''}"


def _read_space(path: Path) -> dict[str, dict[str, list[JsonValue]]]:
    try:
        found = validated(_SpaceFile, yaml_text.read(path)).options
    except BenchError as error:
        raise BenchError(
            f"--space {error}" if str(error).startswith(str(path)) else f"--space {path}: {error}"
        ) from error
    for method, options in found.items():
        if len(options) != 1 or not all(options.values()):
            raise BenchError(f"--space {path}: {method}: give one option with the values to try")
    return found
