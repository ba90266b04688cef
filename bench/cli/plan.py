"""`bench plan`: what a run will take, before anything is spent."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Unpack

import click

from bench.cli.options import JSON, FiniteRange, messages, output
from bench.system.errors import BenchError
from bench.system.terminal import say, say_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.table import Table

    from bench.config.resolve import Choices
    from bench.config.sections import Config
    from bench.experiment.planning.calibration import Speed
    from bench.experiment.planning.plan import Plan, Stage

_PARTS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimiser": "optimiser",
    "teacher": "frozen teacher",
    "activations": "activations",
    "output_layer": "output layer and loss",
    "generation": "generation, validation",
    "buffers": "of it kept beside steps",
}


def planning_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of what is planned for, in that order."""
    for option in reversed(
        [
            click.option("--device", help="cpu or cuda.  [default: cuda with --memory-gib, else what is here]"),
            click.option("--memory-gib", type=FiniteRange(min=0.01), help="Of the device.  [default: that here]"),
            click.option("--price", type=FiniteRange(min=0.0), help="Of an hour, in any currency."),
            click.option(
                "--calibrate/--no-calibrate", default=None, help="Measure how fast this device is: about a minute."
            ),
        ]
    ):
        command = option(command)
    return command


@click.command()
@click.option("--method", default="srkl", show_default=True, help="As in `bench run`.")
@click.option("--task", help="As in `bench run`.  [default: samsum; with --models all, that of each pair]")
@click.option("--preset", default="tiny", show_default=True, help="As in `bench run`.")
@click.option("--models", metavar="PAIR", help="As in `bench run`, or all: every pair that ships, a row each.")
@click.option("--teacher", metavar="MODEL", help="As in `bench run`.")
@click.option("--student", metavar="MODEL", help="As in `bench run`.")
@click.option("--sgo", metavar="SOURCE", help="As in `bench run`.")
@click.option("--data-dir", metavar="FOLDER", help="As in `bench run`.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="As in `bench run`; repeatable.")
@planning_options
@JSON
def plan(
    memory_gib: float | None,
    price: float | None,
    calibrate: bool | None,
    as_json: bool,
    **choices: Unpack[Choices],
) -> None:
    """Say what a run will take: memory by part, operations, tokens to generate, hours and money; and what makes it fit.

    Nothing is trained, and no weights are downloaded: of a model on the hub whose architecture does not ship, only its
    config.json. Memory comes from a step's own code, run on tensors without contents. Hours come from a few steps of
    real layers on the device here, so they hold for it alone; --no-calibrate leaves them out.

    \b
    bench plan --preset paper --task dolly --method distillm --memory-gib 40
    bench plan --preset paper --models all --memory-gib 80 --no-calibrate
    bench plan --preset small --task dolly --price 2.5
    """
    from bench.config.resolve import resolve

    device = choices.pop("device", None)  # of the plan, not of the run
    task = choices.get("task")
    if choices.get("models") == "all":
        pairs = _pairs(task)
        if not pairs:
            raise BenchError(
                f"--models all --task {task}: the pairs that ship have the tasks dolly, samsum and iwslt; leave out "
                "--task, or name a pair (`bench list models`) for a task of yours"
            )
        wanted = {}
        for pair, of_pair in pairs.items():
            of_this: Choices = {**choices, "task": task or of_pair, "models": pair}
            wanted[pair], _ = resolve(**of_this)
    else:
        config, _ = resolve(**choices)
        wanted = {config.models.name: config}
    report(wanted, device, memory_gib, price, calibrate, as_json)


def _pairs(task: str | None) -> dict[str, str]:
    """The pairs of pretrained models that ship, with the task of each in the paper; with a task, those of its kind."""
    from bench.config.presets import read_pair, shipped

    found = {}
    for name in shipped("pairs"):
        models = read_pair(name).settings["models"]
        if "/" in models["teacher"]:  # of the hub
            found[name] = "dolly" if models["kind"] == "causal" else "iwslt" if "mt5" in name else "samsum"
    return {name: of_pair for name, of_pair in found.items() if task in (None, of_pair)}


def report(
    wanted: Mapping[str, Config],
    device: str | None,
    memory_gib: float | None,
    price: float | None,
    calibrate: bool | None,
    as_json: bool,
    *,
    times: Mapping[str, int] | None = None,
) -> None:
    """Plan runs by name and print: one in detail, several a row each.

    Args:
        wanted: configurations by name.
        device, memory_gib, price, calibrate, as_json: as the options.
        times: of a suite, how many training seeds each has; then all of it is summed up.
    """
    from bench.cli.fit import Fitted
    from bench.experiment.planning.plan import GIB, make_plan, memory_here
    from bench.models.loading import quiet_libraries

    quiet_libraries()
    here, there = memory_here()
    if device not in (None, "cpu", "cuda"):
        raise BenchError(f"--device {device}: plans are made for cpu and cuda")
    planned_for = device or ("cuda" if memory_gib else here)
    measured = planned_for == here if calibrate is None else calibrate
    if measured and planned_for != here:
        raise BenchError(f"--calibrate measures this {here} device, and the plan is for {planned_for}: leave it out")
    if price is not None and not measured:
        raise BenchError(
            f"--price {price:g}: money comes from hours, which are measured on the device that is here and for it "
            "alone; leave out --price, or plan for this device without --no-calibrate"
        )
    if memory_gib is None and planned_for != here:
        raise BenchError(f"--device {planned_for}: there is none here, so say how much memory it has: --memory-gib 40")
    memory = memory_gib * GIB if memory_gib else there
    plans, speeds = {}, []
    with messages().status("") as status:
        for name, config in wanted.items():
            speed = None
            if measured:
                speed = _speed(config, lambda what: status.update(f"measuring: {what}"))
                speeds.append(speed)
            status.update(f"planning: {name}")
            plans[name] = make_plan(config, planned_for, speed)
    if as_json:
        say_json([_plain(name, one, memory, price) for name, one in plans.items()])
        return
    console = output()
    if len(plans) == 1:
        (only,) = plans.values()
        _print_one(only, memory, price, speeds)
        return
    console.print(Fitted(_rows(plans, memory, price), ("task", "student", "teacher", "tokens")))
    if times is not None:
        _print_sum(plans, times, price)
    _print_misfits(plans, memory)
    for note in dict.fromkeys(note for one in plans.values() for note in one.notes[1:]):
        console.print(note, style="dim")


def _speed(config: Config, told: Callable[[str], None]) -> Speed:
    from bench.experiment.planning.calibration import calibrate
    from bench.experiment.planning.plan import amounts_of
    from bench.experiment.planning.shapes import shape_of
    from bench.system.environment import pick_device

    amounts = amounts_of(config)
    shapes = {shape.name: shape for shape in (shape_of(config, "teacher"), shape_of(config, "student"))}
    return calibrate(
        shapes,
        pick_device("auto"),
        bf16=config.precision == "bf16",
        rows=config.evaluation.batch_size,
        prompt=amounts.prompt,
        response=amounts.response,
        told=told,
    )


def _print_one(plan: Plan, memory: float, price: float | None, speeds: Sequence[Speed]) -> None:
    from bench.cli.fit import Fitted, plain_table

    console, config = output(), plan.config
    console.print(
        f"{config.method.name} x {config.sgo.source} on {config.task}, preset {config.preset}, {config.precision}, "
        f"one {plan.device} device"
    )
    for side, shape in (("teacher", plan.teacher), ("student", plan.student)):
        console.print(f"{side}  {shape.name}: {shape.parameters:,} parameters ({shape.source})", soft_wrap=True)
    table = plain_table(["GiB", *(stage.name for stage in plan.stages)])
    for part, label in _PARTS.items():
        table.add_row(label, *(_gib(getattr(stage, part)) for stage in plan.stages))
    table.add_row("peak", *(_gib(stage.peak) for stage in plan.stages), style="bold")
    table.add_row(f"fits {_gib(memory)} GiB", *(_fits(stage, memory) for stage in plan.stages))
    table.add_row("micro-batch", *(str(stage.micro_batch or "") for stage in plan.stages))
    table.add_row("PFLOP", *(f"{stage.flops / 1e15:,.4g}" for stage in plan.stages))
    table.add_row("tokens generated", *(_count(stage.tokens) for stage in plan.stages))
    if plan.seconds is not None:
        table.add_row("hours", *(_hours(stage.seconds) for stage in plan.stages))
        if price is not None:
            table.add_row("money", *(_money(stage.seconds, price) for stage in plan.stages))
    console.print(Fitted(table))
    if plan.seconds is not None:
        money = "" if price is None else f", {_money(plan.seconds, price)} at {price:g} an hour"
        console.print(f"in all {_hours(plan.seconds)} hours{money}", style="bold")
    _print_misfits({"": plan}, memory)
    for note in plan.notes:
        console.print(note, style="dim")
    for speed in speeds:
        for found in speed.sides.values():
            console.print(
                f"measured on this {speed.device} device, {found.measured}: {found.training / 1e12:.3g} TFLOP/s in "
                f"training, {found.decode_step * 1e3:.3g} ms a token of all rows; the rest is arithmetic",
                style="dim",
            )


def _print_misfits(plans: Mapping[str, Plan], memory: float) -> None:
    """What does not fit, and the least change that makes it fit."""
    from bench.experiment.planning.fit import fits, remedy, with_lora

    for name, plan in plans.items():
        for stage in plan.stages:
            if fits(stage, memory):
                continue
            where = f"{name}, {stage.name}" if name else stage.name
            found = remedy(plan, stage, memory)
            if found is not None:
                options = " ".join(f"--set {setting}" for setting in found.settings)
                say(f"{where}: {_gib(stage.peak)} GiB do not fit; {_gib(found.peak)} GiB with {options}")
                continue
            adapters = with_lora(plan, stage)
            told = "" if adapters is None else f"; LoRA would take about {_gib(adapters)} GiB"
            say(f"{where}: {_gib(stage.peak)} GiB do not fit, nor with any setting{told}")


def _print_sum(plans: Mapping[str, Plan], times: Mapping[str, int], price: float | None) -> None:
    """What a suite takes: teachers and pretraining once, init students once a seed, all else once a run."""
    from bench.experiment.planning.plan import PRETRAINING

    flops = tokens = 0.0
    seconds: float | None = 0.0
    seen = set()
    for name, plan in plans.items():
        for stage in plan.stages:
            of_task = "" if stage.name == PRETRAINING else plan.config.task
            shared = (of_task, plan.config.models.name, stage.name)
            if stage.name.startswith(("teacher", "init student")) and shared in seen:
                continue
            seen.add(shared)
            count = 1 if stage.name == PRETRAINING or stage.name.startswith("teacher") else times[name]
            flops, tokens = flops + count * stage.flops, tokens + count * stage.tokens
            seconds = None if seconds is None or stage.seconds is None else seconds + count * stage.seconds
    told = f"in all, {sum(times.values())} runs: {flops / 1e15:,.0f} PFLOP, {_count(tokens)} tokens generated"
    if seconds is not None:
        told += f", {_hours(seconds)} hours" + ("" if price is None else f", {_money(seconds, price)}")
    output().print(told, style="bold")


def _rows(plans: Mapping[str, Plan], memory: float, price: float | None) -> Table:
    """A row a run: GiB of its fine-tunings and of its training, and what it takes in all."""
    from bench.cli.fit import plain_table
    from bench.experiment.planning.plan import PRETRAINING

    timed = all(plan.seconds is not None for plan in plans.values())
    headings = ["run", "task", "teacher", "student", "GiB tuning", "GiB training", "fits", "PFLOP", "tokens"]
    table = plain_table([*headings, *(["hours"] if timed else []), *(["money"] if timed and price is not None else [])])
    for name, plan in plans.items():
        by_name = {stage.name: stage.peak for stage in plan.stages}
        table.add_row(
            name,
            plan.config.task,
            _count(plan.teacher.parameters),
            _count(plan.student.parameters),
            _gib(max(by_name.get(tuning, 0.0) for tuning in ("teacher", PRETRAINING, "init student"))),
            _gib(by_name["training"]),
            "yes" if all(_fits(stage, memory) == "yes" for stage in plan.stages) else "no",
            f"{sum(stage.flops for stage in plan.stages) / 1e15:,.0f}",
            _count(sum(stage.tokens for stage in plan.stages)),
            *([_hours(plan.seconds)] if timed else []),
            *([_money(plan.seconds, price)] if timed and price is not None else []),
        )
    return table


def _plain(name: str, plan: Plan, memory: float, price: float | None) -> dict[str, Any]:
    from bench.experiment.planning.fit import fits, remedy

    stages = []
    for stage in plan.stages:
        found = None if fits(stage, memory) else remedy(plan, stage, memory)
        stages.append({**asdict(stage), "fits": fits(stage, memory), "remedy": found and asdict(found)})
    return {
        "models": name or plan.config.models.name,
        "task": plan.config.task,
        "method": plan.config.method.name,
        "device": plan.device,
        "memory": memory,
        "teacher": {"name": plan.teacher.name, "source": plan.teacher.source, "parameters": plan.teacher.parameters},
        "student": {"name": plan.student.name, "source": plan.student.source, "parameters": plan.student.parameters},
        "stages": stages,
        "seconds": plan.seconds,
        "money": None if plan.seconds is None or price is None else plan.seconds / 3600 * price,
        "notes": list(plan.notes),
    }


def _fits(stage: Stage, memory: float) -> str:
    from bench.experiment.planning.fit import fits

    return "yes" if fits(stage, memory) else "NO"


def _gib(size: float) -> str:
    return f"{size / 2**30:,.2f}" if size < 100 * 2**30 else f"{size / 2**30:,.0f}"


def _count(number: float) -> str:
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= factor:
            return f"{number / factor:.3g}{unit}"
    return f"{number:.0f}"


def _hours(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds / 3600:,.2f}"


def _money(seconds: float | None, price: float) -> str:
    return "" if seconds is None else f"{seconds / 3600 * price:,.2f}"
