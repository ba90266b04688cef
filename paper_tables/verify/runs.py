"""Recorded runs against themselves: ids against configurations, every score against the texts that were kept.

Texts of teachers and init students are not kept. Runs that have the same ones, which their hash says, must have the
same scores of them, so that a run whose numbers alone were changed is found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from bench import __version__
from bench.config.comparable import differences
from bench.config.sections import Config
from bench.data import Example, TaskData, references_hash, task_of
from bench.evaluation.evaluate import summarise
from bench.experiment.examples import examples_of
from bench.metrics.metric import Metric, example_score
from bench.record.example_scores import Prediction
from bench.record.read import has_checksum
from bench.record.record import RunRecord, SetScores
from bench.record.store import PREDICTIONS, RECORD, Store
from bench.system.errors import BenchError
from bench.system.hashing import digest
from paper_tables.verify.found import Findings, Mismatch

NOT_KEPT = (
    "teacher and init student scores by their texts, and curves, tokens and times by steps, which no file here has; "
    "--rerun makes runs again"
)
BETWEEN_RUNS = "scores of teachers and init students between runs"
SAME = "the same in both files: they differ, and no majority of runs says which is right"
Sets = Mapping[str, Sequence[Example]]
"""Examples by evaluation set, as records name it."""


class Examples:
    """The examples that configurations stand for; each data set is loaded once."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[TaskData, str, Sets] | BenchError] = {}

    def of(self, config: Config) -> tuple[TaskData, str, Sets]:
        """The data that a configuration names, its fingerprint, and its sets by the names that records have.

        Raises:
            BenchError: it is not at hand.
        """
        key = json.dumps([config.task, config.task_file, config.data.model_dump(mode="json")])
        if key not in self._known:
            try:
                data = examples_of(task_of(config.task, config.task_file), config.data)
                sets = {data.label(name): found for name, found in data.splits.items()}
                self._known[key] = data, data.fingerprint(), sets
            except BenchError as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, BenchError):
            raise found
        return found


def check_run(store: Store, record: RunRecord, examples: Examples, found: Findings) -> None:
    """Check a run's id, and its scores by every metric, each decoding seed and example, against its texts."""
    if not has_checksum(store.folder(record.run_id) / RECORD):
        found.unchecked[f"{record.run_id}: it has no checksum, so that any number in it may have been changed"] += 1
        found.unsealed += 1
    _check_identity(store, record, found)
    _check_times(store.folder(record.run_id) / RECORD, record, found)
    if record.evaluated is None:
        found.unchecked[NOT_KEPT] += 1
    path = store.folder(record.run_id) / PREDICTIONS
    try:
        rows = store.predictions(record)
    except BenchError as error:
        found.equal("predictions", path, "", "predictions", str(error), "rows that can be read")
        return
    if not rows or "prediction" not in rows[0]:
        found.unchecked["scores of runs: no texts kept"] += 1
        return
    try:
        metrics = [info.find() for info in record.metrics]
    except BenchError as error:
        found.unchecked[f"scores of runs: {error}"] += 1
        return
    try:
        references = _references(store, record, examples, found)
    except BenchError as error:
        found.unchecked[f"texts against references: {error}"] += 1
        references = {}
    try:
        scored = [_scored(store, record, row, metrics, references, found) for row in rows]
        summary = summarise(scored, metrics)
    except (KeyError, TypeError, ValueError) as error:
        found.equal("predictions", path, "", "predictions", f"rows of another form ({error!r})", "rows as runs write")
        return
    for (name, seed), block in groupby(rows, key=lambda row: (row["set"], row["seed"])):
        if name in references:
            ids = [row["id"] for row in block]
            found.equal("prompt ids", path, f"{name}, seed {seed}", "id", ids, list(references[name]))
    for name, recorded in record.scores.items():
        column = f"scores.{name}"
        if name not in summary:
            found.equal("scores", store.folder(record.run_id) / RECORD, "", column, "a score", "no responses")
            continue
        should = summary[name].model_dump(mode="json")
        if recorded.texts is None:
            should["texts"] = None
        holds = {column: recorded.model_dump(mode="json")}
        found.fields("scores", store.folder(record.run_id) / RECORD, holds, {column: should})


class SharedScores:
    """Scores of teachers and init students, of which runs with the same texts must have the same."""

    def __init__(self) -> None:
        self._found: dict[str, list[tuple[Path, str, SetScores]]] = {}

    def add(self, file: Path, record: RunRecord) -> None:
        """Keep those of a run."""
        signatures = [(metric.name, metric.signature) for metric in record.metrics]
        for column, by_set in (("teacher_scores", record.teacher_scores), ("init_scores", record.init_scores)):
            for name, scores in by_set.items():
                if scores.texts is not None:
                    key = digest([scores.texts, record.data.references.get(name), signatures])
                    self._found.setdefault(key, []).append((file, f"{column}.{name}", scores))

    def check(self, found: Findings) -> None:
        """Hold each to what more than half of them have; without such a majority, name files that differ."""
        for shared in self._found.values():
            by_value: dict[str, list[tuple[Path, str, SetScores]]] = {}
            for one in shared:
                by_value.setdefault(one[2].model_dump_json(), []).append(one)
            first, *others = sorted(by_value.values(), key=len, reverse=True)
            if 2 * len(first) <= len(shared) and others:
                found.checked[BETWEEN_RUNS] += len(shared)
                for other, *_ in others:
                    _differ(first[0], other, found)
                continue
            usual = first[0][2].model_dump(mode="json")
            for file, column, scores in shared if len(shared) > 1 else ():
                holds = {column: scores.model_dump(mode="json")}
                found.fields(BETWEEN_RUNS, file, holds, {column: usual})


