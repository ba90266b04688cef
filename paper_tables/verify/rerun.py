"""Recorded runs against what making them again gives, bit for bit; times and the machine are left out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.config.comparable import comparison_fields
from bench.config.resolve import resolve_again
from bench.experiment.context import prepare
from bench.experiment.run import STAGES, make, make_folder, told_in_words
from bench.experiment.workshop import Workshop
from bench.record.pack import thinned
from bench.record.record import CurvePoint, RunRecord
from bench.record.store import PREDICTIONS, RECORD, Store
from bench.system.errors import BenchError
from bench.system.progress import Reporter
from bench.training.job import NonFiniteLoss
from paper_tables.verify.found import Findings
from paper_tables.verify.runs import Examples

_SAMPLE_SEED = 0


def chosen_runs(store: Store, wanted: str) -> list[RunRecord]:
    """The runs to make again: so many of those recorded, drawn with a fixed seed, or one by its id or folder.

    Raises:
        BenchError: there is no such run, or it is a model that was scored as it is.
    """
    if wanted.isascii() and wanted.isdigit() and len(wanted) < len(str(2**63)):
        trained = [record for record in store.all() if record.evaluated is None]
        count = min(int(wanted), len(trained))
        if count < 1:
            raise BenchError(f"--rerun {wanted}: nothing to make again; give a number from 1 on, or a run")
        return random.Random(_SAMPLE_SEED).sample(trained, count)
    record = store.find(wanted)
    if record.evaluated is not None:
        raise BenchError(f"--rerun {wanted}: a model that was not trained; repeat it with bench evaluate --fresh")
    return [record]


def check_rerun(store: Store, record: RunRecord, examples: Examples, reporter: Reporter, found: Findings) -> None:
    """Make a run again in a folder of its own, and compare every number but times with the record's.

    What it shares with other runs is taken from the artifact cache. Where the version, the data or a model is another
    one, the run would be another run: it is named as not checked. One that diverges here is wrong, since it is
    recorded to have ended.
    """
    file = store.folder(record.run_id) / RECORD
    try:
        config, method = resolve_again(record.config.canonical(), device=record.config.device)
        workshop = Workshop.of(reporter)
        config = config.model_copy(update={"tracking": "none"})  # no run at the service of who made the record
        with reporter.session(list(STAGES)), told_in_words(reporter, config), TemporaryDirectory() as folder:
            with reporter.stage("data"):
                context = prepare(
                    config, method, workshop.cache, data=examples.of(config)[0], progress=reporter.progress
                )
            if context.run_id != record.run_id:
                now = comparison_fields(context.run_key)
                other = ", ".join(name for name, value in now.items() if value != record.comparison_fields.get(name))
                found.unchecked[
                    f"rerun of {record.run_id}: here it is another run (other: {other or 'configuration'})"
                ] += 1
                return
            place = Store(Path(folder)).folder(record.run_id)
            make_folder(place)
            made, rows = make(context, workshop, place)
    except NonFiniteLoss as error:
        found.equal("runs made again", file, "", "training", "it ended", str(error))
        return
    except BenchError as error:
        found.unchecked[f"rerun of {record.run_id}: {error}"] += 1
        return
    before = len(found.wrong)
    curve = thinned(made.curve) if record.packed else made.curve
    found.fields("runs made again", file, _numbers(record, record.curve), _numbers(made, curve))
    kept = store.predictions(record)
    if kept and "prediction" in kept[0]:
        path = file.with_name(PREDICTIONS)
        _compare_rows(path, kept, rows, found)
    if len(found.wrong) > before and (here := _hardware(made)) != (there := _hardware(record)):
        found.unchecked[f"bits of {record.run_id}: recorded on {there}, made again on {here}"] += 1


def _compare_rows(path: Path, kept: Sequence[Any], rows: Sequence[Any], found: Findings) -> None:
    found.equal("responses made again", path, "", "rows", len(kept), len(rows))
    for holds, should in zip(kept, rows, strict=False):
        for name in should:
            label = f"{should['set']}, seed {should['seed']}, {should['id']}"
            found.equal("responses made again", path, label, name, holds.get(name), should[name])


def _numbers(record: RunRecord, curve: list[CurvePoint]) -> dict[str, Any]:
    """All of a record that does not depend on when and how fast it was made."""
    names = {"run_hash", "comparison_key", "metrics", "scores", "teacher_scores", "init_scores", "models"}
    plain = record.model_dump(mode="json", include=names)
    plain["models"].pop("student_pretraining")  # it has times; what it gave is in the init student's scores
    for by_set in (plain["teacher_scores"], plain["init_scores"]):
        for one in by_set.values():
            one.pop("texts")  # what is cached may be of a version that did not keep it
    training = record.training.model_dump(mode="json", exclude={"resumes"})
    validations = {str(one.step): one.model_dump(mode="json") for one in record.validations}
    points = {str(int(point["step"])): dict(point) for point in curve}
    return {**plain, "training": training, "validations": validations, "curve": points}


def _hardware(record: RunRecord) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in sorted(record.environment.packages.items()))
    return f"{record.environment.hardware} with {packages}"
