"""What stands below a table: everything a reader needs to judge it or to make it again."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from bench.analysis.student_outputs import none_used
from bench.config.presets import read_preset
from bench.record.record import RunRecord
from paper_tables.numbers.cells import (
    SIGNIFICANCE,
    TableStatistics,
    exclusively_timed,
    spread_note,
    training_seconds,
)
from paper_tables.numbers.runs import RunIndex, Selection
from paper_tables.paper.methods import METHOD_LABELS
from paper_tables.paper.tables import Table
from paper_tables.tables.rendered import AS_GOOD_AS_BEST, NOT_TRAINED_HERE, TOO_NOISY


def title(table: Table, view: str) -> str:
    """The first sentence of a caption."""
    return f"{table.title}, {view}: {table.caption}."


def measured_notes(table: Table, selection: Selection, found: TableStatistics, spent: Sequence[str] = ()) -> list[str]:
    """Sentences about how the numbers came about; `spent` are those about what runs and trials took."""
    records = selection.records
    evaluated = [_evaluated_note(run.record for run in selection.evaluated)] if selection.evaluated else []
    if not records:
        nothing = "No run is recorded for this table." if evaluated else "Nothing is recorded for this table."
        scored = setting_notes([run.record for run in selection.evaluated]) if evaluated else []
        return [nothing, *evaluated, *(note for note in scored if not note.startswith("Models:"))]
    metrics = _joined(record.metric.label for record in records)
    notes = [
        f"{metrics}: mean ± standard deviation over n of the training seeds {selection.seed_list}, each the mean "
        f"over decoding seeds. Bold: the best of a column. {AS_GOOD_AS_BEST}: not significantly different from the "
        f"best at {100 * SIGNIFICANCE:g} % (Student's t of differences within training seeds, over seeds and examples; "
        "Tukey's test over the column)."
    ]
    notes += [table.note] if table.note else []
    labels = table.column_labels
    if found.noise:
        notes.append(_noise_note(found, labels))
    if found.below_init:
        rows = table.row_labels
        notes.append(f"Below its own init student: {_list(f'{rows[r]} ({labels[c]})' for r, c in found.below_init)}.")
    notes += unused_notes(table, selection)
    if found.minimum_detectable:
        notes += _detectable_notes(table, found, labels)
    if table.timed:
        notes += [_time_note(table, found), *_slow_notes(table, found), COST_NOTE]
    return [*notes, *spent, *evaluated, *setting_notes(records)]


def unused_notes(table: Table, selection: Selection) -> Iterable[str]:
    """Which cells are of runs that were to use student outputs as φ adapts, and never did."""
    groups = {column.group: column.label for column in reversed(table.columns)}
    cells: dict[str, list[str]] = {}
    for row in table.rows:
        for group, spec in row.specs.items():
            if group in groups and (told := none_used(run.record for run in selection.runs[spec])):
                cells.setdefault(told, []).append(f"{row.label} ({groups[group]})" if len(groups) > 1 else row.label)
    yield from (f"{_list(its)}: {told}." for told, its in cells.items())


def _detectable_notes(table: Table, found: TableStatistics, labels: Mapping[str, str]) -> Iterable[str]:
    """What differences to the best a column would show, and what it would of each method that has its own variance."""
    smallest = ", ".join(f"{labels[name]} {value:.2f}" for name, value in found.minimum_detectable.items())
    yield f"Minimum detectable difference to the best (80 % power, median over a column's methods): {smallest}."
    rows = table.row_labels
    alone = [
        f"{label}: {_list(f'{rows[row]} {value:.2f}' for row, value in own.items())}"
        for column, label in labels.items()
        if (own := found.detectable_of_louder(column))
    ]
    if alone:
        yield f"That of methods which keep their own variance, by themselves: {'; '.join(alone)}."
    if any(cell.too_noisy for cell in found.cells.values()):
        yield (
            f"{TOO_NOISY}: not significantly different from the best, but by the variance of one method alone, so that "
            "a large difference may not show either: too noisy to tell."
        )


def _evaluated_note(records: Iterable[RunRecord]) -> str:
    """How the models came about that were not trained here."""
    told = []
    for record in records:
        seeds = len(next(iter(record.scores.values())).primary.by_decoding_seed)
        parameters = f"{record.models.student_parameters:,} parameters"
        told.append(f"{record.evaluated} ({parameters}, {seeds} decoding seed{'s' * (seeds > 1)})")
    return f"{NOT_TRAINED_HERE}: not trained here, scored as it is, in no test: {_joined(told)}."


def _noise_note(found: TableStatistics, labels: Mapping[str, str]) -> str:
    """Where the seeds' noise is pooled over the arms, and where not."""
    if not any(found.noise.values()):
        return "No method has two seeds: the test takes training runs as given and says nothing about others."
    if not any(noise and noise.residual for noise in found.noise.values()):
        return "No two methods share two seeds: each difference takes the spread of the two methods' own seeds."
    pooled = "The seeds' residuals are pooled over the table's methods"
    uneven = {name: noise for name, noise in found.noise.items() if noise and noise.louder}
    if not uneven:
        return f"{pooled}, whose variances a test finds no different."
    # an arm has its column in its name where a table has several settings of a row
    arms = {
        name: _list(arm.removesuffix(f", {labels[name]}") for arm in noise.louder) for name, noise in uneven.items()
    }
    where = "; ".join(f"{labels[name]}: {arms[name]} (p = {noise.p_equal:.2g})" for name, noise in uneven.items())
    return f"{pooled} but those whose own a test finds larger, which keep that variance: {where}."


