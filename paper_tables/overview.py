"""Every recorded run of a preset in one table: scores, gain over the init student, and what training cost. Usage:

for task in dolly samsum iwslt; do for method in sft kld seqkd imitkd gkd minillm distillm; do
    bench run --method $method --task $task
done; done
python -m paper_tables.overview

Runs that differ in more than the training seed have rows of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pandas as pd

from bench.config.resolve import resolve
from bench.evaluation.evaluate import mean_of_sets
from bench.record.store import Store
from bench.system.errors import BenchError
from bench.system.hashing import digest


def grid(store: Store, preset: str) -> pd.DataFrame:
    """One row per configuration, the training seed left out, with means over training seeds; empty without runs.

    Columns: task, metric, method, source, start, settings (what differs from the preset), seeds, score (mean over the
    task's test sets), init, gain (score - init), seconds (of training, without validation), generation (share of them).
    """
    runs = []
    for record in store.all():
        config, time = record["config"], record["time"]
        if config["preset"] != preset:
            continue
        runs.append(
            {
                "task": config["task"],
                "metric": record["metric"]["name"],
                "method": config["method"]["name"],
                "source": config["sgo"]["source"],
                "start": config["init"],
                "settings": ", ".join(_settings(config)),
                "key": digest([record["comparison_key"], {k: v for k, v in config.items() if k != "seed"}]),
                "seed": config["seed"],
                "score": mean_of_sets(record["scores"]),
                "init": mean_of_sets(record["init_scores"]),
                "seconds": time["training_seconds"],
                "generation": time["phases"]["generation"] / time["training_seconds"],
            }
        )
    if not runs:
        return pd.DataFrame()
    shared = ["task", "metric", "method", "source", "start", "settings", "key"]
    grouped = pd.DataFrame(runs).groupby(shared, sort=False)
    table = grouped[["score", "init", "seconds", "generation"]].mean()
    table.insert(0, "seeds", grouped["seed"].nunique())
    table.insert(3, "gain", table["score"] - table["init"])
    table = table.reset_index().drop(columns="key")
    return table.sort_values(["task", "score"], ascending=[True, False], ignore_index=True)


def _settings(config: Mapping[str, Any]) -> Iterator[str]:
    """What a run's configuration sets that its preset and method do not."""
    try:
        usual, _ = resolve(
            preset=config["preset"],
            task=config["task"],
            method=config["method"]["name"],
            models=config["models"]["name"],
            sgo=config["sgo"]["source"],
            init=config["init"],
        )
    except BenchError:  # a method or pair that is not installed here
        return
    yield from _differing(usual.canonical(), {k: v for k, v in config.items() if k not in ("seed", "device")})


def _differing(usual: Mapping[str, Any], given: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, value in given.items():
        if isinstance(value, Mapping) and isinstance(usual.get(name), Mapping):
            yield from _differing(usual[name], value, f"{path}{name}.")
        elif usual.get(name) != value:
            yield f"{path}{name}={value}"


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True)
@click.option("--preset", default="tiny", show_default=True)
def main(out: Path, preset: str) -> None:
    """Print the table for the recorded runs of a preset."""
    table = grid(Store(out), preset)
    if table.empty:
        raise click.UsageError(f"no run of preset {preset} in {out / 'runs'}: bench run --method srkl --task samsum")
    click.echo(table.round(2).to_string(index=False))


if __name__ == "__main__":
    main()
