"""Verdicts on claims for readers: in a terminal and as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.analysis.significance import MOST_SEEDS
from bench.cli.fit import Fitted, plain_table
from bench.system.cells import escape_markdown
from paper_tables.claims.comparisons import ClaimComparison
from paper_tables.claims.verdicts import VERDICT_WORDS, VERDICTS, ClaimVerdict, held_of, p_in_words
from paper_tables.numbers.cells import SIGNIFICANCE
from paper_tables.paper.published_values import sources

POWER = (
    "Of an open comparison, *visible from* is the smallest distance from the claimed limit (of times, the factor) that "
    "its seeds would show with 80 % probability, and *repeats needed* the number of seeds, runs or students that would "
    "show the distance measured."
)
NO_SOURCES = {"P": "the paper's own abstract", "none": "nobody; inferred, as the note says"}
"""What stands as a claim's source and is none of those of published values."""
CONFIDENCE = {"H": "high", "M": "medium", "L": "low"}
"""That the paper makes a claim."""


def counted(found: Sequence[ClaimVerdict]) -> str:
    """How many claims came out how: those that a source reports, apart those that none does."""
    groups = {
        "that others report the paper to make": [one for one in found if one.claim.is_sourced],
        "that nobody reports, inferred by us": [one for one in found if not one.claim.is_sourced],
    }
    told = [f"{len(its)} {which} ({_each(its)})" for which, its in groups.items() if its]
    return f"{_claims(len(found))}: {'; '.join(told)}."


def _claims(count: int) -> str:
    return f"{count} claim{'s' if count != 1 else ''}"


def _each(found: Sequence[ClaimVerdict]) -> str:
    counts = Counter(one.verdict for one in found)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])


def tally(found: Sequence[ClaimVerdict]) -> list[list[str]]:
    """Verdicts counted by how sure it is that the paper makes the claim: headings, then a row a level."""
    of_level = {
        word: [one.verdict for one in found if one.claim.is_sourced and one.claim.confidence == level]
        for level, word in CONFIDENCE.items()
    }
    of_level["none: inferred by us"] = [one.verdict for one in found if not one.claim.is_sourced]
    rows = [[word, *(str(its.count(verdict)) for verdict in VERDICTS)] for word, its in of_level.items() if its]
    return [["confidence that the paper makes the claim", *VERDICTS], *rows]


def tally_as_markdown(found: Sequence[ClaimVerdict]) -> list[str]:
    """The lines of a table of `tally`."""
    headings, *rows = (f"| {' | '.join(row)} |" for row in tally(found))
    return [headings, "|---|" + "--:|" * len(VERDICTS), *rows]


def summary(found: Sequence[ClaimVerdict], preset: str) -> str:
    """How many of each verdict, and what they speak of."""
    scope = "" if preset == "paper" else f" They hold for the models and data of preset {preset}, not for the paper's."
    tested = max((one.corrected_for for one in found), default=0)
    corrected = (
        f" Corrected for {tested} claims with evidence, so that of the verdicts reproduced and not reproduced at most "
        f"{100 * SIGNIFICANCE:g} % are wrong on average (Benjamini-Hochberg)."
        if tested > 1
        else ""
    )
    return f"{counted(found)}{scope}{corrected}"


def effect(comparison: ClaimComparison) -> str:
    """The measured effect with its interval, beside where it is claimed to be."""
    if comparison.effect is None or comparison.low is None or comparison.high is None:
        return comparison.missing
    sign = "+" if comparison.even == 0 else ""
    value, low, high = (f"{v:{sign}.2f}" for v in (comparison.effect, comparison.low, comparison.high))
    interval = f" [{low}, {high}]" if low != high else ""
    claimed = ">" if comparison.side == "above" else "<"
    up_to = ""
    if comparison.rounding:
        claimed, up_to = {">": "≥", "<": "≤"}[claimed], f" (equal up to {comparison.rounding:g})"
    return f"{value}{interval} {comparison.unit}, claimed {claimed} {comparison.threshold:.4g}{up_to}"


def where(found: ClaimVerdict) -> str:
    """Where in the paper a claim stands, and how sure it is that it does."""
    return f"{found.claim.where}; {found.claim.confidence}"


