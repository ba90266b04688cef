"""What README.md, docs/results.md and docs/performance.md tell of what is recorded, made from the records.

    python -m paper_tables.published

A page has a section for it between two marks, a comment each; what stands there is replaced.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from bench.cli.error_reporting import ErrorReporting
from bench.cli.options import FOLDER, warn
from bench.config.presets import read_preset
from bench.record.store import Store
from bench.system.errors import BenchError
from bench.system.files import write_bytes
from bench.system.terminal import say
from paper_tables import performance
from paper_tables.claims.beside import LEGEND, beside
from paper_tables.claims.format import counted, effect, tally_as_markdown, where
from paper_tables.claims.verdicts import ClaimVerdict, verdicts
from paper_tables.numbers.regime import regimes
from paper_tables.numbers.runs import RunIndex
from paper_tables.paper.ablations import ABLATIONS, find_table
from paper_tables.paper.tables import TABLE_NAMES, Column
from paper_tables.report.glance import Glance, at_a_glance
from paper_tables.tables.captions import setting_notes, unused_notes
from paper_tables.tables.make import FilledTable, fill_table
from paper_tables.tables.rendered import AS_GOOD_AS_BEST, TIME_LABEL, TOO_NOISY

BEGIN = "<!-- published results: made by `python -m paper_tables.published` -->"
END = "<!-- end of published results -->"
PRESET = "tiny"
PAGES = {"README.md": "short", "docs/results.md": "long"}
"""Pages with a section, and how much it tells."""
WIDTH = 120
TABLES = "../results/paper-tiny/tables"


def sections(out: Path) -> dict[str, str]:
    """The two sections, `short` and `long`, of the runs in a results folder.

    Raises:
        BenchError: runs of a table cannot be compared.
    """
    index = RunIndex(Store(out, warn), PRESET, warn=warn)
    found = verdicts(index)
    main, tasks = fill_table(index, "main"), fill_table(index, "3")
    others = beside(index)
    glance = at_a_glance(found, [main, tasks], index.records, others)
    runs = _runs(index)
    regime = [line for one in glance.regime for line in _item(one)]
    if regime:
        regime = ["", *_wrapped("[Criteria](tiny-regime.md) of the paper's regime, from the records:"), "", *regime]
    made_at = f"They were made at commit {_commits(index)}."
    highest = [glance.highest_legend, "", *_as_markdown(glance.highest)] if glance.highest else []
    long = [*_wrapped(f"{runs} {made_at} {counted(found)}"), "", *_wrapped(glance.claims), "", *highest, ""]
    long += [*tally_as_markdown(found), *regime]
    long += ["", f"## {' / '.join(glance.columns).capitalize()}", ""]
    long += [*_claims_table(found, glance.columns), "", *_wrapped(LEGEND), "", *_verdicts(glance)]
    long += ["## What scored best", "", *(line for one in glance.best for line in _item(one.line))]
    if glance.warnings:
        long += ["", *_wrapped(f"Below their own init student: {'; '.join(glance.warnings)}.")]
    return {
        "short": "\n".join([*_wrapped(_claims(index, glance)), "", *highest]),
        "long": "\n".join([*long, "", *_scores(main, tasks, others)]),
    }


def _as_markdown(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    head, *rest = (f"| {' | '.join(row)} |" for row in rows)
    yield from (head, "|---" * len(rows[0]) + "|", *rest)


def _claims(index: RunIndex, glance: Glance) -> str:
    return " ".join(filter(None, (f"{_held(index)}.", glance.claims, _in_regime(index))))


def _in_regime(index: RunIndex) -> str:
    """Which tasks meet the criteria of the paper's regime, in a sentence; with their models where these differ."""
    found = list(regimes(index.records))
    verdicts_of = {one.task: {not other.missed for other in found if other.task == one.task} for one in found}
    of: dict[bool, list[str]] = {True: [], False: []}
    for one in found:
        of[not one.missed].append(one.task_label if len(verdicts_of[one.task]) == 1 else one.label)
    met, missed = (join.join(dict.fromkeys(of[meets])) for meets, join in ((True, " and "), (False, " or ")))
    if not found:
        return ""
    which = f"hold for {met or 'no task'}" + (f", not for {missed}" if met and missed else "")
    return f"As far as records tell, the [criteria](docs/tiny-regime.md) of the paper's regime {which}."


