"""`bench tune`: each method's learning rate, with one budget for all."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.error_reporting import goes_on_if_interrupted
from bench.cli.options import FILE, OUT, messages
from bench.system.errors import BenchError
from bench.system.paths import check_folder
from bench.system.terminal import say

if TYPE_CHECKING:
    from bench.config.sections import Config
    from bench.config.tuned import TunedMethod
    from bench.record.record import RunRecord
    from distillm import Method

TRIALS = "tuning"
"""Folder below --out where trials are recorded, apart from the runs of tables."""
MOST_TRIALS = 64


@click.command()
@click.option("--task", "tasks", multiple=True, default=["samsum"], show_default=True, help="Tune on it; repeatable.")
@click.option("--methods", metavar="LIST", help="Tune these, such as kld,gkd.  [default: all of `bench list methods`]")
@click.option(
    "--trials",
    type=click.IntRange(1, MOST_TRIALS),
    help="Settings to try of each method on each task.  [default: 4]",
)
@click.option(
    "--rates", metavar="LIST", help="Factors of the preset's rate, in place of those of --trials: such as 0.5,1,2,4."
)
@click.option(
    "--seed", "seeds", type=click.IntRange(0), multiple=True, default=[10], show_default=True, help="Training seeds."
)
@click.option("--space", type=FILE, help="Try an option of single methods too: a YAML file, see above.")
@click.option("--preset", default="tiny", show_default=True, metavar="NAME_OR_FILE", help="Whose settings are tuned.")
@click.option("--models", metavar="PAIR", help="Tune with this model pair.  [default: the preset's for the task]")
@click.option("--device", help="auto, cpu, cuda or mps.  [default: auto]")
@click.option("--data-dir", metavar="FOLDER", help="Local data, as for `bench run`.")
@click.option(
    "--to", type=FILE, help="The preset to write.  [default: OUT/tuning/PRESET-tuned.yaml, with --models -PAIR in it]"
)
@OUT
@click.option("--dry-run", is_flag=True, help="Print what would be tried, and stop.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def tune(
    tasks: tuple[str, ...],
    methods: str | None,
    trials: int | None,
    rates: str | None,
    seeds: tuple[int, ...],
    space: Path | None,
    preset: str,
    models: str | None,
    device: str | None,
    data_dir: str | None,
    to: Path | None,
    out: Path,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Tune each method's learning rate with the same number of trials, on validation examples only.

    A trial is a run that is scored on the validation examples in place of the test sets. Of 4 trials the rates are
    1/4, 1/2, 1 and 2 times what the preset gives the method. Trials are recorded in OUT/tuning, apart from other runs;
    those that are recorded are not made again, and after Ctrl-C or a crash the same command goes on. A trial that
    diverges counts as the worst.

    The best settings go, with every trial's score, into a preset that extends the one that was tuned. `bench run` and
    `bench suite` take it; tables say below that their methods are tuned, and with how many trials. The untuned preset
    gives the tables at one rate for all.

    With --space each of some methods tries one option of its own, out of the same number of trials: two values of
    alpha leave two rates of four. The file is such as `options: {distillm: {alpha: [0.05, 0.1]}}`.

    Where many of the best rates are the greatest or the least that were tried, --rates tries more, of every method:
    what is recorded counts.

    \b
    bench tune --task samsum --methods kld,distillm
    bench tune --task dolly --task samsum --task iwslt --trials 4 --dry-run
    bench tune --task dolly --rates 0.25,0.5,1,2,4,8
    bench suite main --task dolly --preset results/tuning/tiny-tuned.yaml
    """
    from bench.config.presets import recorded_name
    from bench.config.registry import methods as known_methods
    from bench.experiment.tune import check_target, plan_studies, rates_of_trials, write_tuned
    from bench.experiment.tune import tune as run_study

    chosen = sorted(known_methods()) if methods is None else [name.strip() for name in methods.split(",")]
    for what, given in (("--task", tasks), ("--methods", chosen), ("--seed", seeds)):
        if not all(map(str, given)) or len(set(given)) < len(given):
            raise BenchError(f"{what} {','.join(map(str, given))}: give each once")
    if rates is not None and trials is not None:
        raise BenchError("give --rates or --trials, not both: each rate is a trial")
    factors = rates_of_trials(4 if trials is None else trials) if rates is None else _factors(rates)
    studies = plan_studies(
        preset, tasks, chosen, factors, seeds, device=device, data_dir=data_dir, space_file=space, models=models
    )
    trials = len(factors)
    of_pair = f"-{recorded_name(models)}" if models else ""
    to = to or out / TRIALS / f"{recorded_name(preset)}-tuned{of_pair}.yaml"
    check_target(to, studies)
    check_folder(out / TRIALS / "runs", "--out", write=not dry_run)
    count = len(studies) * trials * len(seeds)
    if dry_run:
        for study in studies:
            tried = "; ".join(f"{key} {', '.join(f'{value}' for value in v)}" for key, v in study.space.items())
            say(f"{study.task} {study.method}: {tried}")
        say(f"{count} runs: {trials} trials of {len(studies)} methods and tasks, training seeds {_list(seeds)}")
        return
    make = _Maker(out / TRIALS, count, quiet)
    goes_on_if_interrupted()
    for study in studies:
        found = run_study(study, make)
        name = study.run({}, seeds[0])[0].method.name
        write_tuned(to, study, found, name)
        say(f"{study.task} {name}: {_told(found)}")
    # of one task its own table, of the methods that have a rate; the suite refuses the others
    own = [f"--task {tasks[0]}"] * (len(tasks) == 1) + [f"--models {models}"] * bool(models)
    only = [f"--only {name}" for name in chosen] if methods is not None else []
    say(f"tuned preset: {to}; next: {' '.join(['bench suite main', *own, *only, f'--preset {to} --out {out}'])}")


