"""Where raw records come from: the embedded generator, a local folder, or the Hugging Face Hub."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.data.examples import DataError
from bench.data.readers import EXTENSIONS, RawRecord, read_records
from bench.data.task import SPLITS, EvaluationSet, TaskSpec

SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
"""Spellings of the splits in file names and on the hub."""

_CHOOSABLE = ("train", "test")  # splits whose file can be named by the user
_T = TypeVar("_T")


@dataclass
class RawData:
    """Raw records by split, with what is to be told about their origin."""

    source: str
    records: dict[str, list[RawRecord]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)


def sample_order(items: Sequence[_T], seed: int, names: Sequence[str]) -> list[_T]:
    """Items in a random order fixed by seed and names alone: the same on every platform and Python version.

    The first n of it are a sample, and samples of different size contain each other.
    """
    ranks = [hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in names]
    return [items[i] for i in sorted(range(len(items)), key=ranks.__getitem__)]


def from_embedded(spec: TaskSpec, seed: int, splits: Sequence[str]) -> RawData:
    """Generate the records of the data that ships with the package."""
    from bench.synthetic import generate  # here, so that real data can be read without building the generators

    raw = RawData(f"embedded (seed {seed})")
    for split, records in generate(spec.name, tuple(splits), seed=seed).items():
        place = f"embedded {spec.name}, {split}, record"
        raw.records[split] = [RawRecord(f"{place} {n}", dict(r)) for n, r in enumerate(records, start=1)]
    return raw


def from_folder(spec: TaskSpec, data_dir: Path, chosen: Mapping[str, Path]) -> RawData:
    """Read a task from its own folder, or from a parent with one folder for each task and evaluation set.

    Args:
        spec: The task.
        data_dir: The folder.
        chosen: Files named by the user, by split; they take the place of what the folder holds.

    Raises:
        DataError: No such folder, a split without a file or with several, or a file that cannot be read.
    """
    if not data_dir.is_dir():
        raise DataError(f"{data_dir}: there is no such folder; give one with {_layout(spec)}")
    folder = next((data_dir / name for name in spec.folders if (data_dir / name).is_dir()), data_dir)
    raw = RawData(f"folder {folder}")
    paths: dict[str, Path] = {}
    for split in SPLITS:
        path = chosen.get(split) or _find(folder, split, SPLIT_NAMES[split], any_test=split == "test")
        if path is not None:
            paths[split] = path
            if split in chosen:
                raw.source += f", {split} from {path}"
            elif path.name.partition(".")[0] not in SPLIT_NAMES[split]:
                raw.notes.append(f"{split} read from {path.name}")
    if missing := [split for split in SPLITS if split not in paths]:
        raise DataError(_missing(spec, data_dir, folder, missing))
    for extra in spec.extra_sets:
        if (name := _find_extra(data_dir, extra)) is None:
            looked_for = ", ".join(extra.folders)
            raw.notes.append(f"evaluation set {extra.name} left out: {data_dir} has no test file in {looked_for}")
        else:
            paths[extra.name] = data_dir / name
            raw.labels[extra.name] = extra.label(name)
    raw.records = {split: read_records(path) for split, path in paths.items()}
    return raw


def _find(folder: Path, split: str, names: Sequence[str], *, any_test: bool) -> Path | None:
    """The file of a split; with `any_test`, a lone test_*.* does where there is no test.*."""
    found = [folder / f"{name}{end}" for name in names for end in EXTENSIONS]
    found = [path for path in found if path.is_file()]
    if not found and any_test:
        found = sorted(path for path in folder.glob("test_*") if path.name.endswith(EXTENSIONS))
    if len(found) > 1:
        choice = f", or name one: --set data.{split}_file=PATH" if split in _CHOOSABLE else ""
        listed = ", ".join(path.name for path in found)
        raise DataError(f"{folder}: {len(found)} files for {split}: {listed}; keep one of them{choice}")
    return found[0] if found else None


def _find_extra(data_dir: Path, extra: EvaluationSet) -> str | None:
    for name in extra.folders:
        folder = data_dir / name
        # the data folders of MiniLLM and DistiLLM name the file of an evaluation-only set "valid"
        for stem, any_test in (("test", True), ("valid", False)):
            path = _find(folder, extra.name, (stem,), any_test=any_test)
            if path is not None:
                return f"{name}/{path.name}"
    return None


def _layout(spec: TaskSpec) -> str:
    columns = [" or ".join(c.names) for c in (*spec.prompt_columns, spec.response_column)]
    return (
        f"train, validation and test files of {spec.name} (one object per line in train.jsonl, "
        f"validation.jsonl, test.jsonl; {', '.join(EXTENSIONS)} are read) with the columns {'; '.join(columns)}"
    )


def _missing(spec: TaskSpec, data_dir: Path, folder: Path, missing: Sequence[str]) -> str:
    lines = []
    for split in missing:
        names = "/".join(SPLIT_NAMES[split])
        choice = f", or name a file: --set data.{split}_file=PATH" if split in _CHOOSABLE else ""
        lines.append(f"{folder}: no {split} file for {spec.name}: wanted {names} with {', '.join(EXTENSIONS)}{choice}")
    found = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    lines.append(f"found there: {', '.join(found[:20]) or 'nothing'}{', ...' if len(found) > 20 else ''}")
    if folder == data_dir:
        lines.append(f"a subfolder named {' or '.join(spec.folders)} with these files would do as well")
    return "\n".join(lines)


def from_hub(spec: TaskSpec, seed: int) -> RawData:
    """Download a task from the hub, or take it from the local cache of `datasets`.

    Raises:
        DataError: The data set cannot be had, for whatever reason, or lacks a split.
    """
    hub = spec.hub
    try:
        import datasets  # here, because it takes seconds to import and only this source needs it

        builder = datasets.load_dataset_builder(hub.id, hub.config, revision=hub.revision)
        builder.download_and_prepare()
        found = {str(name): split.to_list() for name, split in builder.as_dataset().items()}
    except Exception as error:  # network, access, a loading script, a broken file: one way out
        raise _hub_failure(spec, f"cannot be loaded: {type(error).__name__}: {error}") from error
    raw = RawData(f"hub {hub.id}@{builder.hash}")
    raw.notes = [f"evaluation set {name} left out: not part of {hub.id}" for name in spec.evaluation_sets]

    wanted = ("train",) if hub.train_split_sizes else SPLITS
    for split in wanted:
        name = next((name for name in SPLIT_NAMES[split] if name in found), None)
        if name is None:
            raise _hub_failure(spec, f"no {split} split; found: {', '.join(found)}")
        place = f"hub {hub.id}, split {name}, record"
        raw.records[split] = [RawRecord(f"{place} {n}", row) for n, row in enumerate(found[name], start=1)]
    if hub.train_split_sizes:
        everything = raw.records["train"]
        sizes = hub.train_split_sizes
        if len(everything) < sum(sizes.values()):
            raise _hub_failure(spec, f"{len(everything)} records, too few for splits of {dict(sizes)}")
        order = iter(sample_order(everything, seed, [record.where for record in everything]))
        raw.records = {split: [next(order) for _ in range(size)] for split, size in sizes.items()}
        drawn = ", ".join(f"{size} {split}" for split, size in sizes.items())
        raw.notes.append(
            f"{hub.id} has no splits: {drawn} drawn by seed {seed} from {len(everything)} records; "
            "not the split of MiniLLM and DistiLLM, so scores do not compare with published ones"
        )
    return raw


def _hub_failure(spec: TaskSpec, what: str) -> DataError:
    instead = f"A local folder would do instead: --data-dir DIR with {_layout(spec)}"
    return DataError(f"hub {spec.hub.id}: {what}\n{instead}")
