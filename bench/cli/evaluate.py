"""`bench evaluate`: scores of models as they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from bench.cli.error_reporting import goes_on_if_interrupted
from bench.cli.options import OUT, messages, output
from bench.system.errors import BenchError
from bench.system.terminal import say, say_json

if TYPE_CHECKING:
    from bench.config.resolve import Overrides


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--task", default="samsum", show_default=True, help="A name (`bench list tasks`) or path/to/task.yaml.")
@click.option("--preset", default="tiny", show_default=True, help="Whose data, lengths and decoding are used.")
@click.option("--device", help="auto, cpu, cuda or mps.  [default: auto]")
@click.option("--data-dir", metavar="FOLDER", help="Local data, as for `bench run`.")
@click.option("--label", metavar="NAME", help="Of a single model, its name in tables.  [default: its folder's or id's]")
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="As in `bench run`: data, evaluation, precision."
)
@OUT
@click.option("--fresh", is_flag=True, help="Score again what is recorded.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print the records as a JSON list.")
def evaluate(
    models: tuple[str, ...],
    task: str,
    preset: str,
    label: str | None,
    out: Path,
    fresh: bool,
    quiet: bool,
    as_json: bool,
    **overrides: Unpack[Overrides],
) -> None:
    """Score models as they are on a task's test sets, each as a record of its own.

    MODEL is a local folder, a hub id, smollm2, or shipped (the tiny teacher of the task). Prompts, lengths and decoding
    are those of the preset's runs, the tokenizer is the model's. `bench tables` shows each as a row, and `bench
    compare` takes it beside a run on the same data. Beside published numbers, forbid repeated 6-grams as their authors
    do: the last example.

    \b
    bench evaluate shipped --task samsum
    bench evaluate my/model-before my/model-after --task dolly --preset small --data-dir my/data
    bench evaluate MiniLLM/KD-gpt2-120M --task dolly --preset paper --set fidelity.no_repeat_ngram=true
    """
    from bench.experiment.evaluate_model import configuration, evaluate_model
    from bench.experiment.workshop import Workshop
    from bench.models.loading import quiet_libraries
    from bench.record.store import Store
    from bench.system.progress import Reporter

    if label is not None and len(models) > 1:
        raise BenchError("--label names a single model; give one MODEL, or leave it out")
    quiet_libraries()
    with messages().status("looking at the models"):
        wanted = [configuration(model, label, preset=preset, task=task, **overrides) for model in dict.fromkeys(models)]
    names = [config.models.name for config, _ in wanted]
    if twice := [name for name in names if names.count(name) > 1]:
        raise BenchError(f"two of the models are named {twice[0]}: score them one at a time, each with a --label")
    reporter = Reporter(messages(), quiet=quiet or as_json, title=f"{', '.join(names)} on {task}, preset {preset}")
    workshop = Workshop.of(reporter)
    goes_on_if_interrupted()
    with reporter.session(names):
        outcomes = [evaluate_model(config, method, Store(out), workshop, fresh=fresh) for config, method in wanted]
    if as_json:
        say_json([outcome.record.plain() for outcome in outcomes])
        return
    from bench.cli.console_tables import run_tables

    for outcome in outcomes:
        for part in run_tables(outcome.record):
            output().print(part)
        say(f"record: {outcome.folder / 'record.json'}")
