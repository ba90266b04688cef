"""The command `bench judge`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bench.cli.options import JSON, OUT, warn
from bench.record.store import Store
from bench.system.errors import BenchError
from bench.system.files import read_json


class FiniteRange(click.FloatRange):
    """A number in a range; infinity and NaN, which compare as if they were in any, are in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, as the option is given."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--against", metavar="RUN", help="Which is better, RUN or this one? Instead of rating beside references.")
@click.option("--model", default="gpt-4o", show_default=True, help="The judge, as the server knows it.")
@click.option(
    "--base-url", default="https://api.openai.com/v1", show_default=True, help="Any OpenAI-compatible server."
)
@click.option("--sets", metavar="LIST", help="Evaluation sets.  [default: Dolly, SelfInst, Vicuna; other tasks: all]")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many examples of a set.")
@click.option("--decoding-seeds", type=click.IntRange(min=1), default=1, show_default=True, help="How many are judged.")
@click.option("--repeats", type=click.IntRange(min=1), default=1, show_default=True, help="Judgements of each order.")
@click.option("--prices", metavar="IN,OUT", help="Per million tokens of prompt and answer, in your currency.")
@click.option("--max-cost", type=FiniteRange(min=0), help="Stop before it costs more; needs --prices.")
@click.option("--concurrency", type=click.IntRange(min=1), default=8, show_default=True, help="Requests at a time.")
@click.option("--timeout", type=FiniteRange(min=0.01), default=60.0, show_default=True, help="Seconds per answer.")
@click.option("--retries", type=click.IntRange(min=0), default=8, show_default=True, help="Of a request that failed.")
@click.option("--batch", is_flag=True, help="Through the batch API: cheaper at OpenAI's, within a day.")
@click.option("--poll", type=FiniteRange(min=0.01), default=30.0, show_default=True, help="Seconds, with --batch.")
@click.option("--temperature", type=FiniteRange(min=0, max=2), default=0.0, show_default=True, help="Judge's.")
@click.option("--max-tokens", type=click.IntRange(min=4), default=64, show_default=True, help="Longest answer.")
@click.option("--dry-run", is_flag=True, help="Print the estimate and stop.")
@JSON
@OUT
def judge(
    runs: tuple[str, ...],
    against: str | None,
    model: str,
    base_url: str,
    sets: str | None,
    limit: int | None,
    decoding_seeds: int,
    repeats: int,
    prices: str | None,
    max_cost: float | None,
    concurrency: int,
    timeout: float,
    retries: int,
    batch: bool,
    poll: float,
    temperature: float,
    max_tokens: int,
    dry_run: bool,
    as_json: bool,
    out: Path,
) -> None:
    """Have a language model score what recorded runs answered.

    Each response is rated from 1 to 10 beside the reference (the paper's GPT-4 feedback; score = 100 x sum of the
    run's ratings / sum of the references'), or, with --against, compared with another run's. Both orders are asked.
    Every answer is kept in the artifact cache: the same command again, or after any interruption, asks nothing twice.
    --max-cost is kept over all commands that ask the same, and counts requests that may have been paid for in vain.
    The key is read from the environment variable OPENAI_API_KEY and from nowhere else. Results go beside the records,
    OUT/runs/RUN/judged, and into the columns of `bench tables main`.

    \b
    bench judge dolly-distillm --dry-run
    bench judge dolly-distillm dolly-kld --prices 2.5,10 --max-cost 5
    bench judge dolly-distillm --against dolly-gkd --base-url http://localhost:8000/v1 --model my-model
    """
    from bench.judge.messages import Judge
    from bench.judge.protocol import Protocol
    from bench.judge.session import Options, Session

    options = Options(
        Judge(model, base_url, temperature, max_tokens),
        Protocol("pairwise" if against else "rating"),
        sets=tuple(part.strip() for part in (sets or "").split(",") if part.strip()),
        seeds=decoding_seeds,
        limit=limit,
        repeats=repeats,
        prices=_prices(prices),
        max_cost=max_cost,
        concurrency=concurrency,
        timeout=timeout,
        retries=retries,
        batch=batch,
        poll=poll,
    )
    store = Store(out, warn)
    session = Session(store, [store.find(run) for run in runs], store.find(against) if against else None, options, warn)
    expected = session.estimate()
    if dry_run and as_json:
        click.echo(json.dumps(expected.plain(), indent=1))
        return
    click.echo(_told(expected.plain()), err=not dry_run)
    if dry_run:
        return
    if max_cost is not None and (expected.cost or 0) + (expected.spent or 0) > max_cost:
        click.echo(f"this may pass --max-cost {max_cost:g}: it stops before that", err=True)
    console = Console(stderr=True)
    columns = (TextColumn("judging"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("judging", total=None)
        session.ask(lambda done, total: progress.update(task, completed=done, total=total))
    paths = session.record()
    if as_json:
        click.echo(json.dumps([read_json(path) for path in paths.values()], indent=1, ensure_ascii=False))
        return
    for table in _tables([read_json(path) for path in paths.values()]):
        Console(highlight=False).print(table)
    for path in paths.values():
        click.echo(str(path))


def _prices(text: str | None) -> Any:
    from bench.judge.budget import Prices

    if text is None:
        return None
    try:
        prompt, completion = (float(part) for part in text.split(","))
    except ValueError as error:
        raise BenchError(f"--prices {text}: expected two numbers such as 2.5,10") from error
    return Prices(prompt, completion)


def _told(expected: dict[str, Any]) -> str:
    left = expected["answers"] - expected["kept"]
    cost = "cost unknown without --prices"
    if expected["cost"] is not None:
        cost = f"about {expected['cost']:.4f}, after {expected['spent']:.4f} spent so far"
    return (
        f"{expected['answers']} answers needed, {expected['kept']} on disk, {left} to ask: about "
        f"{expected['prompt_tokens']} prompt and {expected['completion_tokens']} answer tokens, {cost} "
        f"({expected['rule']})"
    )


def _tables(found: list[dict[str, Any]]) -> Iterator[Table]:
    for one in found:
        title = one["run_id"] + (f" against {one['against']}" if one["against"] else "")
        table = Table(box=None, pad_edge=False, title=title, title_justify="left")
        for heading in ("set", "score", "scored", "not scored", "readings", "flagged", "orders agree", "position bias"):
            table.add_column(heading)
        for name, result in one["results"].items():
            outcomes = dict(result["outcomes"])
            scored = outcomes.pop("scored", 0)
            bias = (result["position_bias"] or {}).items()
            table.add_row(
                name,
                _score(result),
                f"{scored}/{result['items']}",
                ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()) or "-",
                _readings(result["readings"]),
                str(result["flagged"]["items"]),
                _agreement(result["agreement_of_orders"]),
                ", ".join(f"{what.replace('_', ' ')} {value:.2f}" for what, value in bias if what != "verdicts"),
            )
        yield table


def _score(result: dict[str, Any]) -> str:
    score = result["score"]
    if score is None:
        return "-"
    interval = "" if score["low"] is None else f" [{score['low']:.1f}, {score['high']:.1f}]"
    counts = f" ({result['wins']}/{result['ties']}/{result['losses']})" if "wins" in result else ""
    return f"{score['value']:.1f}{interval}{counts}"


def _readings(found: dict[str, Any]) -> str:
    counts = [f"{count} {outcome}" for outcome, count in found["outcomes"].items()]
    return ", ".join([*counts, f"{found['asked_again']} asked again"])


def _agreement(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    numbers = (("κ", found["kappa"]), ("ρ", found.get("spearman")))
    return ", ".join(f"{name} {value:.2f}" for name, value in numbers if value is not None) or "-"
