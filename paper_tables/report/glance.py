"""The report's first screen: what holds, what does not, what is open, at which scale, and what to use."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.analysis.student_outputs import none_used
from bench.record.record import RunRecord
from paper_tables.claims.beside import ONE_RATE, columns_of, verdicts_beside
from paper_tables.claims.format import elsewhere, on_other_sets
from paper_tables.claims.verdicts import VERDICT_WORDS, ClaimVerdict, Verdict
from paper_tables.numbers.cells import SIGNIFICANCE
from paper_tables.numbers.regime import PRESET, more_steps, regimes
from paper_tables.numbers.runs import RunIndex
from paper_tables.paper.tables import Column
from paper_tables.tables.captions import setting_notes
from paper_tables.tables.make import FilledTable, fill_table

SHOWN_COLUMNS = {"main": 1, "3": None}
"""Tables whose best methods are named, in this order, with how many of their columns; None for all."""
HIGHEST_LEGEND = "Highest score on each task's own test set, or what the test does not tell apart from it"
_WITH_SETTINGS = "one learning rate for all methods, tuned rates, or as many steps as take DistiLLM's time"


@dataclass(frozen=True)
class Best:
    """The best method of a table's column, of runs with some settings.

    Attributes:
        setting: what the runs have alike: one rate, tuned rates, equal time; "" where nothing else was run.
        group: of the column, the same with every setting.
        column: the table's, as readers see it, without the metric.
        method: the label of the best.
        by_all_sets: that of the best by the mean of all sets that its runs were scored on.
        as_good: labels of those that are not told apart from it.
        runs: of the best.
        unused: how many of these were to use student outputs as φ adapts, and never did.
        line: all of it, with scores, for a list.
    """

    setting: str
    group: str
    column: str
    method: str
    by_all_sets: str
    as_good: tuple[str, ...]
    runs: int
    unused: int
    line: str


@dataclass(frozen=True)
class Glance:
    """What the first screen says.

    Attributes:
        scale: models and hardware that everything speaks of.
        claims: which claims hold, and how many of which kind do not, in two sentences.
        highest: rows of a table with a head: which methods scored best with each setting, by task; empty where none
            were compared.
        highest_legend: what stands above it.
        verdicts: by heading; headings without a claim are left out.
        columns: what the runs say of each claim, and beside it those of presets that extend theirs, by heading
            and the claim's id, in few words.
        elsewhere: by the id of a reproduced claim, what the sets of its table say that it does not name.
        regime: by task and models, whether the criteria of the paper's regime hold, and what more steps do to SFT; of
            the preset that they are for.
        best: what scored best on each task, with each setting, and what it is not told apart from.
        warnings: methods that end below the student they started from.
    """

    scale: tuple[str, ...]
    claims: str
    highest: tuple[tuple[str, ...], ...]
    highest_legend: str
    verdicts: dict[str, tuple[ClaimVerdict, ...]]
    columns: Mapping[str, Mapping[str, str]]
    elsewhere: Mapping[str, str]
    regime: tuple[str, ...]
    best: tuple[Best, ...]
    warnings: tuple[str, ...]


def at_a_glance(
    found: Sequence[ClaimVerdict],
    filled: Sequence[FilledTable],
    records: list[RunRecord],
    others: Mapping[str, RunIndex],
) -> Glance:
    """The first screen from verdicts, all tables and the records behind them.

    Args:
        found: the verdicts.
        filled: the tables.
        records: of the runs.
        others: runs with other settings, by their names.
    """
    preset = records[0].config.preset if records else ""
    of_regime = preset == PRESET
    groups = {
        words.heading: tuple(one for one in found if one.verdict == verdict) for verdict, words in VERDICT_WORDS.items()
    }
    own = ONE_RATE if others or of_regime else preset or ONE_RATE
    told = verdicts_beside(others)
    shown = [table for name in SHOWN_COLUMNS for table in filled if table.table.name == name]
    best = [one for table in shown for one in _best_methods(table, own if others else "")]
    for name, index in others.items():
        best += [one for table in SHOWN_COLUMNS for one in _best_methods(fill_table(index, table), name)]
    # of a task of one's own both tables have the same runs, and a column for each set: its first is the main one
    best = list({(one.setting, one.group): one for one in reversed(best)}.values())[::-1]
    groups_of_best = list(dict.fromkeys(one.group for one in best))
    best.sort(key=lambda one: groups_of_best.index(one.group))  # each task's settings beside each other
    more = [line for name, index in others.items() for line in more_steps(records, index.records, name)]
    return Glance(
        scale=tuple(note for note in setting_notes(records) if note.startswith(("Models:", "Hardware:"))),
        claims=f"{_holding(found)} {_not_holding(found)}".strip(),
        highest=_highest(best),
        highest_legend=f"{HIGHEST_LEGEND}, with {_WITH_SETTINGS}:" if others else f"{HIGHEST_LEGEND}:",
        verdicts={text: ones for text, ones in groups.items() if ones},
        columns=columns_of(found, told, own),
        elsewhere=_elsewhere({own: found, **told}),
        regime=(*map(str, regimes(records)), *more) if of_regime else (),
        best=tuple(best),
        warnings=tuple(dict.fromkeys(line for one in filled for line in _below_init(one))),
    )


def _holding(found: Sequence[ClaimVerdict]) -> str:
    """Which claims hold, by name, in a sentence; "" without any claim."""
    held = [one for one in found if one.verdict == "reproduced"]
    names = "; ".join(_within(one) + _fragile(one) for one in held)
    return f"{len(held)} of {len(found)} claims hold here{f': {names}' if names else ''}." if found else ""


def _within(one: ClaimVerdict) -> str:
    """A claim within a sentence."""
    return one.title[0].lower() + one.title[1:] if one.title.split()[0].istitle() else one.title


def _fragile(one: ClaimVerdict) -> str:
    """What speaks against a claim that holds; "" where nothing does."""
    against = dict.fromkeys(c.what.rpartition(", ")[2] for c in one.elsewhere if c.holds is False)
    said = [f"the opposite on {', '.join(against)}"] if against else []
    if one.p_of_scores is not None and one.p_of_scores > SIGNIFICANCE:
        said.append("open where claims about scores are corrected alone")
    return f" ({'; '.join(said)})" if said else ""


def _not_holding(found: Sequence[ClaimVerdict]) -> str:
    """How many claims do not hold, were not tested or are open, with names of the first, in a sentence; "" of none."""
    words: Mapping[Verdict, str] = {
        "mechanism not active": "not tested, since runs hardly used student outputs",
        "not enough evidence": "open",
    }
    failed = [one for one in found if one.verdict == "not reproduced"]
    of_time = sum(one.is_about_time for one in failed)
    named = [_within(one) for one in failed if not one.is_about_time and one.claim.confidence != "L"]
    parts = []
    if failed:
        kinds = f"{of_time} about training time, {len(failed) - of_time} about scores and estimates"
        names = f", among them: {'; '.join(named)}" if named else ""
        parts.append(f"{len(failed)} {'does' if len(failed) == 1 else 'do'} not hold ({kinds}{names})")
    counts = Counter(one.verdict for one in found)
    are = {verdict: "is" if count == 1 else "are" for verdict, count in counts.items()}
    parts += [f"{counts[verdict]} {are[verdict]} {said}" for verdict, said in words.items() if counts[verdict]]
    return f"{', '.join(parts)}." if parts else ""


def _highest(best: Sequence[Best]) -> tuple[tuple[str, ...], ...]:
    """A row for each setting and a column for each of the tables', with what is best there; none without any."""
    columns = {one.group: one.column for one in reversed(best)}
    cells = {(one.setting, one.group): _in_a_cell(one) for one in best}
    groups = list(dict.fromkeys(one.group for one in best))
    settings = list(dict.fromkeys(setting for setting, _ in cells))
    rows = [(setting, *(cells.get((setting, group), "") for group in groups)) for setting in settings]
    return (("setting", *(columns[group] for group in groups)), *rows) if rows else ()