COST_NOTE = (
    "Before: what a method needs before its training (init student, the teacher's responses), in the unit of time, as "
    "measured once, whatever else ran then; empty where it is not recorded. Tokens: of responses, means over runs."
)


def _time_note(table: Table, found: TableStatistics) -> str:
    labels = table.row_labels
    by_count: dict[int, list[str]] = {}
    for name, cell in found.times.items():
        by_count.setdefault(len(cell.runs), []).append(labels[name])
    counts = "; ".join(f"n = {n} of {_list(by_count[n])}" for n in sorted(by_count, reverse=True))
    note = "Time: training time relative to KLD's median, of exclusively timed runs (nothing else ran on the machine)"
    return f"{note}; {counts}." if counts else f"{note}."


def _slow_notes(table: Table, found: TableStatistics) -> Iterable[str]:
    if found.spreads:
        yield spread_note({row.label: found.spreads[row.name] for row in table.rows if row.name in found.spreads})
    if found.slow_few:
        slow = _list(f"{name} by {share:.0%}" for name, share in found.slow_few.items())
        yield f"Slower a step than other rows of the same kind, with too few runs to know why: {slow}."
    if found.slow:
        slow = _list(f"{name} by {share:.0%}" for name, share in found.slow.items())
        yield f"Slower than the others of its row by more than these differ: {slow}."
    again = {run.record.run_id: run.record.time for cell in found.times.values() for run in cell.runs}
    if told := _list(
        f"{name} ({' s, then '.join(f'{seconds:.3g}' for seconds in reversed(time.earlier))} s before)"
        for name, time in again.items()
        if time.earlier
    ):
        yield f"Timed more than once, the last counts: {told}."


def spent_notes(index: RunIndex, table: Table, selection: Selection) -> list[str]:
    """Sentences with the seconds of a run by row, of tables that have times, and with those of the trials before it."""
    runs_of = {row.label: runs for row in table.rows if (runs := selection.of_row(row))}
    notes = []
    if table.timed and runs_of:
        timed = {label: runs for label, runs in exclusively_timed(runs_of).items() if runs}
        medians = {label: statistics.median(map(training_seconds, its)) for label, its in (timed or runs_of).items()}
        which = "of exclusively timed runs" if timed else "whatever else ran then, so not to be compared"
        notes.append(f"Seconds of training of a run, the median, {which}: {_seconds(medians)}.")
    preset = read_preset(index.preset)
    specs_of = {row.label: row.specs.values() for row in table.rows if row.label in runs_of}
    known = {
        label: [entry.seconds for task, method in found if (entry := preset.tuned(task, method))]
        for label, specs in specs_of.items()
        for found in [dict.fromkeys((spec.task, spec.method) for spec in specs if selection.runs[spec])]
    }
    if tuned := {label: sum(its) for label, its in known.items() if its}:
        notes.append(f"Tuning, seconds that all trials of a method took, which a run's leave out: {_seconds(tuned)}.")
    return notes


