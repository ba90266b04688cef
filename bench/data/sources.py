"""Where raw records come from: the generators of synthetic data, or a local folder; `hub.py` reads the hub's."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.data.examples import DataError
from bench.data.readers import EXTENSIONS, Progress, RawRecord, check_record_file, read_records
from bench.data.task import SPLITS, EvaluationOnlySet, TaskSpec

SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
"""Spellings of the splits in file names and on the hub."""

_CHOOSABLE = ("train", "test")  # splits whose file can be named by the user
_T = TypeVar("_T")


@dataclass
class RawData:
    """Raw records by split.

    Attributes:
        source: Where they come from, in words.
        records: By split.
        notes: What a reader of the results should know.
        labels: The name in tables of a split whose file has one of its own.
    """

    source: str
    records: dict[str, Iterable[RawRecord]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)


def sample_order(items: Sequence[_T], seed: int, names: Sequence[str]) -> list[_T]:
    """Items in a random order that seed and names alone decide: the same on every platform and Python version.

    Its first n items are a sample, and samples of different sizes contain each other.
    """
    ranks = [hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in names]
    return [items[i] for i in sorted(range(len(items)), key=ranks.__getitem__)]


def from_generator(spec: TaskSpec, seed: int, splits: Sequence[str]) -> RawData:
    """Generate the synthetic data of a task that ships."""
    from bench.synthetic import generate  # here, so that real data can be read without building the generators

    raw = RawData(f"synthetic (seed {seed})")
    for split, records in generate(spec.name, tuple(splits), seed=seed).items():
        place = f"synthetic {spec.name}, {split}, record"
        raw.records[split] = [RawRecord(f"{place} {n}", dict(r)) for n, r in enumerate(records, start=1)]
    return raw


def from_folder(
    spec: TaskSpec, data_dir: Path, chosen: Mapping[str, Path], progress: Progress | None = None
) -> RawData:
    """Read a task from its own folder, or from a parent with one folder for each task and evaluation set.

    Args:
        spec: The task.
        data_dir: The folder.
        chosen: Files named by the user, by split; each takes the place of what the folder holds.
        progress: Told the megabytes read.

    Raises:
        DataError: No such folder, a split without a file or with several, or something that is no file. What is wrong
            inside a file is told when its records are taken.
    """
    if not data_dir.is_dir():
        raise DataError(f"{data_dir}: there is no such folder; give one with {wanted_files(spec)}")
    folder = next((data_dir / name for name in spec.folder_names if (data_dir / name).is_dir()), data_dir)
    raw = RawData(f"folder {folder}")
    paths: dict[str, Path] = {}
    for split in SPLITS:
        path = chosen.get(split) or _find(folder, split, SPLIT_NAMES[split], with_suffix=split == "test")
        if path is not None:
            paths[split] = path
            if split in chosen:
                raw.source += f", {split} from {path}"
            elif path.name.partition(".")[0] not in SPLIT_NAMES[split]:
                raw.notes.append(f"{split} read from {path.name}")
    if missing := [split for split in SPLITS if split not in paths]:
        raise DataError(_missing(spec, data_dir, folder, missing))
    for extra in spec.evaluation_only:
        if (file := _find_evaluation_only(data_dir, extra)) is None:
            looked_for = ", ".join(extra.folders)
            raw.notes.append(f"evaluation set {extra.name} left out: {data_dir} has no test file in {looked_for}")
        else:
            paths[extra.name] = data_dir / file
            raw.labels[extra.name] = extra.label(file)
    for path in paths.values():
        check_record_file(path)
    raw.records = {split: read_records(path, progress) for split, path in paths.items()}
    return raw


def _find(folder: Path, split: str, names: Sequence[str], *, with_suffix: bool) -> Path | None:
    """The file of a split; `with_suffix` also takes a single test_*.* where there is no test.*."""
    found = [folder / f"{name}{end}" for name in names for end in EXTENSIONS]
    found = [path for path in found if os.path.lexists(path)]  # what is no file is told, not passed over
    if not found and with_suffix:
        found = sorted(path for path in folder.glob("test_*") if path.name.endswith(EXTENSIONS))
    if len(found) > 1:
        choice = f", or name one: --set data.{split}_file=PATH" if split in _CHOOSABLE else ""
        listed = ", ".join(path.name for path in found)
        raise DataError(f"{folder}: {len(found)} files for {split}: {listed}; keep one of them{choice}")
    return found[0] if found else None


def _find_evaluation_only(data_dir: Path, extra: EvaluationOnlySet) -> str | None:
    """The file of an evaluation-only set, relative to the data folder."""
    for name in extra.folders:
        # the data folders of MiniLLM and DistiLLM name the file of an evaluation-only set "valid"
        for stem, with_suffix in (("test", True), ("valid", False)):
            path = _find(data_dir / name, extra.name, (stem,), with_suffix=with_suffix)
            if path is not None:
                return f"{name}/{path.name}"
    return None


def wanted_files(spec: TaskSpec) -> str:
    """What a folder must hold, in words."""
    columns = [" or ".join(column.names) for column in spec.columns]
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
    if "validation" in missing:
        lines.append("checkpoints are chosen on it; to make one, move about one in twenty records of train to it")
    found = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    lines.append(f"found there: {', '.join(found[:20]) or 'nothing'}{', ...' if len(found) > 20 else ''}")
    if folder == data_dir:
        lines.append(f"a subfolder named {' or '.join(spec.folder_names)} with these files would do as well")
    return "\n".join(lines)
