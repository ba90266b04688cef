"""`bench run`: one distillation, recorded."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click

from bench.cli.error_reporting import goes_on_if_interrupted
from bench.cli.options import FILE, OUT, messages, output
from bench.system.errors import BenchError
from bench.system.processes import launched
from bench.system.terminal import say, say_json

if TYPE_CHECKING:
    from bench.config.resolve import Choices
    from bench.config.sections import Config
    from distillm import Method

_SETTLED = {
    "method": "--set method.OPTION=VALUE changes its options",
    "task": "--data-dir and --set data.KEY=VALUE change the data",
    "preset": "--set KEY=VALUE changes single values",
    "models": "--set models.teacher=ID_OR_FOLDER and models.student=ID_OR_FOLDER exchange the models",
    "teacher": "--set models.teacher=ID_OR_FOLDER exchanges it",
    "student": "--set models.student=ID_OR_FOLDER exchanges it",
    "sgo": "--set sgo.source=SOURCE changes the source and leaves its options",
}
"""The choices that a configuration file has made already, and what changes them there."""


BUSY = 75
"""Exit code where another process makes the run: EX_TEMPFAIL of sysexits.h."""


@click.command()
@click.option("--method", help="A name (`bench list methods`) or path/to/file.py:NAME.  [default: srkl]")
@click.option("--task", help="A name (`bench list tasks`) or path/to/task.yaml.  [default: samsum]")
@click.option("--preset", help="The scale: tiny, real, small, paper, or path/to/preset.yaml.  [default: tiny]")
@click.option("--sgo", metavar="SOURCE", help="Output source instead of the method's own (`bench list sources`).")
@click.option(
    "--init",
    metavar="STUDENT",
    help="Init student: sft (after a short supervised fine-tuning) or pretrained (as loaded).",
)
@click.option(
    "--models", metavar="PAIR", help="Pair instead of the preset's: a name (`bench list models`) or path/to/pair.yaml."
)
@click.option("--teacher", metavar="MODEL", help="With --student, a pair of your own: hub ids or local folders.")
@click.option("--student", metavar="MODEL", help="See --teacher.")
@click.option("--seed", type=int, help="Training seed.  [default: 10]")
@click.option("--device", help="auto, cpu, cuda or mps.  [default: auto]")
@click.option(
    "--data-dir", metavar="FOLDER", help="Local data: files train, validation, test as .jsonl[.gz], .json, .csv."
)
@click.option(
    "--config",
    "file",
    type=FILE,
    metavar="FILE",
    help="A whole configuration instead of the choices above: what --dry-run prints, or a record.json.",
)
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any key of `bench list settings`; repeatable."
)
@OUT
@click.option("--resume/--fresh", default=True, help="Go on where a run was left (default), or begin it again.")
@click.option(
    "--wait/--no-wait",
    default=True,
    help="Where another process makes the same run: wait for it (default), or end with exit code 75.",
)
@click.option(
    "--push-to-hub",
    metavar="OWNER/NAME",
    help="Push the student, its record and a model card to the Hugging Face hub; a recorded run's, too.",
)
@click.option(
    "--dry-run", is_flag=True, help="Check what can be checked without work, print the configuration, and stop."
)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON on standard output.")
def run(
    file: Path | None,
    out: Path,
    resume: bool,
    wait: bool,
    push_to_hub: str | None,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    **choices: Unpack[Choices],
) -> None:
    """Distil one student and record what happened.

    The same command again gives the recorded result at once; after an interruption it goes on where it was.

    \b
    bench run --method distillm --task dolly --seed 20
    bench run --method srkl --task samsum --data-dir my/samsum --set method.alpha=0.3
    bench run --method my_method.py:METHOD --sgo on-policy --set training.steps=100
    bench run --config results/runs/RUN/record.json --seed 30
    """
    config, found = _configured(file, choices)
    leads = launched().leads
    if dry_run:
        from bench.experiment.checks import examine
        from bench.experiment.recorded import at_recorded_commits

        with at_recorded_commits(config, file):
            notes = examine(config)
        _say_notes(notes)
        if leads:
            _print_configuration(config, as_json)
        return

    from bench.experiment.push import prepare_push, push
    from bench.experiment.recorded import at_recorded_commits
    from bench.experiment.run import run as make_run
    from bench.experiment.workshop import Workshop
    from bench.models.loading import quiet_libraries
    from bench.record.store import Store
    from bench.system.artifacts import Busy
    from bench.system.progress import Reporter

    quiet_libraries()
    if push_to_hub is not None and leads:
        prepare_push(push_to_hub, config.models)
    title = f"{config.method.name} x {config.sgo.source} on {config.task}, preset {config.preset}, seed {config.seed}"
    reporter = Reporter(messages(), quiet=quiet or as_json, title=title)
    workshop = Workshop.of(reporter)
    goes_on_if_interrupted()
    try:
        # what a method of the user's prints is no result
        with redirect_stdout(sys.stderr), at_recorded_commits(config, file):
            outcome = make_run(config, found, Store(out), workshop, fresh=not resume, wait=wait)
    except Busy as error:
        say(str(error), err=True)
        click.get_current_context().exit(BUSY)
    if not leads:
        return
    if push_to_hub is not None:
        url = push(push_to_hub, outcome.record, found, outcome.folder)
        say(f"pushed: {url}", err=as_json)
    if as_json:
        say_json(outcome.record.plain())
        return
    from bench.cli.console_tables import run_tables

    console = output()
    if outcome.cached:
        console.print("recorded before; --fresh makes it again", style="dim")
    for part in run_tables(outcome.record):
        console.print(part)
    console.print(f"record: {outcome.folder / 'record.json'}", soft_wrap=True)


def _configured(file: Path | None, choices: Choices) -> tuple[Config, Method]:
    """The configuration that was chosen: by names, or a whole one with what is changed of it."""
    from bench.config.resolve import resolve, resolve_again
    from bench.record.read import read_configuration

    assignments = tuple(choices.get("assignments", ()))
    if file is None:
        config, found = resolve(**choices)
        _say_notes([*too_large(config), *_without_effect(config, assignments)])
        return config, found
    for name, instead in _SETTLED.items():
        if choices.get(name) is not None:
            raise BenchError(f"--{name} does not go with --config, which has made that choice: {instead}")
    values = read_configuration(file)
    overrides: dict[str, Any] = {name: value for name, value in choices.items() if name not in _SETTLED}
    try:
        config, found = resolve_again(values, **overrides)
    except BenchError as error:
        raise BenchError(f"--config {file}: {error}") from error
    _say_notes(_without_effect(config, assignments))
    if choices.get("data_dir") is not None:
        _say_notes(_kept_sizes(values, assignments))
    return config, found


def _say_notes(notes: Iterable[str]) -> None:
    for note in notes if launched().leads else ():
        say(f"note: {note}", err=True)


def too_large(config: Config) -> Iterator[str]:
    """A note on a user's models at the preset that is taken unless one is given: its settings are for tiny ones."""
    from bench.synthetic import STUDENTS, TEACHERS

    models = config.models
    loaded = models.teacher if models.student == "teacher" else models.student
    if config.preset == "tiny" and loaded not in (*STUDENTS, *TEACHERS, "scratch"):
        yield (
            "learning rates, lengths and precision of the preset tiny are for models of a million parameters; for "
            "larger ones give --preset small, or a preset of your own"
        )