def _seconds(seconds: dict[str, float]) -> str:
    return ", ".join(f"{label} {value:.0f}" for label, value in seconds.items())


def setting_notes(records: list[RunRecord]) -> list[str]:
    """Models, data, decoding, methods' own settings, hardware and software of some records."""
    own = {line for record in records for line in _method_settings(record)}
    return [
        f"Preset: {_joined(record.config.preset for record in records)}.",
        f"Models: {_joined(map(_models, records))}.",
        f"Data: {_joined(map(_data, records))}.",
        f"Decoding: {_joined(map(_decoding, records))}.",
        *_tuning_notes(records),
        *([f"Training settings that the preset gives single methods: {_joined(own)}."] if own else []),
        f"Hardware: {_joined(record.environment.hardware for record in records)}.",
        f"Software: {_joined(map(_software, records))}.",
    ]


def _tuning_notes(records: list[RunRecord]) -> Iterable[str]:
    """With how many trials the methods' settings were tuned, on which tasks, and where the best was the last tried."""
    tuned = [(record, record.config.tuning) for record in records if record.config.tuning]
    budgets: dict[str, set[str]] = {}
    for record, one in tuned:
        budget = f"{one.trials} trials a method and task, training seeds {_list(one.seeds)}"
        budgets.setdefault(budget, set()).add(record.task)
    for budget, tasks in sorted(budgets.items()):
        yield (
            f"Learning rate tuned on {_joined(tasks)}: {budget}, on validation; the same kind of space for all, around "
            "the preset's rate."
        )
    own = {f"{_name(record)} {key}" for record, one in tuned for key in one.space if key.startswith("method.")}
    if own:
        yield f"Tuned within these trials as well: {_joined(own)}."
    edge = {f"{_name(record)} ({record.task}) {key}" for record, one in tuned for key in one.at_the_edge}
    if edge:
        yield f"Best at the edge of what was tried, so that better may lie beyond: {_joined(edge)}."
    rest = {record.task for record in records if not record.config.tuning} if tuned else set()
    if rest:
        yield f"Not tuned: the methods on {_joined(rest)}."


def _name(record: RunRecord) -> str:
    return METHOD_LABELS.get(record.config.method.name, record.config.method.name)


def _method_settings(record: RunRecord) -> Iterable[str]:
    """What the preset gives the record's method alone; all methods share the rest."""
    settings = record.config.method_settings
    if settings:
        where = f" on {record.task}" if record.config.tuning else ""
        yield f"{_name(record)}{where} {', '.join(f'{key} = {value}' for key, value in settings.items())}"


def _models(record: RunRecord) -> str:
    models = record.models
    return (
        f"{record.config.models.name} (teacher {models.teacher_parameters:,} parameters, "
        f"student {models.student_parameters:,})"
    )


def _data(record: RunRecord) -> str:
    examples = dict(record.data.examples)
    train, validation = examples.pop("train", 0), examples.pop("validation", 0)
    tests = ", ".join(f"{name} {count}" for name, count in examples.items())
    return (
        f"{record.task}, {record.data.source}: {train} training and {validation} validation examples, test sets {tests}"
    )


def _decoding(record: RunRecord) -> str:
    one = record.config.evaluation
    how = f"temperature {one.temperature:g}, top-p {one.top_p:g}, top-k {one.top_k or 'off'}"
    seeds = next(iter(record.scores.values())).primary.by_decoding_seed
    return f"{how}, at most {record.config.data.max_response_length} tokens, seeds {_list(seeds)}"


def _software(record: RunRecord) -> str:
    environment = record.environment
    versions = ", ".join(
        f"{name} {environment.packages[name]}" for name in ("torch", "transformers") if name in environment.packages
    )
    git = environment.git
    commit = f" at {git.commit[:10]}{' with changes' if git.changed else ''}" if git else ""
    return f"distillm-bench {environment.distillm_bench}{commit}, Python {environment.python}, {versions}"


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(sorted(set(texts)))


def _list(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values)
