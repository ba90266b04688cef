"""The command `bench judge`."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from bench.cli.error_reporting import goes_on_if_interrupted
from bench.cli.fit import Fitted
from bench.cli.options import JSON, OUT, FiniteRange, messages, output, warn
from bench.system.errors import BenchError
from bench.system.terminal import say, say_json

if TYPE_CHECKING:  # imported where they are used: `bench --help` reads this file and needs none of them
    from bench.judge.budget import Estimate, Prices
    from bench.judge.results import Agreement, Judgement, PositionBias, ReadingCounts, SetResult


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--against", metavar="RUN", help="Ask which run is better, instead of rating beside references.")
@click.option("--model", default="gpt-4o", show_default=True, help="Name of the judge at the server.")
@click.option(
    "--base-url",
    default="https://api.openai.com/v1",
    show_default=True,
    help="Any OpenAI-compatible server; gets the key.",
)
@click.option("--sets", metavar="LIST", help="Evaluation sets.  [default: Dolly, SelfInst, Vicuna; other tasks: all]")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many examples of a set.")
@click.option("--decoding-seeds", type=click.IntRange(min=1), default=1, show_default=True, help="How many to judge.")
@click.option("--repeats", type=click.IntRange(min=1), default=1, show_default=True, help="Judgements of each order.")
@click.option("--prices", metavar="IN,OUT", help="Per million prompt and answer tokens, in any currency.")
@click.option("--max-cost", type=FiniteRange(min=0), help="Stop before the total cost exceeds this; needs --prices.")
@click.option("--concurrency", type=click.IntRange(min=1), default=8, show_default=True, help="Requests at once.")
@click.option("--timeout", type=FiniteRange(min=0.01), default=60.0, show_default=True, help="Seconds per answer.")
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=8,
    show_default=True,
    help="How often a failed request is repeated.",
)
@click.option("--batch", is_flag=True, help="Use the batch API: half the price at OpenAI, within a day.")
@click.option(
    "--poll", type=FiniteRange(min=0.01), default=30.0, show_default=True, help="Seconds between two looks at a batch."
)
@click.option("--temperature", type=FiniteRange(min=0, max=2), default=0.0, show_default=True, help="Of the judge.")
@click.option(
    "--max-tokens",
    type=click.IntRange(min=4),
    default=64,
    show_default=True,
    help="Longest answer of the judge, with its thoughts.",
)
@click.option("--dry-run", is_flag=True, help="Print the estimate and stop.")
@JSON
@OUT
def judge(
    runs: tuple[str, ...],
    against: str | None,
    model: str,
    base_url: str,
    sets: str | None,
    decoding_seeds: int,
    prices: str | None,
    temperature: float,
    max_tokens: int,
    dry_run: bool,
    as_json: bool,
    out: Path,
    **others: Any,
) -> None:
    """Have a language model score the responses of recorded runs.

    Each response is rated from 1 to 10 beside the reference, as in the paper's GPT-4 feedback (score = 100 x sum of the
    run's ratings / sum of the references'), or compared with another run's response (--against). Both orders are asked.
    Answers are kept in the artifact cache: after an interruption, the same command asks only what is missing.
    --max-cost is a total across repeated commands and includes requests that may have been billed without an answer.
    The key is read from the environment variable OPENAI_API_KEY only, and sent to the server that --base-url names.
    Results go beside the records (OUT/runs/RUN/judged) and into the columns of `bench tables main`.

    \b
    bench judge dolly-distillm --dry-run
    bench judge dolly-distillm dolly-kld --prices 2.5,10 --max-cost 5
    bench judge dolly-distillm --against dolly-gkd --base-url http://localhost:8000/v1 --model my-model
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from bench.judge.messages import Judge
    from bench.judge.protocol import Protocol
    from bench.judge.session import Options, Session
    from bench.record.store import Store

    options = Options(
        Judge(model, base_url, temperature, max_tokens),
        Protocol("pairwise" if against else "rating"),
        sets=_parts("--sets", sets),
        seeds=decoding_seeds,
        prices=_prices(prices),
        **others,
    )
    # a shell's background jobs ignore it, and SIGTERM ends a command by way of it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    store = Store(out, warn)
    session = Session(store, [store.find(run) for run in runs], store.find(against) if against else None, options, warn)
    expected = session.estimate()
    if dry_run and as_json:
        say_json(expected.plain())
        return
    say(_in_words(expected), err=not dry_run)
    if dry_run:
        return
    max_cost = options.max_cost
    if max_cost is not None and (expected.cost or 0) + (expected.spent or 0) > max_cost:
        say(f"this may cost more than --max-cost {max_cost:g}; it stops before that", err=True)
    goes_on_if_interrupted()
    console = messages()
    columns = (TextColumn("judging"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("judging", total=None)
        session.ask(lambda done, total: progress.update(task, completed=done, total=total))
    written = session.write()
    if as_json:
        say_json([judgement.plain() for judgement in written.values()])
        return
    for table in _tables(written.values()):
        output().print(table)
    for path in written:
        say(str(path))


def _parts(option: str, text: str | None) -> tuple[str, ...]:
    """The parts of a list; an empty one may be a shell's variable that is not set, and every call costs money."""
    if text is None:
        return ()
    parts = tuple(part.strip() for part in text.split(","))
    if not all(parts):
        raise BenchError(f"{option} {text!r}: a part of the list is empty; expected names such as test,selfinst")
    return parts


def _prices(text: str | None) -> Prices | None:
    from bench.judge.budget import Prices

    if text is None:
        return None
    try:
        prompt, completion = (float(part) for part in text.split(","))
    except ValueError as error:
        raise BenchError(f"--prices {text}: expected two numbers such as 2.5,10") from error
    return Prices(prompt, completion)


def _in_words(expected: Estimate) -> str:
    from bench.judge.budget import RULE

    cost = "cost unknown without --prices"
    if expected.cost is not None:
        cost = f"about {expected.cost:.4f}, after {expected.spent:.4f} spent so far"
    return (
        f"{expected.answers} answers needed, {expected.kept} on disk, {expected.answers - expected.kept} to ask: about "
        f"{expected.prompt_tokens} prompt and {expected.completion_tokens} answer tokens, {cost} ({RULE})"
    )


def _tables(judgements: Iterable[Judgement]) -> Iterator[Fitted]:
    from bench.judge.protocol import Outcome

    for judgement in judgements:
        title = judgement.run_id + (f" against {judgement.against}" if judgement.against else "")
        table = Table(box=None, pad_edge=False, title=title, title_justify="left")
        for heading in ("set", "score", "scored", "not scored", "readings", "flagged", "orders agree", "position bias"):
            table.add_column(heading)
        for name, result in judgement.results.items():
            unscored = {outcome: count for outcome, count in result.outcomes.items() if outcome != Outcome.SCORED}
            table.add_row(
                name,
                _score(result),
                f"{result.items - sum(unscored.values())}/{result.items}",
                ", ".join(f"{count} {outcome}" for outcome, count in unscored.items()) or "-",
                _readings(result.readings),
                str(result.flagged.items),
                _agreement(result.agreement_of_orders),
                _position_bias(result.position_bias),
            )
        yield Fitted(table, ("flagged", "readings", "position bias", "orders agree"))


def _score(result: SetResult) -> str:
    score = result.score
    if score is None:
        return "-"
    interval = "" if score.low is None else f" [{score.low:.1f}, {score.high:.1f}]"
    counts = "" if result.wins is None else f" ({result.wins}/{result.ties}/{result.losses})"
    return f"{score.value:.1f}{interval}{counts}"


def _readings(readings: ReadingCounts) -> str:
    counts = [f"{count} {outcome}" for outcome, count in readings.outcomes.items()]
    return ", ".join([*counts, f"{readings.asked_again} asked again"])


def _agreement(agreement: Agreement | None) -> str:
    if agreement is None:
        return "-"
    numbers = (("κ", agreement.kappa), ("ρ", agreement.spearman))
    return ", ".join(f"{name} {value:.2f}" for name, value in numbers if value is not None) or "-"


def _position_bias(bias: PositionBias | None) -> str:
    if bias is None:
        return ""
    if bias.first_preferred is not None:
        return f"first preferred {bias.first_preferred:.2f}"
    return f"first minus second {bias.first_minus_second:.2f}"
