"""`bench verify`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.options import FOLDER, JSON, messages, prepare_to_read
from bench.cli.tune import TRIALS
from bench.system.errors import BenchError
from bench.system.terminal import say, say_json

if TYPE_CHECKING:
    from bench.record.record import RunRecord
    from bench.record.store import Store
    from paper_tables.verify.found import Findings
    from paper_tables.verify.runs import Examples

SHOWN = 50  # cells that are wrong, and reasons for what was not checked


@click.command()
@click.argument("folder", type=FOLDER, default=Path("results"))
@click.option("--rerun", metavar="N|RUN", help="Make N sampled runs, or one run, again and compare them bit for bit.")
@JSON
@click.pass_context
def verify(context: click.Context, folder: Path, rerun: str | None, as_json: bool) -> None:
    """Check a results folder against itself: scores from texts, tables and verdicts from records.

    FOLDER is one that has runs in it (OUT of other commands), or a folder of such folders. Each response that a run
    keeps is scored again, by every metric. Runs with the same teacher or init student must have the same scores of it.
    Each table, verdict, figure's data and report that is there is made again in memory and compared cell by cell. So
    are presets of `bench tune` with the records of their trials. What cannot be checked, such as records without a
    checksum, runs packed without texts or data that is not at hand, is counted and named. Nothing in the folder is
    written.

    The exit code is 1 if anything is wrong: file, row, column, what is there and what should be are printed. With
    --rerun, runs are also made again in a temporary folder, which takes as long as they did. Then every score, response
    and point of their curves must be equal to the last bit. Other hardware or libraries may round differently; they are
    named.

    \b
    bench verify results/paper-tiny
    bench verify --rerun 2
    bench verify results/paper-tiny --rerun dolly-kld-dataset-s40
    """
    prepare_to_read()
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from bench.record.store import RECORD, Store
    from paper_tables.verify.files import check_files
    from paper_tables.verify.found import Findings
    from paper_tables.verify.runs import Examples, SharedScores, check_run
    from paper_tables.verify.tuning import check_tuned

    roots = [folder] if (folder / "runs").is_dir() else sorted(path.parent for path in folder.glob("*/runs"))
    roots = [place for root in roots for place in (root, root / TRIALS)]
    stores = [
        store for store in (Store(root, changed_too=True) for root in roots) if any(store.runs.glob(f"*/{RECORD}"))
    ]
    if not stores:
        raise BenchError(f"{folder}: no records in it; make some with bench run or bench suite, or give another folder")
    if rerun is not None and len([store for store in stores if store.root.name != TRIALS]) > 1:
        raise BenchError("--rerun takes one results folder: give the folder that has the runs in it")
    again = []
    if rerun is not None:
        from paper_tables.verify.rerun import chosen_runs  # imports torch

        again = chosen_runs(stores[0], rerun)
    found, examples, shared = Findings(), Examples(), SharedScores()
    of_stores: dict[Path, dict[str, RunRecord]] = {}
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=messages(), transient=True) as bar:
        for store in stores:
            store.warn = partial(found.unreadable, store.runs)
            records = {}
            task = bar.add_task(f"runs of {store.root}", total=sum(1 for _ in store.runs.glob(f"*/{RECORD}")))
            for record in store.all():
                check_run(store, record, examples, found)
                shared.add(store.folder(record.run_id) / RECORD, record)
                records[record.run_id] = record
                found.checked["records"] += 1
                bar.advance(task)
            of_stores[store.root] = records
        shared.check(found)
        of_records = len(found.wrong)
        files = bar.add_task("derived files", total=None)
        for store in stores:
            store.warn = lambda _: None  # what it would tell was told when the records were first read
            records = of_stores[store.root]
            check_tuned(store, records, found)
            for what in check_files(store, list(records.values()), found):
                bar.update(files, description=what)
        if of_records:  # what is made of a wrong record is no reason to doubt the file
            found.follow_ups, found.wrong = found.wrong[of_records:], found.wrong[:of_records]
    if again:
        _make_again(stores[0], again, examples, found)
    if as_json:
        say_json(found.plain())
    else:
        _tell(found)
    if found.wrong:
        context.exit(1)


def _make_again(store: Store, runs: Sequence[RunRecord], examples: Examples, found: Findings) -> None:
    from bench.models.loading import quiet_libraries
    from bench.system.progress import Reporter
    from paper_tables.verify.rerun import check_rerun

    quiet_libraries()
    for number, record in enumerate(runs, start=1):
        title = f"{record.run_id} again ({number} of {len(runs)})"
        check_rerun(store, record, examples, Reporter(messages(), title=title), found)


def _tell(found: Findings) -> None:
    for what, count in found.checked.items():
        say(f"checked: {count:,} {what}")
    for what, count in list(found.unchecked.items())[:SHOWN]:
        say(f"not checked: {what}" + (f" ({count:,})" if count > 1 else ""))
    if len(found.unchecked) > SHOWN:
        say(f"not checked: {len(found.unchecked) - SHOWN:,} more; --json has all")
    for one in found.wrong[:SHOWN]:
        say(f"wrong: {one}")
    if len(found.wrong) > SHOWN:
        say(f"and {len(found.wrong) - SHOWN:,} more cells; --json has all")
    if found.follow_ups:
        say(
            f"{len(found.follow_ups):,} cells of files that are made of these records differ, too (--json has them); "
            "once the records are mended, the same command names those that are wrong by themselves"
        )
    unsealed = f"; records without a checksum: {found.unsealed:,}" if found.unsealed else ""
    say((f"{len(found.wrong):,} wrong" if found.wrong else "all that was checked holds") + unsealed)
