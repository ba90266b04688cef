"""`bench recommend`: which method to use, by recorded runs or by a short suite of successive halving."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from bench.cli.error_reporting import goes_on_if_interrupted
from bench.cli.options import FOLDER, JSON, OUT, FiniteRange, messages, output, prepare_to_read, warn
from bench.cli.run import too_large
from bench.system.errors import BenchError
from bench.system.paths import check_folder
from bench.system.terminal import say, say_json

if TYPE_CHECKING:
    from bench.cli.fit import Fitted
    from bench.config.resolve import Overrides
    from bench.config.sections import Config
    from bench.recommend.from_records import Advice, Recommendation
    from bench.record.store import Store
    from distillm import Method

_POSITIVE = FiniteRange(min=0, min_open=True)
_OF_RECORDS = ("on", "max_seconds", "price", "every_source")
_OF_A_SUITE = ("teacher", "student", "chosen", "seed", "device", "data_dir", "assignments")


@click.command()
@click.option("--task", required=True, help="A name (`bench list tasks`) or path/to/task.yaml.")
@click.option("--preset", default="tiny", show_default=True, metavar="NAME_OR_FILE", help="The scale.")
@click.option("--models", metavar="PAIR", help="A model pair: a name (`bench list models`) or path/to/pair.yaml.")
@click.option("--on", metavar="SET", help="By records: the evaluation set that decides.  [default: test]")
@click.option(
    "--max-seconds", type=_POSITIVE, metavar="S", help="By records: what a run may take, all it needs counted."
)
@click.option("--price", type=FiniteRange(min=0), metavar="P", help="By records: what an hour costs; adds the cost.")
@click.option("--every-source", is_flag=True, help="By records: rank methods with every output source recorded.")
@click.option("--minutes", type=_POSITIVE, metavar="N", help="Make a short suite, and end within N minutes.")
@click.option("--teacher", metavar="MODEL", help="Suite: with --student, a pair of your own: hub ids or local folders.")
@click.option("--student", metavar="MODEL", help="See --teacher.")
@click.option("--method", "chosen", multiple=True, help="Suite: of these methods only; repeatable.  [default: all]")
@click.option("--seed", type=int, help="Suite: training seed.  [default: 10]")
@click.option("--device", help="Suite: auto, cpu, cuda or mps.  [default: auto]")
@click.option("--data-dir", type=FOLDER, help="Suite: local data, as for `bench run`.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Suite: as for `bench run`; repeatable.")
@OUT
@JSON
def recommend(
    task: str,
    preset: str,
    models: str | None,
    on: str | None,
    max_seconds: float | None,
    price: float | None,
    every_source: bool,
    minutes: float | None,
    teacher: str | None,
    student: str | None,
    chosen: tuple[str, ...],
    out: Path,
    as_json: bool,
    **overrides: Unpack[Overrides],
) -> None:
    """Say which method to use on a task.

    By the runs recorded in OUT: methods by score, with the probability of being the best and of being within a point
    of it, time (with what comes before the training) and cost, which of them cannot be told from the best, which runs
    would tell most, and what other presets recorded there say. With --max-seconds only methods that are known to be
    fast enough take part. A time marked ≤ is of runs beside other work, which takes longer: it is an upper bound.

    With --minutes, on your own task and models: all methods train for a few steps, the better ones go on, and so
    forth; the last two train whole. The validation set decides, and the test sets are answered once, at the end. You
    get the trained student and OUT/recommend/NAME/choice.md, which explains the choice. The same command goes on after
    Ctrl-C.

    \b
    bench recommend --task samsum --price 2.5
    bench recommend --task my.yaml --data-dir data --minutes 60
    bench recommend --task my.yaml --data-dir data --teacher my/large --student my/small --minutes 60
    """
    began, given = time.monotonic(), click.get_current_context().params
    for name in _OF_A_SUITE if minutes is None else _OF_RECORDS:
        if given[name] not in (None, (), False):
            option = {"chosen": "method", "assignments": "set"}.get(name, name).replace("_", "-")
            raise BenchError(f"--{option} goes {'with' if minutes is None else 'without'} --minutes")
    if minutes is not None:
        from bench.config.resolve import resolve

        configured = partial(
            resolve, preset=preset, task=task, models=models, teacher=teacher, student=student, **overrides
        )
        _suite(configured, chosen, minutes, began, out, as_json)
        return
    prepare_to_read()
    from bench.recommend.from_records import recommend as by_records
    from bench.recommend.ranked_settings import Options
    from bench.record.store import Store

    store = Store(out, warn)
    with messages().status("reading runs"):
        options = Options(on or "test", models, every_source, max_seconds, price)
        found = by_records(store, task, preset, options, warn)
    if as_json:
        say_json(asdict(found))
        return
    console = output()
    console.print(_table(found, price is not None))
    for line in _told(found, store):
        say(line)


def _table(found: Recommendation, priced: bool) -> Fitted:
    from rich.table import Table

    from bench.cli.fit import Fitted

    legend = ["* may be as good as the best"] * bool(found.as_good)
    legend += ["≤ at most: timed beside other work"] * any(one.at_most is not None for one in found.methods)
    table = Table(
        title=f"{found.task} ({found.set}), models {found.models}, preset {found.preset}",
        caption="\n".join(legend) or None,
        title_justify="left",
        caption_justify="left",
    )
    times = ["before s", "training s", *(["cost"] if priced else [])]
    headings = ["method", found.label, "best", "within 1", "seeds", *times]
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for one in found.methods:
        sure = (one.best, one.near_best) if one.within_budget else (None, None)
        mark = "*" if one in found.as_good else ""
        cells = [one.method + mark, f"{one.score:.2f}", *(_or_dash(share, ".2f") for share in sure)]
        bound = "≤ " if one.at_most is not None else ""
        seconds = one.at_most if one.seconds is None else one.seconds
        costs = [_or_dash(one.before, ".3g"), _or_dash(seconds, ".3g", bound), _or_dash(one.cost, ".2g", bound)]
        table.add_row(*[*cells, str(len(one.seeds)), *costs][: len(headings)])
    return Fitted(table, ("seeds", "before s"))


def _or_dash(number: float | None, form: str, before: str = "") -> str:
    return "–" if number is None else before + format(number, form)


def _names(methods: Iterable[Advice]) -> str:
    return ", ".join(one.method for one in methods)


def _told(found: Recommendation, store: Store) -> Iterator[str]:
    from bench.config.presets import shipped

    first, *rest = found.methods
    rest_within = [one for one in rest if one.within_budget]
    # methods that lack a seed may have the higher mean, without what that seed does to all
    at_equal_seeds = " at equal seeds" * any(one.score > first.score for one in rest_within)
    if first.best is None or first.near_best is None:
        yield (
            f"{first.method} has the highest score. One training seed a method: how likely it is the best is not "
            "known, since another seed often changes more than other test examples do."
        )
    else:
        yield (
            f"{first.method} has the highest score{at_equal_seeds}; it is the best with probability {first.best:.2f}, "
            f"and within a point of the best with {first.near_best:.2f}."
        )
    if alike := _names(found.as_good):
        yield f"Not told from it (5 %, Tukey's test of {len(rest_within) + 1} methods): {alike}."
    if noisy := _names(found.too_noisy):
        yield (
            f"Too noisy for that test, but within a point of the best with less than 5 % probability: {noisy}. "
            "They are probably not as good; more seeds would say so."
        )
    for one in found.methods:
        if one.no_student_outputs:
            yield f"{one.method}: {one.no_student_outputs}."
    if found.seeds_known and not found.pooled:
        yield "The methods' noise of seeds differs: the louder ones have their own."
    if left := _names(one for one in rest if not one.within_budget):
        yield f"Outside the budget, or not known to be within it: {left}."
    if untimed := _names(one for one in found.methods if one.seconds is None and one.at_most is None):
        yield f"No time is known on the hardware of most runs: {untimed}."
    yield from _left_out(found, store)
    if (runs := found.next_runs) is not None:
        gain = ""
        if runs.regret_now is not None and runs.regret_then is not None:
            regret = f"; to choose {first.method} now is expected to lose {runs.regret_now:.2f} points, then"
            gain = f"{regret} {runs.regret_then:.2f}"
        doubtful = [one.method for one in found.too_noisy if one.method in runs.methods]
        why = f" ({doubtful[0]} is probably not as good, but so noisy that it may yet be)" if doubtful else ""
        yield f"What would tell most: {' and '.join(runs.methods)} at seed {runs.seed}{why}{gain}:"
        yield from runs.commands
    elif rest_within:
        yield "No other method has a chance of 1 % to be the best: more runs of these would tell little."
    if pairs := found.other_pairs:
        options = " or ".join(f"--models {pair if pair in shipped('pairs') else f'FILE (of {pair})'}" for pair in pairs)
        yield f"{'Another pair is' if len(pairs) == 1 else 'Other pairs are'} recorded: {options}"
    for other in found.other_presets:
        differs = "" if other.leader in (None, first.method) else ", which is another"
        yield f"At preset {other.preset}, {other.told}{differs}:"
        yield other.command


def _left_out(found: Recommendation, store: Store) -> Iterator[str]:
    """What is recorded and not ranked, and how to see it."""
    sources = [one for one in found.left_out if not one.other]
    if sources:
        named = ", ".join(f"{one.method} ({one.source}) {one.score:.2f}" for one in sources)
        yield f"Not ranked, since a method is ranked with its own output source (--every-source ranks them): {named}."
    if settings := [one for one in found.left_out if one.other]:
        best = settings[0]
        where = shlex.join(["bench", "list", "runs", "--out", str(store.root)])
        yield (
            f"Not ranked, since they have other settings than the method's own: {len(settings)} arms; the best of them "
            f"is {best.method} with {', '.join(best.other)} changed ({best.run_id}), {best.score:.2f}. All are in: "
            f"{where}"
        )


def _suite(
    configured: Callable[..., tuple[Config, Method]],
    chosen: tuple[str, ...],
    minutes: float,
    began: float,
    out: Path,
    as_json: bool,
) -> None:
    from bench.config.registry import methods
    from bench.models.loading import quiet_libraries
    from bench.recommend.halving import Halving, TimeUp
    from bench.recommend.page import as_plain, loading, page
    from bench.record.store import Store
    from bench.system.artifacts import locked
    from bench.system.files import write_bytes
    from bench.system.hashing import digest
    from bench.system.processes import check_one_process

    check_one_process("bench recommend --minutes")
    contenders: dict[str, tuple[Config, Method]] = {}
    failed: dict[str, str] = {}
    for name in chosen or methods():
        try:
            config, method = configured(method=name)
            contenders[method.name] = config, method
        except BenchError as error:
            if chosen:
                raise
            failed[name] = str(error)
    if not contenders:
        raise BenchError(next(iter(failed.values())))
    check_folder(out / "recommend", "--out", write=True)
    config = next(iter(contenders.values()))[0]
    for note in too_large(config):
        warn(note)
    key = digest([one.identity() for one, _ in contenders.values()])[:8]
    place = out / "recommend" / f"{config.task}-{config.preset}-s{config.seed}-{key}"
    place.mkdir(parents=True, exist_ok=True)
    quiet_libraries()
    goes_on_if_interrupted()
    halving = Halving(contenders, Store(out), place, minutes, began, messages(), quiet=as_json, failed=failed)
    try:
        with locked(place / "lock", f"the choice in {place}", warn), redirect_stdout(sys.stderr):
            rungs, outcomes = halving.run()
            path = place / "choice.md"
            write_bytes(path, page(halving, rungs, outcomes).encode())
    except TimeUp as error:
        say(str(error), err=True)
        sys.exit(1)
    name, outcome = next(iter(outcomes.items()))
    if as_json:
        say_json(as_plain(halving, rungs, outcomes, path))
        return
    say(f"{name}: {outcome.folder / 'student'}")
    say(loading(outcome))
    say(f"how it was chosen: {path}")
