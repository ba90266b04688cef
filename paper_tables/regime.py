"""Whether recorded runs are in the paper's regime, by the criteria of docs/tiny-regime.md.

python -m paper_tables.regime
"""

from __future__ import annotations

from pathlib import Path

import click
import pandas as pd

from bench.cli.error_reporting import ErrorReporting
from bench.cli.options import OUT
from bench.config.presets import recorded_name
from bench.record.store import Store
from bench.system.terminal import say
from paper_tables.numbers.regime import regimes


def regime(store: Store, preset: str) -> pd.DataFrame:
    """One row for each comparison key that has runs of SFT and KLD with the same training seeds; empty without any.

    Columns: task, models, comparison (the key's beginning), seeds; teacher, init_student, sft, kld (means over seeds on
    the test set); least_loss_at (where in training SFT's validation loss is least, the latest of the seeds'),
    sft/teacher, gap (teacher - sft), gain/gap (gain = kld - sft), spread/gap (spread = between SFT's highest and lowest
    seed), seconds (the longest training of a method that generates every batch, of runs that had the machine to
    themselves), missed (numbers of the criteria that do not hold, of those that records can tell: all but the fourth;
    "none").
    """
    name = recorded_name(preset)
    records = (one for one in store.all(curves=False) if one.config.preset == name and one.evaluated is None)
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
        for one in regimes(records)
    )


@click.command(cls=ErrorReporting)
@OUT
@click.option("--preset", default="tiny", show_default=True)
def main(out: Path, preset: str) -> None:
    """Print, of each task and pair with runs of sft and kld, by which criteria it is in the paper's regime."""
    table = regime(Store(out), preset)
    if table.empty:
        raise click.UsageError(
            f"no pair of runs of sft and kld of preset {preset} in {out / 'runs'}: bench run --method sft --task samsum"
        )
    say(table.round(2).to_string(index=False))


if __name__ == "__main__":
    main()
