"""Every recorded run of a preset in one table: scores, gain over the init student, and what training cost. Usage:

for task in dolly samsum iwslt; do for method in sft kld seqkd imitkd gkd minillm distillm; do
    bench run --method $method --task $task
done; done
python -m paper_tables.grid
"""

from __future__ import annotations

from pathlib import Path

import click
import pandas as pd

from bench.evaluation import mean_of_sets
from bench.store import Store


def grid(store: Store, preset: str) -> pd.DataFrame:
    """One row per task, method, output source and start, means over training seeds; empty without runs.

    Columns: task, metric, method, source, start, seeds, score (mean over the task's test sets), init, gain (score -
    init), seconds (of training, without validation), generation (share of them).
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
                "seed": config["seed"],
                "score": mean_of_sets(record["scores"]),
                "init": mean_of_sets(record["init_scores"]),
                "seconds": time["training_seconds"],
                "generation": time["phases"]["generation"] / time["training_seconds"],
            }
        )
    if not runs:
        return pd.DataFrame()
    grouped = pd.DataFrame(runs).groupby(["task", "metric", "method", "source", "start"], sort=False)
    table = grouped[["score", "init", "seconds", "generation"]].mean()
    table.insert(0, "seeds", grouped["seed"].nunique())
    table.insert(3, "gain", table["score"] - table["init"])
    return table.reset_index().sort_values(["task", "score"], ascending=[True, False], ignore_index=True)


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