def _in_a_cell(one: Best) -> str:
    """A method, and what is not told apart from it: up to two by name."""
    others = one.as_good if len(one.as_good) <= _NAMED else (f"{len(one.as_good)} others",)
    elsewhere = f"by the mean of all sets {one.by_all_sets}" if one.by_all_sets != one.method else ""
    unused = f"{one.method} in {one.unused} of {one.runs} runs on fixed data alone" if one.unused else ""
    return "; ".join(filter(None, (" or ".join((one.method, *others)), elsewhere, unused)))


_NAMED = 2


def _elsewhere(of_setting: Mapping[str, Sequence[ClaimVerdict]]) -> dict[str, str]:
    """By the id of a claim that the first setting's runs reproduce, what each setting's other sets say."""
    own, *_ = of_setting
    held = [one.claim.id for one in of_setting[own] if one.verdict == "reproduced"]
    told: dict[str, list[str]] = {claim: [] for claim in held}
    for name, found in of_setting.items():
        for one in found:
            if one.claim.id in told and (said := elsewhere(one)):
                told[one.claim.id].append(f"{name}, {said}" if len(of_setting) > 1 else said)
    return {claim: on_other_sets(said) for claim, said in told.items() if said}


def _best_methods(filled: FilledTable, setting: str) -> Iterator[Best]:
    for column in filled.table.columns[: SHOWN_COLUMNS[filled.table.name]]:
        yield from _best_of(filled, column, setting)


