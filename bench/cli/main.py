"""The command `bench`. Each sub-command is a thin call; results go to standard output, progress to standard error."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import click

from bench.cli.error_reporting import ErrorReporting, check_arguments, goes_on_if_interrupted
from bench.cli.evaluate import evaluate
from bench.cli.options import FOLDER, JSON, OUT, messages, output, prepare_to_read, warn
from bench.cli.perf import perf
from bench.cli.plan import plan
from bench.cli.plugins import CommandGroup
from bench.cli.recommend import recommend
from bench.cli.run import run
from bench.cli.tune import tune
from bench.system.errors import BenchError
from bench.system.paths import check_folder
from bench.system.processes import check_one_process, launched
from bench.system.terminal import say, say_json

MANY_RUNS = 100  # more than a reader scrolls through


class Group(ErrorReporting, CommandGroup):
    """The command `bench`, of which no option or argument is empty."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The sub-command and its words, checked."""
        name, command, words = super().resolve_command(ctx, args)
        check_arguments(words)
        if command is run:
            launched()  # refuses what no run can be started by
        else:
            check_one_process(f"bench {name}")
        return name, command, words


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="distillm-bench")
def main() -> None:
    """Distil language models with DistiLLM and every method it is compared with, under identical conditions.

    \b
    bench run --method srkl --task samsum     one distillation, recorded
    bench list methods                        what can be run
    bench compare RUN RUN                     is the difference real?
    """


main.add_command(run)
main.add_command(evaluate)
main.add_command(perf)
main.add_command(plan)
main.add_command(recommend)
main.add_command(tune)


@main.command("list")
@click.argument(
    "what", type=click.Choice(["methods", "sources", "settings", "fidelity", "tasks", "presets", "models", "runs"])
)
@click.option("--newest", type=click.IntRange(min=1), metavar="N", help="Of runs, the N begun last, these first.")
@OUT
@JSON
def list_command(what: str, newest: int | None, out: Path, as_json: bool) -> None:
    """List what can be run, or what was recorded."""
    prepare_to_read()
    from bench.cli.console_tables import listing
    from bench.record.store import Store

    console = output()
    narrow = console.is_terminal or "COLUMNS" in os.environ  # what goes into a file or a pipe has room
    rows, table = listing(what, Store(out, warn), console.width if narrow else None, newest)
    if as_json:
        say_json(rows)
    elif isinstance(table, str):  # not by the console, which takes its time over thousands of lines
        say(table)
        if newest is None and len(rows) > MANY_RUNS and console.is_terminal:
            say(f"{len(rows)} runs; --newest 20 shows those begun last", err=True)
    else:
        console.print(table)


def _print_schema(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        from bench.record.record import RunRecord

        say_json(RunRecord.model_json_schema())
        context.exit()


@main.command()
@click.argument("run_name", metavar="RUN")
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,  # instead of a run, as --help is
    expose_value=False,
    callback=_print_schema,
    help="Print the JSON schema of records and exit.",
)
@OUT
@JSON
def show(run_name: str, out: Path, as_json: bool) -> None:
    """Show a recorded run: scores, time, curve, configuration. RUN is an id, the beginning of one, or a path."""
    from bench.cli.console_tables import run_tables, show_tables
    from bench.record.store import Store

    record = Store(out, warn).find(run_name)
    if as_json:
        say_json(record.plain())
        return
    console = output()
    for part in (*run_tables(record), *show_tables(record)):
        console.print(part)


@main.command()
@click.argument("names", nargs=-1, required=True, metavar="RUN RUN | METHOD METHOD...")
@click.option("--task", help="Compare methods on this task, each with all its recorded training seeds.")
@click.option("--preset", default="tiny", show_default=True, metavar="NAME_OR_FILE", help="The scale, with --task.")
@click.option("--models", metavar="PAIR", help="The model pair, with --task.  [default: the preset's]")
@OUT
@JSON
def compare(
    names: tuple[str, ...], task: str | None, preset: str, models: str | None, out: Path, as_json: bool
) -> None:
    """Compare methods over their training seeds, or two runs, with 95 % confidence intervals.

    With --task, methods are compared within the seeds that they share; what seeds do by chance is told from all
    recorded runs that can be compared with them. Two runs have one seed each: where other seeds of their methods are
    recorded, the intervals are as wide as those make them, and else they speak of other test examples alone. Runs may
    differ in method, output source, init student and training seed, and in nothing else.

    \b
    bench compare --task samsum distillm kld gkd
    bench compare --task samsum --models tiny-t5-small distillm kld
    bench compare dolly-jsd-dataset-s40 dolly-rkld-dataset-s40
    """
    from bench.analysis.compare import ComparedRuns, below_init, compare_runs, compare_sides, method_sides
    from bench.analysis.student_outputs import none_used
    from bench.cli.console_tables import comparison_notes, comparison_table
    from bench.record.store import Store

    store = Store(out, warn)
    if task is not None:
        sides = method_sides(store, task, names, preset, models)
        rows = compare_sides(store, sides)
    elif len(names) == 2:
        first, second = map(store.find, names)
        sides, rows = [ComparedRuns(run.run_id, (run,)) for run in (first, second)], compare_runs(store, first, second)
    else:
        raise BenchError(f"give two runs, or methods and --task TASK; got {' '.join(names)}")
    if as_json:
        say_json([asdict(row) for row in rows])
        return
    console = output()
    for pair in dict.fromkeys((row.first.run, row.second.run) for row in rows):
        console.print(comparison_table([row for row in rows if (row.first.run, row.second.run) == pair]))
    unused = [f"{side.name}: {told}" for side in sides if (told := none_used(side.records))]
    for note in (*comparison_notes(sides, rows), *below_init(sides), *unused):
        console.print(note)


