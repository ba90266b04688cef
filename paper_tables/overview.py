"""All recorded runs of a preset in one table: scores, gain over the init student, and what training cost.

    python -m paper_tables.overview

With `--regime`, whether the preset is in the paper's regime, by the criteria of docs/tiny-regime.md. They look at SFT
and KLD from the SFT init student and at no other method: a preset chosen by how others score would favour some.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from pathlib import Path

import click
import pandas as pd

from bench.analysis.timing import has_exclusive_timing
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


def regime(store: Store, preset: str) -> pd.DataFrame:
    """One row for each comparison key that has runs of SFT and KLD with the same training seeds; empty without any.

    Columns: task, comparison (the key's beginning), seeds; teacher, init_student, sft, kld (means over seeds on the
    test set); least_loss_at (where in training SFT's validation loss is least, the latest of the seeds'), sft/teacher,
    gap (teacher - sft), gain/gap (gain = kld - sft), spread/gap (spread = between SFT's highest and lowest seed),
    seconds (the longest training of a method that generates every batch, of runs that had the machine to themselves),
    missed (numbers of the criteria that do not hold, of those that records can tell: all but the fourth; "none").
    """
    found: dict[tuple[str, str], dict[int, RunRecord]] = {}
    longest: dict[str, float] = {}
    for record in _records(store, preset):
        config, key = record.config, record.comparison_key
        if config.sgo.source == "on-policy" and has_exclusive_timing(record):
            longest[key] = max(longest.get(key, 0.0), record.time.training_seconds)
        if (config.sgo.source, config.init) == ("dataset", "sft") and config.method.name in ("sft", "kld"):
            found.setdefault((key, config.method.name), {})[config.seed] = record
    rows = []
    for key in dict.fromkeys(key for key, _ in found):
        sft, kld = found.get((key, "sft"), {}), found.get((key, "kld"), {})
        if seeds := sorted(set(sft) & set(kld)):
            rows.append(_regime([sft[s] for s in seeds], [kld[s] for s in seeds], longest.get(key)))
    return pd.DataFrame(rows)


def _regime(sft: list[RunRecord], kld: list[RunRecord], longest: float | None) -> dict[str, object]:
    scores = [record.scores["test"].primary.mean for record in sft]
    mean, teacher = statistics.mean(scores), sft[0].teacher_scores["test"].primary.mean
    gap = teacher - mean
    gain = statistics.mean(record.scores["test"].primary.mean for record in kld) - mean
    share, spread = (gain / gap, (max(scores) - min(scores)) / gap) if gap > 0 else (math.nan, math.nan)
    least = max(_least_loss_at(record) for record in sft)
    holds = {
        "1": least < 0.6,
        "2": mean >= teacher / 2 and gap >= 6,
        "3": 1 / 10 <= share <= 2 / 3,
        "5": len(sft) > 1 and spread < 1 / 4,
        **({} if longest is None else {"time": longest <= 120}),
    }
    return {
        "task": sft[0].task,
        "comparison": sft[0].comparison_key[:10],
        "seeds": len(sft),
        "teacher": teacher,
        "init_student": statistics.mean(record.init_scores["test"].primary.mean for record in sft),
        "sft": mean,
        "kld": mean + gain,
        "least_loss_at": least,
        "sft/teacher": mean / teacher,
        "gap": gap,
        "gain/gap": share,
        "spread/gap": spread,
        "seconds": longest,
        "missed": ", ".join(name for name, met in holds.items() if not met) or "none",
    }


def _least_loss_at(record: RunRecord) -> float:
    """Where in training the validation loss is least, as a share of its steps."""
    least = min(record.validations, key=lambda one: one.loss)
    return least.step / record.validations[-1].step


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