def _without_effect(config: Config, assignments: Iterable[str]) -> Iterator[str]:
    """Settings of trainings that this run does not have: nothing else would tell that they are not read."""
    taken = None if config.models.trains_teacher else f"the teacher {config.models.teacher} is taken as it is"
    unread = {
        "teacher_training.": taken,
        "init_training.": "with init pretrained there is no such training" if config.init == "pretrained" else None,
    }
    for assignment in assignments:
        for section, why in unread.items():
            if why is not None and assignment.startswith(section):
                yield f"--set {assignment} has no effect: {why}"


def _kept_sizes(values: Mapping[str, Any], assignments: Iterable[str]) -> Iterator[str]:
    """What a configuration for the data that ships says of sizes, and other data keeps unless it is told otherwise."""
    data = values.get("data", {})
    if data.get("dir") or data.get("hub"):
        return
    for key in ("max_train", "max_validation", "max_test"):
        if data.get(key) is not None and not any(one.startswith(f"data.{key}=") for one in assignments):
            yield (
                f"data.{key}={data[key]} of the configuration holds for your data too; to take all of it: "
                f"--set data.{key}=null"
            )


def _print_configuration(config: Config, as_json: bool) -> None:
    from bench.system import yaml_text
    from bench.system.hashing import digest

    values, config_hash = config.canonical(), digest(config.identity())
    if as_json:
        say_json({"config": values, "config_hash": config_hash})
        return
    say(yaml_text.dump(values).rstrip())
    say(f"# configuration hash {config_hash}; a run's id also stands for the contents of data and models")