def _best_of(filled: FilledTable, column: Column, setting: str) -> Iterator[Best]:
    """The best of a column; nothing where fewer than two methods have runs."""
    labels = filled.table.row_labels
    cells = {row: cell for (row, name), cell in filled.statistics.cells.items() if name == column.name}
    best = next((row for row, cell in cells.items() if cell.best), None)
    if best is None:
        return
    metric = cells[best].runs[0].record.metric.label
    label = column.label if metric in column.label else f"{column.label} ({metric})"
    others = sorted((row for row, cell in cells.items() if not cell.best), key=lambda row: -cells[row].mean)
    as_good = [row for row in others if cells[row].as_good_as_best]
    parts = {
        "not told apart from it": as_good,
        "too noisy to tell": [row for row in others if cells[row].too_noisy],
        "not tested": [row for row in others if cells[row].p is None],
    }
    listed = {what: ", ".join(f"{labels[row]} {cells[row].mean:.2f}" for row in rows) for what, rows in parts.items()}
    told = "; ".join(f"{what}: {rows}" for what, rows in listed.items() if rows)
    told = told or "significantly above all others"
    times = {row: filled.statistics.times[row].mean for row in (best, *as_good) if row in filled.statistics.times}
    fastest = min(times, key=lambda row: times[row], default="")
    if as_good and fastest:
        told += f"; least training time of these: {labels[fastest]}, {times[fastest]:.2f} times that of KLD"
    of_student_outputs = {row: none_used(run.record for run in cells[row].runs) for row in (best, *as_good)}
    told += "".join(f"; {labels[row]}: {words}" for row, words in of_student_outputs.items() if words)
    means = _by_all_sets(filled, column)
    first = max(means, key=lambda row: means[row]) if best in means else best
    if best in means:
        sets = sum(one.group == column.group for one in filled.table.columns)
        higher = (
            "it is highest, too" if first == best else f"{labels[first]} is, {means[first]:.2f} to {means[best]:.2f}"
        )
        told += f"; this is the set {column.label} alone: by the mean of all {sets} sets (no test) {higher}"
    # rows that lack a seed may have the higher mean, without what that seed does to all
    at_equal_seeds = " at equal seeds" * any(cell.mean > cells[best].mean for cell in cells.values())
    where = f"{label}, {setting}" if setting else label
    runs = [run.record for run in cells[best].runs]
    yield Best(
        setting=setting,
        group=column.group,
        column=column.label.replace(f" ({metric}), ", " with ").replace(f" ({metric})", ""),
        method=labels[best],
        by_all_sets=labels[first],
        as_good=tuple(labels[row] for row in as_good),
        runs=len(runs),
        unused=sum(bool(none_used([record])) for record in runs),
        line=f"{where}: {labels[best]} {cells[best].mean:.2f} is highest of {len(cells)}{at_equal_seeds}; {told}.",
    )


def _by_all_sets(filled: FilledTable, column: Column) -> dict[str, float]:
    """By row, the mean of all sets that a column's runs were scored on; nothing where that is one set."""
    columns = [one.name for one in filled.table.columns if one.group == column.group]
    cells = filled.statistics.cells
    of_row = {row: [cells[row, name] for name in columns if (row, name) in cells] for row in filled.table.row_labels}
    complete = {row: its for row, its in of_row.items() if len(its) == len(columns) > 1}
    return {row: statistics.fmean(cell.mean for cell in its) for row, its in complete.items()}


def _below_init(filled: FilledTable) -> Iterator[str]:
    rows = filled.table.row_labels
    columns = filled.table.column_labels
    for row, column in filled.statistics.below_init:
        yield f"{rows[row]} ({columns[column]})"
