"""What stands below a table: everything a reader needs to judge it or to make it again."""

from __future__ import annotations

from collections.abc import Iterable

from bench.record.store import Record
from paper_tables.numbers.cells import LEVEL, Measurement
from paper_tables.numbers.runs import Selection
from paper_tables.paper.tables import Table

SIGNS = "†"


def measured_notes(table: Table, selection: Selection, measurement: Measurement, resamples: int) -> list[str]:
    """Sentences about how the numbers came about."""
    records = selection.records
    if not records:
        return ["Nothing is recorded for this table."]
    seeds = sorted({record["config"]["seed"] for record in records})
    metrics = _joined(record["metric"]["name"] for record in records)
    notes = [
        f"{metrics}: mean ± standard deviation over n of the training seeds {_list(seeds)}, each the mean over "
        f"decoding seeds. Bold: the best of a column. {SIGNS}: its difference to the best is not significant at "
        f"{100 * LEVEL:g} % (paired bootstrap over training seeds and examples, {resamples} resamples; with several "
        "seeds Student's t, degrees of freedom of Satterthwaite; Holm's correction over the column)."
    ]
    if any(cell.sd is None for cell in measurement.cells.values()):
        notes.append("Where n is 1, the test takes the training run as given and says nothing of other seeds.")
    if measurement.seen:
        labels = {column.name: column.label for column in table.columns}
        seen = ", ".join(f"{labels[name]} {value:.2f}" for name, value in measurement.seen.items())
        notes.append(f"The smallest differences to the best that it would find with 80 % probability: {seen}.")
    if table.timed:
        notes.append(_of_times(table, measurement))
    return [*notes, *setting_notes(records)]


def _of_times(table: Table, measurement: Measurement) -> str:
    labels = {row.name: row.label for row in table.rows}
    by_count: dict[int, list[str]] = {}
    for name, cell in measurement.times.items():
        by_count.setdefault(len(cell.runs), []).append(labels[name])
    counts = "; ".join(f"n = {n} of {_list(by_count[n])}" for n in sorted(by_count, reverse=True))
    note = "Time: of training, relative to KLD, of runs that had the machine to themselves"
    return f"{note} ({counts})." if counts else f"{note}."


def setting_notes(records: list[Record]) -> list[str]:
    """Models, data, decoding, hardware and software of some records."""
    return [
        f"Preset: {_joined(record['config']['preset'] for record in records)}.",
        f"Models: {_joined(map(_models, records))}.",
        f"Data: {_joined(map(_data, records))}.",
        f"Decoding: {_joined(map(_decoding, records))}.",
        f"Hardware: {_joined(map(_hardware, records))}.",
        f"Software: {_joined(map(_software, records))}.",
    ]


def _models(record: Record) -> str:
    models = record["models"]
    return (
        f"{record['config']['models']['name']} (teacher {models['teacher_parameters']:,} parameters, "
        f"student {models['student_parameters']:,})"
    )


def _data(record: Record) -> str:
    examples = dict(record["data"]["examples"])
    train, validation = examples.pop("train", 0), examples.pop("validation", 0)
    tests = ", ".join(f"{name} {count}" for name, count in examples.items())
    return (
        f"{record['config']['task']}, {record['data']['source']}: {train} training and {validation} validation "
        f"examples, test sets {tests}"
    )


def _decoding(record: Record) -> str:
    config = record["config"]
    one = config["evaluation"]
    how = f"temperature {one['temperature']:g}, top-p {one['top_p']:g}, top-k {one['top_k'] or 'off'}"
    seeds = list(next(iter(record["scores"].values()))["by_decoding_seed"])
    return f"{how}, at most {config['data']['max_response_length']} tokens, seeds {_list(seeds)}"


def _hardware(record: Record) -> str:
    environment = record["environment"]
    threads = f"{environment['threads']} thread{'' if environment['threads'] == 1 else 's'}"
    return f"{environment['device_name']}; {environment['cpu']}, {threads}"


def _software(record: Record) -> str:
    environment = record["environment"]
    packages = environment["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in ("torch", "transformers") if name in packages)
    git = environment.get("git")
    commit = f" at {git['commit'][:10]}{' with changes' if git['changed'] else ''}" if git else ""
    return f"distillm-bench {environment['distillm_bench']}{commit}, Python {environment['python']}, {versions}"


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(sorted(set(texts)))


def _list(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values)
