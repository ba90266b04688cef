"""All recorded runs of a preset in one table: scores, gain over the init student, and what training cost.

    python -m paper_tables.overview

With `--regime`, whether the preset is in the paper's regime, by the criteria of docs/tiny-regime.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pandas as pd

from bench.analysis.compare import arm_key
from bench.cli.error_reporting import ErrorReporting
from bench.cli.options import OUT
from bench.config.comparable import differences
from bench.config.presets import recorded_name
from bench.config.resolve import resolve
from bench.config.sections import Config
from bench.record.record import RunRecord, mean_of_sets
from bench.record.store import Store
from bench.system.errors import BenchError
from bench.system.terminal import say
from paper_tables.numbers.regime import regimes


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
            "key": arm_key(record),
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


def regime(store: Store, preset: str) -> pd.DataFrame:
    """One row for each comparison key that has runs of SFT and KLD with the same training seeds; empty without any.

    Columns: task, models, comparison (the key's beginning), seeds; teacher, init_student, sft, kld (means over seeds on
    the test set); least_loss_at (where in training SFT's validation loss is least, the latest of the seeds'),
    sft/teacher, gap (teacher - sft), gain/gap (gain = kld - sft), spread/gap (spread = between SFT's highest and lowest
    seed), seconds (the longest training of a method that generates every batch, of runs that had the machine to
    themselves), missed (numbers of the criteria that do not hold, of those that records can tell: all but the fourth;
    "none").
    """
    return pd.DataFrame(
        {
            "task": one.task,
            "models": one.models,
            "comparison": one.comparison[:10],
            "seeds": one.seeds,
            "teacher": one.teacher,
            "init_student": one.init_student,
            "sft": one.sft,
            "kld": one.kld,
            "least_loss_at": one.least_loss_at,
            "sft/teacher": one.sft / one.teacher,
            "gap": one.gap,
            "gain/gap": one.share(one.kld - one.sft),
            "spread/gap": one.share(one.spread),
            "seconds": one.seconds,
            "missed": ", ".join(one.missed) or "none",
        }
        for one in regimes(_records(store, preset))
    )


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


@click.command(cls=ErrorReporting)
@OUT
@click.option("--preset", default="tiny", show_default=True)
@click.option("--regime", "of_regime", is_flag=True, help="Whether the preset is in the paper's regime instead.")
def main(out: Path, preset: str, of_regime: bool) -> None:
    """Print the table of a preset's recorded runs."""
    table = regime(Store(out), preset) if of_regime else overview(Store(out), preset)
    if table.empty:
        which, method = ("pair of runs of sft and kld", "sft") if of_regime else ("run", "srkl")
        raise click.UsageError(
            f"no {which} of preset {preset} in {out / 'runs'}: bench run --method {method} --task samsum"
        )
    say(table.round(2).to_string(index=False))


if __name__ == "__main__":
    main()
