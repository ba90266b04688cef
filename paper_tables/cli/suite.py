"""`bench suite`."""

from __future__ import annotations

import io
import json
import signal
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.error_reporting import goes_on_if_interrupted
from bench.cli.options import FOLDER, OUT, FiniteRange, messages, output, warn
from bench.cli.plan import planning_options, report
from bench.system.errors import BenchError, did_you_mean
from bench.system.files import write_bytes
from bench.system.paths import check_folder
from bench.system.terminal import say
from paper_tables.cli.options import parse_seeds, parse_shard

if TYPE_CHECKING:
    from paper_tables.suite.plan import SuitePlan
    from paper_tables.suite.progress import SuiteGrid
    from paper_tables.suite.ray_executor import Cluster
    from paper_tables.suite.time_limit import TimeLimit


def _could_show(suite: str, preset: str, seeds: int, out: Path, task: str | None, models: str | None) -> Iterator[str]:
    """By table of a suite, which differences so many seeds would show, as far as recorded runs tell."""
    from bench.analysis.significance import MOST_SEEDS
    from bench.record.store import Store
    from paper_tables.numbers.cells import visible_differences
    from paper_tables.numbers.runs import RunIndex
    from paper_tables.paper.suites import tables_of

    try:
        index = RunIndex(Store(out), preset, task=task, models=models)
    except BenchError:
        yield f"nothing is recorded in {out} of the noise of seeds: what {seeds} of them could show is not known"
        return
    if seeds < 2:
        yield "one training seed tells nothing of others: no difference between methods could be shown"
        return
    yield (
        f"{seeds} seeds would show these differences to the best, and so many seeds one point (80 % power, held to the "
        "range of a column's methods as below tables, by the noise of recorded runs):"
    )
    for name in tables_of(suite):
        table = index.table(name)
        try:
            found = visible_differences(table, index.select(table), seeds)
        except BenchError:
            found = {}
        shown = ", ".join(
            f"{label} {one.difference:.2f} (1 point: {one.seeds or f'over {MOST_SEEDS}'})"
            for label, one in found.items()
        )
        yield f"  {table.file}: {shown or 'not known, no two methods with two comparable seeds are recorded'}"


def _as_long_as(
    method: str, suite: str, preset: str, only: tuple[str, ...], out: Path, *, write: bool, replan: bool
) -> str:
    """The preset file with every method's steps in the time of one; made where it lacks a pair of the suite."""
    from bench.config.presets import recorded_name
    from bench.config.registry import methods
    from bench.record.store import Store
    from bench.system import yaml_text
    from paper_tables.numbers.runs import RunIndex
    from paper_tables.paper.suites import run_specs, tables_of
    from paper_tables.suite.equal_time import AS_LONG_AS, equal_time_preset, write_preset

    if method not in methods():
        raise BenchError(f"--equal-time: unknown method {method!r}: {did_you_mean(method, methods())}")
    path = out / f"{recorded_name(preset)}{AS_LONG_AS}{method}.yaml"
    planned = yaml_text.read(path).get("pairs", {}) if path.exists() else {}
    specs = [spec for spec in run_specs(suite, preset) if not only or spec.method in (*only, method)]
    wanted = {(recorded_name(spec.models), spec.method) for spec in specs}
    if not replan and all(one in planned.get(models, {}).get("methods", {}) for models, one in wanted):
        return str(path)
    if replan and not write:
        raise BenchError(f"--replan writes {path}: give it without --dry-run, --plan and --status")
    if not write:
        raise BenchError(f"{path} is not planned yet: the same command without --dry-run, --plan and --status plans it")
    write_preset(path, equal_time_preset(RunIndex(Store(out), preset), tables_of(suite), method, only), replan=replan)
    say(f"planned: {path}")
    return str(path)