class _Maker:
    """Makes the runs of trials in this process, and counts them."""

    def __init__(self, out: Path, count: int, quiet: bool) -> None:
        from bench.models.loading import quiet_libraries
        from bench.record.store import Store

        quiet_libraries()
        self.store, self.count, self.quiet, self.done = Store(out), count, quiet, 0

    def __call__(self, config: Config, method: Method) -> RunRecord:
        from bench.experiment.run import run
        from bench.experiment.workshop import Workshop
        from bench.system.progress import Reporter

        self.done += 1
        title = f"run {self.done} of {self.count}: {config.method.name} on {config.task}, seed {config.seed}"
        title += f", learning rate {config.training.learning_rate:g}"
        reporter = Reporter(messages(), quiet=self.quiet, title=title)
        workshop = Workshop.of(reporter)
        with redirect_stdout(sys.stderr):  # what a method of the user's prints is no result
            return run(config, method, self.store, workshop).record


def _factors(given: str) -> list[float]:
    try:
        found = [float(word) for word in given.split(",")]
    except ValueError:
        found = []
    if not found or len(found) > MOST_TRIALS or found != sorted(set(found)) or not all(0 < one < 1e6 for one in found):
        raise BenchError(f"--rates {given}: expected rising factors of the preset's rate, such as 0.25,0.5,1,2,4,8")
    return found


def _told(found: TunedMethod) -> str:
    """What was chosen and what else was tried, in a line."""
    tried = "; ".join(
        f"{_list(one.values.values())}: {f'{one.mean:.2f}' if one.scores else 'diverged'}" for one in found.tried
    )
    chosen = ", ".join(f"{key} = {value}" for key, value in found.chosen.items())
    edge = f"; {_list(found.at_the_edge)} at the edge, better may lie beyond" if found.at_the_edge else ""
    return f"{chosen} ({found.metric} on validation: {tried}){edge}"


def _list(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
