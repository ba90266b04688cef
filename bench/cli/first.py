"""What `make run` does: DistiLLM beside a baseline on one task, and what the numbers mean.

python -m bench.cli.first
"""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli.error_reporting import ErrorReporting, goes_on_if_interrupted
from bench.cli.options import OUT, messages, output
from bench.record.record import RunRecord
from bench.record.store import Store

TASK, BASELINE, METHOD = "samsum", "kld", "distillm"


@click.command(cls=ErrorReporting)
@OUT
def main(out: Path) -> None:
    """Distil two students under the same conditions, and compare them."""
    from bench.config.resolve import resolve
    from bench.experiment.run import run
    from bench.experiment.workshop import Workshop
    from bench.models.loading import quiet_libraries
    from bench.system.progress import Reporter

    quiet_libraries()
    goes_on_if_interrupted()
    store, records = Store(out), []
    for method in (BASELINE, METHOD):
        config, found = resolve(preset="tiny", task=TASK, method=method)
        reporter = Reporter(messages(), title=f"{method} on {TASK}, preset tiny, seed {config.seed}")
        workshop = Workshop.of(reporter)
        records.append(run(config, found, store, workshop).record)
    show(store, *records)


def show(store: Store, baseline: RunRecord, record: RunRecord) -> None:
    """Print the scores of both students, whether they differ, and what to do next."""
    from bench.analysis.compare import compare_runs
    from bench.cli.console_tables import comparison_table, scores_of

    label = record.metric.label
    parts = (record.teacher_scores, record.init_scores, baseline.scores, record.scores)
    shown = [part["test"] for part in parts]
    rows = compare_runs(store, record, baseline)
    (found,) = (row for row in rows if row.set == "test" and row.label == label)
    better = "better" if found.difference > 0 else "worse"
    real = (
        f"These two students differ by more than the choice of test examples: {record.config.method.name} is {better}."
        if found.low > 0 or found.high < 0
        else "The interval of the difference includes 0: neither student is shown to be better."
    )
    console = output()
    console.print()
    names = (baseline.config.method.name, record.config.method.name)
    console.print(scores_of(dict(zip(("teacher", "init student", *names), shown, strict=True)), label))
    console.print(comparison_table(rows))
    seconds = baseline.seconds + record.seconds
    console.print(
        f"\nMeasured: {label} in percent on {shown[-1].examples} test examples of {record.task} "
        f"({record.data.source}); higher is better, and ± is the standard deviation over decoding seeds. The teacher "
        "is the model that is distilled. The init student is where both students start, after a short fine-tuning; a "
        f"method should end above it. {real} Another training seed of one method often differs as much, so run "
        f"several; and models of {record.models.student_parameters:,} parameters say little about large ones. Both "
        f"runs took {seconds:.0f} s when they were made; they are recorded in {store.runs}.\n"
    )
    console.print("Next, after `source .venv/bin/activate`:")
    for what, command in NEXT.items():
        console.print(f"  {command.format(run=record.run_id)}\n      {what}", soft_wrap=True)


NEXT = {
    "another method under the same conditions": "bench run --method srkl --task samsum",
    "another training seed": "bench run --method distillm --task samsum --seed 20",
    "all that is recorded of a run": "bench show {run}",
    "what else can be run": "bench list methods",
}
"""Commands to go on with, by what they are for."""


if __name__ == "__main__":
    main()