@click.command()
@click.argument("name", metavar="SUITE")
@click.option(
    "--preset",
    default="tiny",
    show_default=True,
    metavar="NAME_OR_FILE",
    help="The scale: tiny, real, small, paper, or a file of yours.",
)
@click.option("--seeds", default="10,20,30", show_default=True, metavar="LIST", help="Training seeds.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs at a time.")
@click.option("--only", multiple=True, metavar="METHOD", help="Runs of this method only; repeatable.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="For every run, as in `bench run`.")
@click.option(
    "--times/--no-times", default=True, help="Run what is timed with nothing else on the machine (default), or do not."
)
@click.option("--data-dir", type=FOLDER, help="Local data for every run, as in `bench run`.")
@click.option("--task", metavar="NAME_OR_FILE", help="Ask the same of this task, such as your own, alone.")
@click.option("--models", metavar="PAIR", help="With --task, the model pair.  [default: the preset's]")
@click.option(
    "--minutes",
    type=FiniteRange(min=0, min_open=True),
    metavar="N",
    help="End within N minutes: begin only runs that fit, stop what does not, pack what is recorded.",
)
@click.option(
    "--equal-time",
    metavar="METHOD",
    help="Give each method as many steps as take the recorded time of this one, and make those runs.",
)
@click.option("--replan", is_flag=True, help="With --equal-time: plan steps anew, from the times recorded now.")
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Make the runs on this machine, or on the nodes of a Ray cluster (extra `cluster`).",
)
@click.option(
    "--address", default="auto", show_default=True, help="Of the Ray cluster: auto, or HOST:PORT of its head."
)
@click.option(
    "--shard", metavar="I/N", help="Make the I-th of N parts, such as 2/4: each machine a part, on one shared folder."
)
@click.option("--status", "show_status", is_flag=True, help="Print what is recorded, being made, stopped; and stop.")
@click.option("--dry-run", is_flag=True, help="Print the plan, what its seeds could show, and its commands.")
@click.option(
    "--plan", "plan_runs", is_flag=True, help="Print what the runs left take, as `bench plan` does, and stop."
)
@planning_options
@OUT
def suite(
    name: str,
    preset: str,
    seeds: str,
    jobs: int,
    only: tuple[str, ...],
    settings: tuple[str, ...],
    times: bool,
    data_dir: Path | None,
    task: str | None,
    models: str | None,
    minutes: float | None,
    equal_time: str | None,
    replan: bool,
    executor: str,
    address: str,
    shard: str | None,
    show_status: bool,
    dry_run: bool,
    plan_runs: bool,
    device: str | None,
    memory_gib: float | None,
    price: float | None,
    calibrate: bool | None,
    out: Path,
) -> None:
    """Make all runs that a table or figure needs, and skip those that are recorded.

    SUITE is table1 to table5, main, figures, appendix (or one of its ablations: alpha, sgo-ratio, init-student,
    buffer-capacity), or paper: all of these. Runs that several tables share are made once. A failed run does not
    stop the others; it is reported at the end (exit code 1). After Ctrl-C or a crash, the same command goes on.
    Several commands on one folder share the runs out among them.

    Training times in tables and claims come only from runs that had the machine to themselves, all on the same
    hardware. With --jobs above 1, the runs whose time is shown are therefore made first, one at a time: those of the
    main table and Table 2 at the first seed, those that a claim rests on at every seed. On as many GPUs as jobs, with
    two cores for each, they go side by side. Recorded runs whose time does not count are made again.

    With several GPUs and --jobs, each run has a GPU of its own. Several machines on one shared folder need nothing but
    the same command on each, or --executor ray; where locks do not reach from one to the other, each takes a part with
    --shard. --status shows how far all of them are.

    With --minutes the runs come in the order of the plan, of which the first makes what others need: teacher,
    pretrained student, init student. A run begins if runs like it were short enough; what the limit stops goes on next
    time. All that is recorded goes into OUT/packed.tar.gz, as `bench pack` copies it: `tar -xzf packed.tar.gz -C
    results` elsewhere gives a results folder.

    With --task and --models the runs are those of another task or model pair, which `bench tables`, `claims` and
    `report` with the same two options show: what the paper has on Dolly, on a task of yours.

    With --equal-time, the recorded runs say how many steps each method makes in the time that one of them takes, what
    it needs before its training included. The steps go into a preset, OUT/PRESET-as-long-as-METHOD.yaml, and the runs
    are made with it; the table is that of `bench tables SUITE --preset` with this file. Its steps stay when a run is
    timed again; --replan takes the times recorded now, and makes the runs whose steps change.

    \b
    bench suite table1 --seeds 10
    bench suite main --preset real --data-dir data --minutes 9
    bench suite paper --jobs 2
    bench suite table1 --preset paper --plan --memory-gib 40
    bench suite main --preset small --only distillm --only gkd --dry-run
    bench suite main --equal-time distillm
    bench suite main --preset paper --task dolly --models openllama2-7b-to-openllama2-3b
    bench suite table1 --task my.yaml --data-dir my/data
    bench suite paper --shard 2/4 --out shared/results
    bench suite paper --executor ray --address HOST:6379 --out shared/results
    """
    from bench.config.presets import read_preset
    from bench.record.store import Store
    from bench.system.environment import this_machine
    from paper_tables.paper.own_task import own_task
    from paper_tables.paper.suites import run_specs, timed_specs
    from paper_tables.suite.executors import has_gpu_each
    from paper_tables.suite.plan import make_plan
    from paper_tables.suite.progress import SuiteGrid, describe, status
    from paper_tables.suite.ray_executor import connected, kind_of_node
    from paper_tables.suite.time_limit import TimeLimit

    began = time.monotonic()
    if data_dir is not None:
        settings = (*settings, f"data.dir={json.dumps(str(data_dir), ensure_ascii=False)}", "data.hub=false")
    wanted, part = parse_seeds(seeds), parse_shard(shard)
    _check_together(models=models, task=task, equal_time=equal_time, replan=replan)
    makes = not (dry_run or plan_runs or show_status)
    check_folder(out / "runs", "--out", write=makes)
    cluster = None
    if executor == "ray" and minutes is not None:
        raise BenchError("--minutes goes with --executor local only: a cluster has queues for that")
    if executor == "ray" and makes:
        cluster = click.get_current_context().with_resource(connected(address))
        jobs = cluster.jobs
    with messages().status("reading runs"):
        records = list(Store(out, warn).all())
    if equal_time is not None:
        preset = _as_long_as(equal_time, name, preset, only, out, write=makes, replan=replan)
    own = None if task is None else own_task(task, preset, models)
    plan = make_plan(
        run_specs(name, preset, own),
        timed_specs(preset, own),
        records,
        preset=preset,
        seeds=wanted,
        jobs=jobs,
        only=only,
        settings=settings,
        times=times,
        here=this_machine() if cluster is None else kind_of_node(cluster),
        shard=part,
        gpu_each=executor == "local" and jobs > 1 and has_gpu_each(jobs),
    )
    if show_status:
        output().print(SuiteGrid(plan, jobs, output()).table())
        for line in status(plan, Store(out)):
            say(line)
        return
    if plan_runs:
        _print_costs(plan, device, memory_gib, price, calibrate)
        return
    _check_at_hand(plan)
    for line in describe(plan, jobs):
        output().print(line)
    if dry_run:
        with messages().status("what the seeds could show"):
            told = list(_could_show(name, preset, len(wanted), out, task, own.models if own else None))
        for line in told:
            output().print(line)
        for run in plan.to_do:
            say(run.spec.command(preset, run.seed))
        return
    limit = None if minutes is None else TimeLimit(minutes, Store(out), read_preset(preset).name, began)
    grid = SuiteGrid(plan, jobs, messages())
    goes_on_if_interrupted()
    _make_runs(grid, out, limit, cluster)
    if limit is not None:
        _pack(out)
    _summarise(grid, out, limit)


