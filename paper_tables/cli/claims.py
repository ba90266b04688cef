"""`bench claims`."""

from __future__ import annotations

import click

from bench.cli.options import JSON, OUT, messages, output, prepare_to_read
from bench.system.terminal import say, say_json
from paper_tables.cli.options import ChosenRuns, of_a_task, selects_runs


@click.command()
@click.argument("ids", nargs=-1, metavar="[CLAIM]...")
@selects_runs
@of_a_task
@click.option("--markdown", is_flag=True, help="Print Markdown, with every comparison.")
@JSON
@OUT
def claims(ids: tuple[str, ...], runs: ChosenRuns, markdown: bool, as_json: bool) -> None:
    """Give each claim of the paper a verdict from recorded runs.

    A claim is reproduced when every comparison it makes holds with its whole 95 % confidence interval (over training
    seeds and examples). It is not reproduced when one comparison falls short of the claim, corrected for their number.
    Both are corrected over all claims that have evidence. Where DistiLLM hardly used student outputs, the verdict is
    that the mechanism was not active. Anything else is not enough evidence: the smallest visible difference is printed,
    and how many seeds would show what was seen. So are fewer than three training seeds and, for a claim about time,
    fewer than two runs that had the machine to themselves. The exit code is 0 whatever the verdicts.

    \b
    bench claims
    bench claims skew-beats-kl --markdown
    bench claims --task my.yaml
    """
    prepare_to_read()
    from bench.cli.fit import say_commands
    from paper_tables.claims.format import as_markdown, as_table
    from paper_tables.claims.verdicts import verdicts

    with messages().status("reading runs") as status:
        index = runs.index()
        status.update("comparing runs")
        found = verdicts(index, ids)
    if as_json:
        say_json([one.as_dict() for one in found])
    elif markdown:
        say(as_markdown(found, index.scope))
    else:
        output().print(as_table(found, index.scope))
        say_commands(one.reason for one in found)