@main.command()
@click.option("--format", "formats", default="csv", show_default=True, metavar="LIST", help="csv, parquet, or both.")
@click.option("--to", type=FOLDER, help="Folder to write to.  [default: that of --out]")
@OUT
def export(formats: str, to: Path | None, out: Path) -> None:
    """Write all records as one tidy file: a row for each run, evaluation set, decoding seed and metric.

    \b
    run, started               the run's id and when it began (UTC)
    preset, task, models       its scale, task and model pair
    method, method_options     the method, and its options as JSON
    method_file                SHA-256 of the file that a method of your own came from; else empty
    output_source, output_source_options
                               where its responses came from, and the options of that as JSON
    init_student               what training started from: pretrained or sft
    training_seed              the seed of that training
    set, decoding_seed         the evaluation set, and the seed of its decoding
    metric, value, examples    what was measured on how many examples; the metric by its name in records
    mean_tokens, share_ended   length of the set's responses, share that ended (over all decoding seeds)
    steps, best_step           steps trained, and the step of the checkpoint that was evaluated
    training_seconds           wall-clock of training, validation and checkpoints left out
    other_load                 cores that other processes kept busy during training; empty: not known
    peak_bytes                 peak memory of the device; of the process on a CPU
    tokens_trained, tokens_generated
    student_parameters, teacher_parameters
    device, cpu, version, commit
    comparison_key             rows that share it differ in method, output source, init student and training seed only
    """
    from bench.record.export import export_records
    from bench.record.store import Store

    for path in export_records(Store(out, warn), formats, to or out):
        say(str(path))


@main.command()
@click.option("--to", type=FOLDER, required=True, metavar="FOLDER", help="Where the copies go.")
@OUT
def pack(to: Path, out: Path) -> None:
    """Copy all runs in a form small enough to publish: all texts and scores, thinner curves, no students.

    Tables, claims and figures made from the copy are the same.
    """
    from bench.record.pack import pack as pack_runs
    from bench.record.store import Store

    say(f"{len(pack_runs(Store(out, warn), to, warn))} runs in {to / 'runs'}")


@main.command()
@click.option("--data-dir", type=FOLDER, help="A data folder to look into.")
@OUT
@JSON
def doctor(data_dir: Path | None, out: Path, as_json: bool) -> None:
    """Check what is installed, which device, data and models can be reached, and say what to do about the rest."""
    from bench.cli.console_tables import doctor_table
    from bench.cli.doctor import examine
    from bench.cli.fit import say_commands

    findings = examine(out, data_dir)
    if as_json:
        say_json([asdict(finding) for finding in findings])
    else:
        output().print(doctor_table(findings))
        say_commands(finding.advice for finding in findings if finding.state != "ok")


@main.command("make-teachers")
@click.argument("tasks", nargs=-1, metavar="[TASK]...")
@click.option("--to", type=FOLDER, help="Folder to write to.  [default: the package's own]")
@click.option(
    "--only",
    type=click.Choice(["teacher", "teacher-early", "student", "student-small"]),
    help="Make this model alone.  [default: all that the task has]",
)
def make_teachers(tasks: tuple[str, ...], to: Path | None, only: str | None) -> None:
    """Train the tiny models that ship with the package again (about twenty minutes a task on one core)."""
    from bench.data import TASKS
    from bench.experiment.shipped_models import make_models
    from bench.models.loading import quiet_libraries
    from bench.system.progress import Reporter

    quiet_libraries()
    if to is not None:
        check_folder(to, "--to", write=True)
    goes_on_if_interrupted()
    for task in tasks or TASKS:
        reporter = Reporter(messages(), title=f"tiny models for {task}")
        say(f"{task}: {make_models(task, to, reporter, [only] if only else None)}")


if __name__ == "__main__":
    main()