def _check_together(*, models: str | None, task: str | None, equal_time: str | None, replan: bool) -> None:
    """Refuse options that mean nothing without, or beside, another.

    Raises:
        BenchError: which they are.
    """
    if models is not None and task is None:
        raise BenchError(f"--models {models} goes with --task: name the task, such as --task dolly")
    if replan and equal_time is None:
        raise BenchError("--replan goes with --equal-time")
    if equal_time is not None and task is not None:
        raise BenchError("--equal-time goes with the paper's tasks and pairs only: leave out --task")


def _print_costs(
    plan: SuitePlan, device: str | None, memory_gib: float | None, price: float | None, calibrate: bool | None
) -> None:
    """What the runs left take, as `bench plan` prints it: a row a run spec, times its seeds."""
    from paper_tables.suite.progress import names_of

    configs = {run.spec: run.spec.config(plan.preset, run.seed) for run in plan.to_do}
    seeds_of, names = Counter(run.spec for run in plan.to_do), names_of(configs)
    named = {names[spec]: config for spec, config in configs.items()}
    counts = {names[spec]: seeds_of[spec] for spec in configs}
    report(named, device, memory_gib, price, calibrate, as_json=False, times=counts)


def _check_at_hand(plan: SuitePlan) -> None:
    """Refuse a suite whose data, texts or models are not at hand, before its first run.

    Raises:
        BenchError: what is missing.
    """
    from bench.experiment.examples import check_pretraining_text, require_real
    from bench.experiment.identity import SIDES, model_path

    for run in {(run.spec.task, run.spec.models): run for run in plan.to_do}.values():
        config = run.spec.config(plan.preset, run.seed)
        require_real(config.data, config.task)
        check_pretraining_text(config)
        for side in SIDES:
            model_path(config, side)  # refuses where the package of SmolLM2 is missing


