"""Does a preset carry signal? Teacher, init student and SFT student over training seeds, from recorded runs.

A comparison of methods can only show something where the teacher is clearly above what plain fine-tuning reaches and
the noise of training seeds is small against that gap. No distillation method is looked at. Usage:

    for seed in 10 20 30; do bench run --method sft --task samsum --seed $seed; done
    python -m paper_tables.signal_check
"""

from __future__ import annotations

from pathlib import Path

import click
import pandas as pd

from bench.evaluation.evaluate import mean_of_sets
from bench.record.store import Store


def signal(store: Store, preset: str) -> pd.DataFrame:
    """One row per comparison key: means and sample standard deviations over the training seeds of its SFT runs.

    Columns: task, metric, comparison (key), seeds, teacher, init, sft, sd (of sft), gap (teacher - sft), sd/gap, gain
    (sft - init). Scores are means over the task's test sets. Without such runs the table is empty.
    """
    runs = [
        {
            "task": record["config"]["task"],
            "metric": record["metric"]["name"],
            "comparison": record["comparison_key"][:10],
            "seed": record["config"]["seed"],
            "teacher": mean_of_sets(record["teacher_scores"]),
            "init": mean_of_sets(record["init_scores"]),
            "sft": mean_of_sets(record["scores"]),
        }
        for record in store.all()
        if record["config"]["preset"] == preset
        and record["config"]["method"]["name"] == "sft"
        and record["config"]["sgo"]["source"] == "dataset"
        and record["config"]["init"] == "sft"
    ]
    if not runs:
        return pd.DataFrame()
    grouped = pd.DataFrame(runs).groupby(["task", "metric", "comparison"])
    table = grouped[["teacher", "init", "sft"]].mean()
    table["seeds"] = grouped["seed"].nunique()
    table["sd"] = grouped["sft"].std()
    table["gap"] = table["teacher"] - table["sft"]
    table["sd/gap"] = table["sd"] / table["gap"]
    table["gain"] = table["sft"] - table["init"]
    return table.reset_index()


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True)
@click.option("--preset", default="tiny", show_default=True)
def main(out: Path, preset: str) -> None:
    """Print the table for the recorded SFT runs of a preset."""
    table = signal(Store(out), preset)
    if table.empty:
        raise click.UsageError(f"no SFT run of preset {preset} in {out / 'runs'}: bench run --method sft --task samsum")
    click.echo(table.round(2).to_string(index=False))


if __name__ == "__main__":
    main()
