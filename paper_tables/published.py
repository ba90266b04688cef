"""What README.md and docs/results.md tell of the published runs, made from their records.

    python -m paper_tables.published

A page has a section for it between two marks, a comment each; what stands there is replaced.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from bench.cli.options import FOLDER, warn
from bench.cli.told import Told
from bench.record.store import Store
from bench.system.errors import BenchError
from bench.system.files import write_bytes
from bench.system.terminal import say
from paper_tables.claims.verdicts import ClaimVerdict, verdicts
from paper_tables.numbers.runs import RunIndex
from paper_tables.paper.ablations import ABLATIONS, find_table
from paper_tables.paper.tables import TABLE_NAMES
from paper_tables.report.glance import Glance, at_a_glance
from paper_tables.tables.make import FilledTable, fill_table
from paper_tables.tables.rendered import AS_GOOD_AS_BEST, TIME_LABEL

BEGIN = "<!-- published results: made by `python -m paper_tables.published` -->"
END = "<!-- end of published results -->"
PRESET = "tiny"
PAGES = {"README.md": "short", "docs/results.md": "long"}
"""Pages with a section, and how much it tells."""
WIDTH = 120


def sections(out: Path) -> dict[str, str]:
    """The two sections, `short` and `long`, of the runs in a results folder.

    Raises:
        BenchError: runs of a table cannot be compared.
    """
    index = RunIndex(Store(out, warn), PRESET, warn=warn)
    found = verdicts(index)
    main, tasks = fill_table(index, "main"), fill_table(index, "3")
    glance = at_a_glance(found, [main, tasks], index.records)
    counts = _counts(index, found)
    long = [*_wrapped(counts), "", *_verdicts(glance), "## What scored best", ""]
    long += [line for use in glance.use for line in _item(use)]
    if glance.warnings:
        long += ["", *_wrapped(f"Below their own init student: {'; '.join(glance.warnings)}.")]
    return {"short": "\n".join(_wrapped(counts)), "long": "\n".join([*long, "", *_main_table(main)])}


def _counts(index: RunIndex, found: Sequence[ClaimVerdict]) -> str:
    """How many runs of which suite, and how many claims came out how."""
    count = Counter(one.verdict for one in found)
    every = [index.select(find_table(name, PRESET)) for name in (*TABLE_NAMES, *ABLATIONS)]
    made = {spec: bool(runs) for selection in every for spec, runs in selection.runs.items()}
    made_at = {
        f"commit {git.commit[:7]}, version {record.environment.distillm_bench}"
        for record in index.records
        if (git := record.environment.git) and git.commit
    }
    return (
        f"`results/paper-tiny/` holds {len(index.records)} runs at the preset `{PRESET}`, of {sum(made.values())} of "
        f"the suite's {len(made)} settings (by training seed: {_seeds(index)}), made at "
        f"{' and '.join(sorted(made_at))}. "
        f"Of {len(found)} claims, {count['reproduced']} are reproduced, {count['not reproduced']} are not reproduced, "
        f"of {count['mechanism not active']} the mechanism was not active, and {count['not enough evidence']} lack "
        "evidence."
    )


def _item(text: str) -> list[str]:
    return _wrapped(text, initial_indent="- ", subsequent_indent="  ")


def _wrapped(text: str, initial_indent: str = "", subsequent_indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=initial_indent,
        subsequent_indent=subsequent_indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _verdicts(glance: Glance) -> Iterator[str]:
    for heading, claims in glance.verdicts.items():
        yield from (f"## {heading}", "")
        for one in claims:
            yield from _item(f"{one.claim.claim} ({one.claim.where}): {one.reason}.")
        yield ""


def _main_table(filled: FilledTable) -> Iterator[str]:
    """Scores on Dolly and times: two columns of the main table, with what its caption says of their marks."""
    view = filled.views[0]
    shown = [0, 1, view.headings.index(TIME_LABEL)]
    yield from ("## Scores on Dolly", "")
    yield from _wrapped(
        "ROUGE-L on the Dolly test set, mean ± standard deviation over training seeds, and training time relative to "
        "the median of KLD's: two columns of the [main table](../results/paper-tiny/tables/main-tiny-measured.md)."
    )
    yield from ("", "| | Dolly | time / KLD |", "|---|--:|--:|")
    for row in view.rows:
        cells = [f"**{row[i].text}**" if row[i].bold else row[i].text for i in shown]
        yield f"| {' | '.join(cells)} |"
    least = ""
    if (visible := filled.statistics.minimum_detectable.get("dolly")) is not None:
        least = (
            f" The test finds a difference of {visible:.2f} points with 80 % probability, so that a {AS_GOOD_AS_BEST} "
            'may mean "unknown" rather than "equal".'
        )
    yield ""
    yield from _wrapped(f"Bold is the best, {AS_GOOD_AS_BEST} = not significantly different from the best.{least}")


def _seeds(index: RunIndex) -> str:
    """The training seeds, each with how many runs have it."""
    count = Counter(record.seed for record in index.records)
    return ", ".join(f"{seed} ({count[seed]})" for seed in sorted(count))


def replaced(page: str, section: str) -> str:
    """A page with its section replaced.

    Raises:
        BenchError: it has no marks for one.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"the page has no section to write: put {BEGIN} and {END} around where it is to be")
    return f"{before}{BEGIN}\n{section}\n{END}{after}"


@click.command(cls=Told)
@click.option("--out", type=FOLDER, default=Path("results/paper-tiny"), show_default=True, help="Results folder.")
def main(out: Path) -> None:
    """Write the sections of README.md and docs/results.md anew, from the folder that holds both."""
    made = sections(out)
    for name, kind in PAGES.items():
        path = Path(name)
        write_bytes(path, replaced(path.read_text(encoding="utf-8"), made[kind]).encode())
        say(str(path))


if __name__ == "__main__":
    main()
