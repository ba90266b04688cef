"""From raw records to the examples of a task: checks, prompts, overlaps, limits."""

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from bench.data.content import read_content, record_id
from bench.data.examples import DataError, Example, TaskData
from bench.data.hub import from_hub
from bench.data.readers import Progress, RawRecord
from bench.data.registry import TASKS, find_task
from bench.data.sources import RawData, from_folder, from_generator, sample_order
from bench.data.task import SPLITS, HubSet, HubSource, TaskSpec
from bench.system.errors import did_you_mean

_IDS_SHOWN = 3


class _Row(NamedTuple):
    """An example with what its prompt is compared by (`Content.key`)."""

    key: tuple[str, ...]
    example: Example


def load_task(
    task: TaskSpec | str,
    *,
    data_dir: Path | None = None,
    hub: bool | str = False,
    train_file: Path | None = None,
    test_file: Path | None = None,
    template: str | None = None,
    drop_overlap: bool = False,
    limits: Mapping[str, int | None] | None = None,
    seed: int = 0,
    synthetic_splits: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> TaskData:
    """Load a task's examples: from a folder, from the hub, or else from the generator of synthetic data.

    Line ends are turned into "\\n"; other text stays as it is. Records with a blank prompt or response are
    skipped, in every split; a null counts as blank. Whatever was skipped, chosen or found odd is in the notes.

    Args:
        task: The task, its name, or the path of a task file.
        data_dir: Folder of the task, or parent of the folders of the task and its evaluation sets.
        hub: Load from the Hugging Face Hub; an id is that of another data set, or of another revision.
        train_file: File to train on, in place of the folder's own; needs `data_dir`.
        test_file: File to test on, likewise.
        template: Name of the prompt template; None is the task's default for real or synthetic data. Tasks with
            a single template, and chat sets, ignore it.
        drop_overlap: Remove from train the prompts that stand in validation, test or an evaluation-only set,
            and from validation those that stand in test or an evaluation-only set.
        limits: Most examples per split: a random sample fixed by `seed`, in the order of the file, contained in
            every larger sample of the same seed. (The first n would be a few talks of IWSLT, or the shortest
            sentences of a sorted file.)
        seed: Seed of the synthetic data, of the samples, and of splits that are not published.
        synthetic_splits: Splits to generate; None is train, validation, test and the evaluation-only sets.
        progress: Told how much of each file is read.

    Raises:
        BenchError: Unknown task, or a task file that is wrong.
        DataError: Unknown template, data missing or malformed, or a split left without examples.
    """
    spec = find_task(task) if isinstance(task, str) else task
    name = spec.name
    chosen = {split: path for split, path in (("train", train_file), ("test", test_file)) if path is not None}
    if hub and data_dir is not None:
        raise DataError(f"{name}: both a data folder ({data_dir}) and the hub are given; choose one")
    if chosen and data_dir is None:
        named = ", ".join(f"{split} file {path}" for split, path in chosen.items())
        raise DataError(f"{name}: {named} given, but no folder for the other splits: add --data-dir DIR")
    require_source(spec, data_dir=data_dir is not None, hub=hub)

    if data_dir is not None:
        raw = from_folder(spec, data_dir, chosen, progress)
    elif hub:
        raw = from_hub(spec, _hub_source(spec, hub), seed)
    else:
        raw = from_generator(spec, seed, synthetic_splits or (*SPLITS, *spec.evaluation_sets))
    template = template_name(spec, template, synthetic=data_dir is None and not hub)

    notes = list(raw.notes)
    with _without_collection():
        rows = {split: _rows(spec, template, split, records, notes) for split, records in raw.records.items()}
    if drop_overlap:
        _drop_overlap(rows, spec, notes)
    _limit(rows, limits or {}, seed, spec, notes)
    _require_examples(rows, raw, notes)
    overlap = _overlap(rows, notes)
    splits = {split: tuple(row.example for row in kept) for split, kept in rows.items()}
    return TaskData(name, template, raw.source, splits, tuple(notes), overlap, raw.labels)


def sources_on_hub(spec: TaskSpec, hub: bool | str) -> list[HubSource | HubSet]:
    """All data sets that a task is read from on the hub, `hub` as for `load_task`."""
    return [_hub_source(spec, hub), *(one.hub for one in spec.evaluation_only if one.hub is not None)]


def _hub_source(spec: TaskSpec, hub: bool | str) -> HubSource:
    """The data set that is asked for: the task's own, it at another revision, or another one."""
    if not isinstance(hub, str):
        assert spec.hub is not None  # `require_source` has seen to it
        return spec.hub
    given = HubSource(id=hub)
    if spec.hub is not None and given.id == spec.hub.id:
        return spec.hub if given.revision is None else spec.hub.model_copy(update={"revision": given.revision})
    return given


def require_source(spec: TaskSpec, *, data_dir: bool, hub: bool | str) -> None:
    """Refuse a task without data: neither folder nor hub is given and none ships, or the task is not on the hub.

    Raises:
        DataError: says what to add.
    """
    if hub is True and spec.hub is None:
        raise DataError(f"{spec.name}: the task names no data set on the hub (hub.id); give a folder: --data-dir DIR")
    if not data_dir and not hub and spec.name not in TASKS:
        on_hub = "" if spec.hub is None else f", or --set data.hub=true for {spec.hub.id}"
        raise DataError(f"{spec.name}: no synthetic data ships for this task; give a folder: --data-dir DIR{on_hub}")


def template_name(spec: TaskSpec, template: str | None, *, synthetic: bool) -> str:
    """The name of the prompt template that is used: the one asked for, or the task's own for this kind of data.

    Raises:
        DataError: the task has several, and none of that name.
    """
    if template is None or len(spec.templates) <= 1:
        return spec.default_template(synthetic=synthetic)
    if template not in spec.templates:
        raise DataError(f"{spec.name}: unknown template {template!r}: {did_you_mean(template, spec.templates)}")
    return template


@contextmanager
def _without_collection() -> Iterator[None]:
    """Spare Python the search for cycles: with hundreds of thousands of records it takes seconds, and finds none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _rows(spec: TaskSpec, template: str, split: str, records: Iterable[RawRecord], notes: list[str]) -> list[_Row]:
    rows: list[_Row] = []
    ids: set[str] = set()
    renamed: list[str] = []
    skipped: dict[str, list[str]] = {}
    for index, record in enumerate(records):
        given = record_id(record) or f"{split}-{index}"
        content = read_content(spec, template, record)
        if content.blank:
            skipped.setdefault(" and ".join(content.blank), []).append(given)
            continue
        unique, copy = given, 1
        while unique in ids:
            copy += 1
            unique = f"{given}#{copy}"
        if unique != given:
            renamed.append(given)
        ids.add(unique)
        rows.append(_Row(content.key, Example(unique, content.prompt, content.references, content.messages)))

    for columns, found in skipped.items():
        notes.append(f"{split}: {_count(found, 'record')} without {columns} skipped ({_shown(found)})")
    if renamed:
        notes.append(f"{split}: {_count(renamed, 'repeated id')} made unique ({_shown(renamed)})")
    if repeats := len(rows) - len({row.key for row in rows}):
        notes.append(f"{split}: {repeats} of {len(rows)} records repeat the prompt of an earlier one")
    return rows


def _count(items: Sequence[str], noun: str) -> str:
    return f"{len(items)} {noun}{'s' * (len(items) != 1)}"


def _shown(ids: Sequence[str]) -> str:
    more = ", ..." if len(ids) > _IDS_SHOWN else ""
    return f"id{'s' * (len(ids) > 1)} {', '.join(ids[:_IDS_SHOWN])}{more}"


def _drop_overlap(rows: dict[str, list[_Row]], spec: TaskSpec, notes: list[str]) -> None:
    held_out = {row.key for split in ("test", *spec.evaluation_sets) for row in rows.get(split, [])}
    validation = {row.key for row in rows.get("validation", [])}
    for split, forbidden in (("train", held_out | validation), ("validation", held_out)):
        if split in rows:
            kept = [row for row in rows[split] if row.key not in forbidden]
            if dropped := [row.example.id for row in rows[split] if row.key in forbidden]:
                notes.append(f"{split}: {_count(dropped, 'record')} dropped because the prompt stands in a later split")
            rows[split] = kept


def _limit(
    rows: dict[str, list[_Row]], limits: Mapping[str, int | None], seed: int, spec: TaskSpec, notes: list[str]
) -> None:
    known = {*SPLITS, *spec.evaluation_sets, *rows}
    for split, limit in limits.items():
        if split not in known:
            raise DataError(f"{spec.name}: limit for unknown split {split!r}: {did_you_mean(split, known)}")
        if limit is None:
            continue
        if limit < 1:
            raise DataError(f"{spec.name}: limit {limit} for {split}; it must be at least 1")
        if len(kept := rows.get(split, [])) > limit:
            order = sample_order(range(len(kept)), seed, [f"{split}/{row.example.id}" for row in kept])
            rows[split] = [kept[i] for i in sorted(order[:limit])]
            notes.append(f"{split}: {limit} of {len(kept)} examples, a sample by seed {seed}")


def _require_examples(rows: Mapping[str, Sequence[_Row]], raw: RawData, notes: Sequence[str]) -> None:
    for split, kept in rows.items():
        if not kept:
            why = "; ".join(note for note in notes if note.startswith(f"{split}: "))
            raise DataError(f"{split}: no usable example is left ({raw.source}{'; ' * bool(why)}{why})")


def _overlap(rows: Mapping[str, Sequence[_Row]], notes: list[str]) -> dict[str, int]:
    keys = {split: {row.key for row in kept} for split, kept in rows.items()}
    overlap = {}
    for first, second in combinations(keys, 2):
        shared = len(keys[first] & keys[second])
        overlap[f"{first}+{second}"] = shared
        if shared:
            notes.append(f"{shared} distinct prompt{'s' * (shared != 1)} of {second} also in {first}")
    return overlap