def _differ(one: tuple[Path, str, SetScores], other: tuple[Path, str, SetScores], found: Findings) -> None:
    """Name two files with other scores of the same texts, where nothing says which of them is right."""
    (file, column, scores), (other_file, other_column, other_scores) = one, other
    where = column if column == other_column else f"{column} and {other_column}"
    for cell in differences(scores.model_dump(mode="json"), other_scores.model_dump(mode="json")):
        found.wrong.append(
            Mismatch(f"{file} and {other_file}", "", f"{where}.{cell.key}", f"{cell.first} and {cell.second}", SAME)
        )


def _check_times(file: Path, record: RunRecord, found: Findings) -> None:
    """Hold training time, steps and tokens to the phases and rates beside them, as far as these were rounded."""
    time, training = record.time, record.training
    phases = [took for name, took in time.phases.items() if name not in ("validation", "checkpoint")]
    seconds, rates = sum(phases), (time.steps_per_second, time.tokens_per_second)
    rounded = 1e-4 * (1 + len(phases))
    if record.evaluated is not None:  # nothing was trained
        return
    for where, holds, should, least in (
        ("time.training_seconds", time.training_seconds, seconds, rounded),
        ("training.steps", training.steps, rates[0] * seconds, 1e-3 * seconds + rounded * rates[0]),
        ("training.tokens_trained", training.tokens_trained, rates[1] * seconds, 0.1 * seconds + rounded * rates[1]),
    ):
        close = abs(holds - should) <= least
        found.equal("times", file, "", where, f"{holds:g}", f"{holds if close else should:g}")


def _check_identity(store: Store, record: RunRecord, found: Findings) -> None:
    path = store.folder(record.run_id) / RECORD
    found.equal("run ids", path, "", "run_id", record.run_id.rpartition("-")[2], record.run_hash[:10])
    if record.evaluated is not None:
        return
    config, fields = record.config, record.comparison_fields
    readable = f"{config.task}-{config.method.name}-{config.sgo.source}-s{config.seed}"
    found.equal("run ids", path, "", "run_id", record.run_id.rpartition("-")[0], readable)
    found.equal("comparison keys", path, "", "comparison_key", record.comparison_key, digest(fields))
    found.equal("comparison keys", path, "", "data.fingerprint", record.data.fingerprint, fields.get("data"))
    if fields.get("version") == __version__:
        key = {**fields, "config": config.identity() | {"device": config.device}}
        found.equal("run ids", path, "", "run_hash", record.run_hash, digest(key))
    else:
        found.unchecked["run ids against whole configurations: another version's keys"] += 1


def _references(
    store: Store, record: RunRecord, examples: Examples, found: Findings
) -> dict[str, dict[str, tuple[str, ...]]]:
    """By set and example, the references; only those that are known to be the run's.

    Raises:
        BenchError: the data is not at hand, or is not that of the run.
    """
    _, fingerprint, sets = examples.of(record.config)
    if fingerprint != record.data.fingerprint and not record.data.references:
        raise BenchError(f"the data ({record.data.source}) is not what it was")
    usable = {}
    for name in record.scores:
        if name not in sets:
            raise BenchError(f"the data has no set {name} any more")
        hashed = references_hash(sets[name])
        if fingerprint == record.data.fingerprint and name in record.data.references:
            path = store.folder(record.run_id) / RECORD
            found.equal("references", path, "", f"data.references.{name}", record.data.references[name], hashed)
        elif record.data.references.get(name, hashed) != hashed:
            raise BenchError(f"the references of {name} ({record.data.source}) are not what they were")
        usable[name] = {one.id: one.references for one in sets[name]}
    return usable


def _scored(
    store: Store,
    record: RunRecord,
    row: Prediction,
    metrics: Sequence[Metric],
    references: Mapping[str, Mapping[str, tuple[str, ...]]],
    found: Findings,
) -> Prediction:
    """A row with its scores computed again; as it is where its references are not known."""
    accepted = references.get(row["set"], {}).get(row["id"])
    if accepted is None:
        return row
    scores = {metric.name: example_score(metric, row["prediction"], accepted) for metric in metrics}
    path, label = store.folder(record.run_id) / PREDICTIONS, f"{row['set']}, seed {row['seed']}, {row['id']}"
    for name, score in scores.items():
        found.equal("example scores", path, label, name, row["scores"].get(name), score)
    changed = row.copy()
    changed["scores"] = scores
    return changed