def elsewhere(found: ClaimVerdict) -> str:
    """What came out on the sets of its table that a claim does not name, with what is against it; "" without any."""
    if not found.elsewhere:
        return ""
    against = "; ".join(f"{one.what}: {effect(one)}" for one in found.elsewhere if one.holds is False)
    return held_of(found.elsewhere) + (f" ({against})" if against else "")


def on_other_sets(told: Iterable[str]) -> str:
    """What `elsewhere` says, of one or more settings, in a sentence; "" where it says nothing."""
    said = "; ".join(filter(None, told))
    return f"On the other sets of its table, which decide nothing here: {said}." if said else ""


def of_scores(found: ClaimVerdict) -> str:
    """The p-value of a claim about scores if these alone were corrected; "" of others, and where nothing is known."""
    if found.p_of_scores is None:
        return ""
    p, alone = p_in_words(found.p), p_in_words(found.p_of_scores)
    return (
        f"corrected among all {_claims(found.corrected_for)}: {p}; among the {found.scores_corrected_for} about "
        f"scores alone: {alone}"
    )


def sentence(text: str) -> str:
    """With a capital and a full stop; "" as it is."""
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _legend(found: Sequence[ClaimVerdict]) -> Iterator[str]:
    """What letters and tags of sources stand for."""
    levels = ", ".join(f"{level} = {word}" for level, word in CONFIDENCE.items())
    yield f"Confidence that the paper makes a claim: {levels}. Sources, which stand below each claim:"
    yield ""
    tags = {tag for one in found for tag in one.claim.sources}
    yield from (f"- {tag}: {escape_markdown(what)}" for tag, what in {**sources(), **NO_SOURCES}.items() if tag in tags)


def power(comparison: ClaimComparison) -> tuple[str, str]:
    """From where an open comparison would be seen, and how many repeats would see what was measured; else ""."""
    if comparison.visible is None:
        return "", ""
    return f"{comparison.visible:.2f}", str(comparison.repeats or f"over {MOST_SEEDS}")


def as_table(found: Sequence[ClaimVerdict], preset: str) -> RenderableType:
    """For a terminal: a row a claim, with the comparison that speaks most against it, or most for an "up to"."""
    table = Table(box=None, pad_edge=False)
    for heading in ("claim", "verdict", "deciding comparison"):
        table.add_column(heading)
    for one in found:
        deciding = one.deciding
        detail = f"{deciding.what}: {effect(deciding)}\n" if deciding else ""
        claim = Text.assemble(one.claim.id, "\n", (f"{one.title} ({where(one)})", "dim"))
        reason = Text.assemble(f"{detail}{one.reason}; {len(one.runs)} runs\n", (one.scope, "dim"))
        table.add_row(claim, Text(one.verdict, VERDICT_WORDS[one.verdict].style), reason)
        table.add_row("", "", "")
    headings, *rows = tally(found)
    counts = plain_table(headings)
    for row in rows:
        counts.add_row(*row)
    return Group(Fitted(table), Text(f"{summary(found, preset)}\n"), Fitted(counts))


def as_markdown(found: Sequence[ClaimVerdict], preset: str) -> str:
    """For a document: a table of verdicts, then every comparison, the open ones with what they could have shown."""
    md = escape_markdown
    lines = ["# Claims", "", md(summary(found, preset)), "", *tally_as_markdown(found), "", POWER, ""]
    lines += ["| claim | where | verdict | reason |", "|---|---|---|---|"]
    lines += [f"| {one.title} | {where(one)} | {one.verdict} | {md(one.reason)} |" for one in found]
    lines += ["", *_legend(found)]
    for one in found:
        lines += ["", f"## {one.claim.id}", "", f"{one.title} ({one.claim.where}). **{one.verdict}**"]
        lines += [
            " ".join([f"Source: {one.claim.source} ({one.claim.confidence}).", one.claim.note]).strip(),
            "",
            md(one.scope),
            "",
            "| comparison | effect, 95 % interval | outcome | visible from | repeats needed |",
            "|---|---|---|---|---|",
        ]
        for c in one.comparisons:
            visible, needed = power(c)
            lines.append(f"| {md(c.what)} | {md(effect(c))} | {c.outcome} | {visible} | {needed} |")
        notes = " ".join(filter(None, (sentence(of_scores(one)), on_other_sets([elsewhere(one)]))))
        lines += ["", md(notes)] if notes else []
        lines += ["", f"Runs: {', '.join(map(md, one.runs))}."] if one.runs else []
    return "\n".join(lines)
