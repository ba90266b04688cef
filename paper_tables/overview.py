"""All recorded runs of a preset in one table: scores, gain over the init student, and what training cost.

    python -m paper_tables.overview

With `--signal`, whether the preset can tell methods apart at all: teacher, init student and SFT student over training
seeds, of the runs of `sft`. A comparison of methods can only show something where the teacher is clearly above what
SFT reaches and the noise of training seeds is small against that gap. No distillation method is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pandas as pd

from bench.cli.options import OUT
from bench.cli.told import Told
from bench.config.comparable import differences
from bench.config.presets import recorded_name
from bench.config.resolve import resolve
from bench.config.sections import Config
from bench.record.record import RunRecord, mean_of_sets
from bench.record.store import Store
from bench.system.errors import BenchError
from bench.system.hashing import digest
from bench.system.terminal import say


def overview(store: Store, preset: str) -> pd.DataFrame:
    """One row for each configuration, the training seed left out, with means over training seeds; empty without runs.

    Columns: task, metric, method, output_source, init_student, settings (what differs from the preset), seeds, score
    (mean over the task's test sets), init_score (of the init student), gain (score - init_score), seconds (of training,
    without validation), generation (its share of them).
    """
    runs = [
        {
            "task": record.task,
            "metric": record.metric.label,
            "method": record.config.method.name,
            "output_source": record.config.sgo.source,
            "init_student": record.config.init,
            "settings": ", ".join(_settings(record.config)),
            "key": digest([record.comparison_key, record.config.identity() | {"seed": None}]),
            "seed": record.seed,
            "score": mean_of_sets(record.scores),
            "init_score": mean_of_sets(record.init_scores),
            "seconds": record.time.training_seconds,
            "generation": record.time.share("generation"),
        }
        for record in _records(store, preset)
    ]
    if not runs:
        return pd.DataFrame()
    shared = ["task", "metric", "method", "output_source", "init_student", "settings", "key"]
    grouped = pd.DataFrame(runs).groupby(shared, sort=False)
    table = grouped[["score", "init_score", "seconds", "generation"]].mean()
    table.insert(0, "seeds", grouped["seed"].nunique())
    table.insert(3, "gain", table["score"] - table["init_score"])
    table = table.reset_index().drop(columns="key")
    return table.sort_values(["task", "score"], ascending=[True, False], ignore_index=True)


def signal(store: Store, preset: str) -> pd.DataFrame:
    """One row for each comparison key: means and sample standard deviations over the training seeds of its SFT runs.

    Columns: task, metric, comparison (the key's beginning), teacher, init_student, sft, seeds, sd (of sft), gap
    (teacher - sft), sd/gap, gain (sft - init_student). Scores are means over the task's test sets. Empty without runs.
    """
    runs = [
        {
            "task": record.task,
            "metric": record.metric.label,
            "comparison": record.comparison_key[:10],
            "seed": record.seed,
            "teacher": mean_of_sets(record.teacher_scores),
            "init_student": mean_of_sets(record.init_scores),
            "sft": mean_of_sets(record.scores),
        }
        for record in _records(store, preset)
        if (record.config.method.name, record.config.sgo.source, record.config.init) == ("sft", "dataset", "sft")
    ]
    if not runs:
        return pd.DataFrame()
    grouped = pd.DataFrame(runs).groupby(["task", "metric", "comparison"])
    table = grouped[["teacher", "init_student", "sft"]].mean()
    table["seeds"] = grouped["seed"].nunique()
    table["sd"] = grouped["sft"].std()
    table["gap"] = table["teacher"] - table["sft"]
    table["sd/gap"] = table["sd"] / table["gap"]
    table["gain"] = table["sft"] - table["init_student"]
    return table.reset_index()


def _records(store: Store, preset: str) -> Iterator[RunRecord]:
    name = recorded_name(preset)
    return (record for record in store.all() if record.config.preset == name and record.evaluated is None)


def _settings(config: Config) -> Iterator[str]:
    """What a run's configuration sets that its preset and method do not."""
    try:
        usual, _ = resolve(
            preset=config.preset,
            task=config.task,
            method=config.method.name,
            models=config.models.name,
            sgo=config.sgo.source,
            init=config.init,
        )
    except BenchError:  # a method or pair that is not installed here
        return
    for key, _, given in differences(usual.identity(), config.identity()):
        if key not in ("seed", "device"):
            yield f"{key}={given}"


@click.command(cls=Told)
@OUT
@click.option("--preset", default="tiny", show_default=True)
@click.option("--signal", "signal_only", is_flag=True, help="Compare teacher, init student and SFT student instead.")
def main(out: Path, preset: str, signal_only: bool) -> None:
    """Print the table of a preset's recorded runs."""
    table = signal(Store(out), preset) if signal_only else overview(Store(out), preset)
    if table.empty:
        which, method = ("SFT run", "sft") if signal_only else ("run", "srkl")
        raise click.UsageError(
            f"no {which} of preset {preset} in {out / 'runs'}: bench run --method {method} --task samsum"
        )
    say(table.round(2).to_string(index=False))


if __name__ == "__main__":
    main()