def _held(index: RunIndex) -> str:
    return f"`results/paper-tiny/` holds {len(index.records)} runs at the preset `{PRESET}`"


def _runs(index: RunIndex) -> str:
    """How many runs of which suite."""
    every = [index.select(find_table(name, PRESET)) for name in (*TABLE_NAMES, *ABLATIONS)]
    made = {spec: bool(runs) for selection in every for spec, runs in selection.runs.items()}
    which = f"all {len(made)} settings" if all(made.values()) else f"{sum(made.values())} of the {len(made)} settings"
    return f"{_held(index)}, of {which} of the suite, by training seed: {_seeds(index)}."


def _commits(index: RunIndex) -> str:
    commits = {git.commit[:7] for record in index.records if (git := record.environment.git) and git.commit}
    versions = {record.environment.distillm_bench for record in index.records}
    return f"{', '.join(sorted(commits))} of version {', '.join(sorted(versions))}"


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


def _claims_table(found: Sequence[ClaimVerdict], columns: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """The claims with what runs of each setting say of them."""
    yield f"| claim (confidence that the paper makes it) | {' | '.join(columns)} |"
    yield "|---|" + "---|" * len(columns)
    for one in found:
        told = " | ".join(column[one.claim.id] for column in columns.values())
        yield f"| {one.title} ({one.claim.confidence}) | {told} |"


def _verdicts(glance: Glance) -> Iterator[str]:
    for heading, claims in glance.verdicts.items():
        yield from (f"## {heading}", "")
        for one in claims:
            deciding = f" {one.deciding.what}: {effect(one.deciding)}." if one.deciding else ""
            others = f" {told}" if (told := glance.elsewhere.get(one.claim.id)) else ""
            yield from _item(f"{one.title} ({where(one)}): {one.reason}.{deciding}{others}")
        yield ""


def _scores(tiny: FilledTable, tasks: FilledTable, others: Mapping[str, RunIndex]) -> Iterator[str]:
    """Scores and times of the main table and of Table 3: of the preset, and beside it of those that extend it."""
    yield from ("## Scores", "")
    yield from _wrapped(
        "On the test sets, mean ± standard deviation over training seeds. Bold: the best of a column. "
        f"{AS_GOOD_AS_BEST}: not significantly different from the best. {TOO_NOISY}: too noisy to tell. "
        "All methods have one learning rate and as many steps, where nothing else is said."
    )
    main = {f"Dolly{of}": _column(filled, 1) for of, filled in _beside(tiny, others)}
    main["time / KLD"] = _column(tiny, tiny.views[0].headings.index(TIME_LABEL))
    yield from ("", *_side_by_side(main), "")
    columns = {}
    found = _beside(tasks, others)
    for column in tasks.table.columns:
        for of, filled in found:
            if (number := _place(filled, column)) is not None:
                columns[f"{column.label}{of}"] = _column(filled, number)
    if tasks.selection.records:
        yield from (*_side_by_side(columns), "")
    for of, filled in [*_beside(tiny, others), *found]:
        for note in unused_notes(filled.table, filled.selection):
            yield from (*_wrapped(f"{filled.table.title}{of}: {note}"), "")
    tables = (
        f"The [main table]({TABLES}/main-tiny-measured.md) and [Table 3]({TABLES}/table3-tiny-measured.md) have more."
    )
    known = "; ".join(f"Dolly{of}: {told}" for of, one in _beside(tiny, others) if (told := _visible_on_dolly(one)))
    least = (
        f" The difference to the best that the test finds with 80 % probability, in points: {known}. Below it, a "
        f'{AS_GOOD_AS_BEST} may mean "unknown" rather than "equal".'
        if known
        else ""
    )
    yield from _wrapped(f"{tables} Time is of training, relative to the median of KLD's.{least}")
    for name, index in others.items():
        yield from ("", *_wrapped(f"{name.capitalize()}: {_about(index)}"))


def _visible_on_dolly(filled: FilledTable) -> str:
    """The smallest difference to the best that is found, and by themselves those of methods with their own variance."""
    if (least := filled.statistics.minimum_detectable.get("dolly")) is None:
        return ""
    labels = filled.table.row_labels
    own = filled.statistics.detectable_of_louder("dolly")
    return ", ".join([f"{least:.2f}", *(f"{value:.2f} of {labels[row]}" for row, value in own.items())])


def _beside(filled: FilledTable, others: Mapping[str, RunIndex]) -> list[tuple[str, FilledTable]]:
    """A table of the preset, then the same of presets that extend it, where there are runs for it."""
    more = [(f", {name}", fill_table(index, filled.table.name)) for name, index in others.items()]
    return [("", filled), *((of, one) for of, one in more if one.selection.records)]


def _place(filled: FilledTable, column: Column) -> int | None:
    """Where a table as measured has the runs of a column's task and pair, whatever it calls them."""
    same = [one.label for one in filled.table.columns if (one.group, one.task) == (column.group, column.task)]
    return filled.views[0].headings.index(same[0]) if same else None


def _column(filled: FilledTable, number: int) -> dict[str, str]:
    """A column of a table as measured, by the labels of its rows."""
    view = filled.views[0]
    return {row[0].text: f"**{row[number].text}**" if row[number].bold else row[number].text for row in view.rows}


def _side_by_side(columns: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    yield f"| | {' | '.join(columns)} |"
    yield "|---|" + "--:|" * len(columns)
    for label in next(iter(columns.values())):
        yield f"| {label} | {' | '.join(column.get(label, '') for column in columns.values())} |"


def _about(index: RunIndex) -> str:
    """How the runs of a preset that extends the published one came about."""
    told = [
        note for note in setting_notes(index.records) if note.startswith(("Learning rate tuned", "Best at the edge"))
    ]
    summary = read_preset(index.preset).summary
    return f"{' '.join(told) or f'{summary}.'} Training seeds {_seeds(index)}."


def _seeds(index: RunIndex) -> str:
    """The training seeds, those with as many runs together."""
    count = Counter(record.seed for record in index.records)
    seeds: dict[int, list[str]] = {}
    for seed in sorted(count):
        seeds.setdefault(count[seed], []).append(str(seed))
    return ", ".join(f"{', '.join(these)} ({runs}{' each' if len(these) > 1 else ''})" for runs, these in seeds.items())


def replaced(page: str, section: str, begin: str = BEGIN, end: str = END) -> str:
    """A page with its section replaced.

    Raises:
        BenchError: it has no marks for one.
    """
    before, there, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not there or not ended:
        raise BenchError(f"the page has no section to write: put {begin} and {end} around where it is to be")
    return f"{before}{begin}\n{section}\n{end}{after}"


@click.command(cls=ErrorReporting)
@click.option("--out", type=FOLDER, default=Path("results/paper-tiny"), show_default=True, help="Results folder.")
def main(out: Path) -> None:
    """Write the sections of README.md, docs/results.md and docs/performance.md anew, from the folder that holds all."""
    made = sections(out)
    for name, kind in PAGES.items():
        path = Path(name)
        write_bytes(path, replaced(path.read_text(encoding="utf-8"), made[kind]).encode())
        say(str(path))
    path = Path("docs/performance.md")
    page = replaced(
        path.read_text(encoding="utf-8"), performance.section(out.parent), performance.BEGIN, performance.END
    )
    write_bytes(path, page.encode())
    say(str(path))


if __name__ == "__main__":
    main()