def _make_runs(grid: SuiteGrid, out: Path, limit: TimeLimit | None, cluster: Cluster | None) -> None:
    """Make the runs of a grid's plan, here or on a cluster, and show them."""
    from paper_tables.suite.executors import run_locally
    from paper_tables.suite.ray_executor import run_on_ray

    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs would ignore
    with grid.shown():
        events = (
            run_locally(grid.plan, out, grid.jobs, limit) if cluster is None else run_on_ray(grid.plan, out, cluster)
        )
        with closing(events):  # which ends what runs, before the cluster is left
            for event in events:
                grid.take(event)


def _pack(out: Path) -> None:
    """Write `OUT/packed.tar.gz`, a folder of results for `tar -xzf`, where there is anything to pack."""
    from bench.record.pack import pack
    from bench.record.store import RECORD, Store

    store, buffer = Store(out, warn), io.BytesIO()
    if not any(store.runs.glob(f"*/{RECORD}")):
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            pack(store, Path(folder), warn)
        except BenchError as error:  # none of them can be read
            warn(str(error))
            return
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            archive.add(f"{folder}/runs", "runs", filter=_without_owner)
    packed = out / "packed.tar.gz"
    write_bytes(packed, buffer.getvalue())
    say(f"packed: {packed} ({packed.stat().st_size / 1e6:.1f} MB)")


def _without_owner(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, "", ""
    return entry


def _summarise(grid: SuiteGrid, out: Path, limit: TimeLimit | None) -> None:
    """Say how it ended: what failed (exit code 1), what the time limit left, or that all is recorded."""
    from paper_tables.suite.progress import duration
    from paper_tables.suite.time_limit import estimate

    plan = grid.plan
    for failure in grid.failures:
        command = failure.run.spec.command(plan.preset, failure.run.seed)
        say(f"failed with exit code {failure.code}: {command}", err=True)
        for line in failure.lines:
            say(f"  {line}", err=True)
    if grid.failures:
        say(f"{len(grid.failures)} of {len(plan.to_do)} runs failed; the same command tries them again", err=True)
        sys.exit(1)
    if limit is not None and (left := [run for run, state in grid.states.items() if state == "waiting"]):
        estimates = [estimate(run, limit.records()) for run in left]
        known = [seconds for seconds in estimates if seconds is not None]
        about = duration(sum(known) / grid.jobs if len(known) == len(left) else None)
        say(f"{len(plan.runs) - len(left)} of {len(plan.runs)} runs are recorded, {len(left)} left: about {about}")
        if known and min(known) > 60 * limit.minutes:
            say(f"the shortest of them takes about {duration(min(known))}: give --minutes more")
        say("the same command goes on")
        return
    say(f"all {len(plan.runs)} runs are recorded in {out}; next: bench tables --out {out}")
