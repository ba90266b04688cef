"""Raw records and texts from the Hugging Face Hub: files by name, or whatever `datasets` makes of a repository."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path

from bench.data.examples import DataError
from bench.data.readers import RawRecord, read_records
from bench.data.sources import SPLIT_NAMES, RawData, sample_order, wanted_files
from bench.data.task import SPLITS, HubFiles, HubSet, HubSource, Split, TaskSpec
from bench.system.hub import COMMITS, data_set, what_failed

_NAMED = 20
_ALWAYS = ("README.md", ".gitattributes")  # of which every repository has one: its commit is known by it, offline too


def from_hub(spec: TaskSpec, hub: HubSource, seed: int) -> RawData:
    """Download a task and its evaluation-only sets from the hub, or take what was downloaded before.

    Args:
        spec: The task.
        hub: Its data set.
        seed: Decides the splits of a data set that publishes none.

    Raises:
        DataError: A data set cannot be had, for whatever reason, or lacks a file or a split.
    """
    try:
        raw = _by_files(hub, hub.files) if hub.files is not None else _by_datasets(hub, seed)
        for extra in spec.evaluation_only:
            if extra.hub is None:
                raw.notes.append(f"evaluation set {extra.name} left out: the task file names none on the hub")
                continue
            folder, commit = download(extra.hub, [extra.hub.file.path])
            raw.source += f", {extra.name} from {extra.hub.id}@{commit}"
            raw.records[extra.name] = _records(extra.hub, folder, extra.hub.file)
            raw.labels[extra.name] = extra.label(extra.hub.file.path)
    except DataError as error:
        raise DataError(
            f"{error}\nA local folder would do instead: --data-dir DIR with {wanted_files(spec)}"
        ) from error
    return raw


def download(source: HubSource | HubSet, paths: Iterable[str]) -> tuple[Path, str]:
    """The folder with some of a data set's files, downloaded now or before, and the commit they are of.

    Args:
        source: The data set.
        paths: Of the files; * and ? stand for parts of names.

    Raises:
        DataError: Says what really failed.
    """
    from huggingface_hub import snapshot_download  # here, because only this source needs it

    with_card = [*paths, *_ALWAYS]
    revision = COMMITS.get(data_set(source.pinned), source.revision)
    try:
        folder = snapshot_download(source.id, repo_type="dataset", revision=revision, allow_patterns=with_card)
    except Exception as error:  # network, access, a missing repository: one way out
        raise failure(source, error) from error
    return Path(folder), Path(folder).name


def failure(source: HubSource | HubSet, error: Exception) -> DataError:
    """What to tell of a data set that cannot be had."""
    from bench.data.registry import TASKS

    known = [one.id for task in TASKS.values() for one in task.hub_sources]
    told = what_failed("data set", source.pinned, error, known)
    return DataError(f"the data set {source.pinned} {told or f'cannot be loaded: {type(error).__name__}: {error}'}")


def _by_files(hub: HubSource, files: Mapping[Split, HubFiles]) -> RawData:
    folder, commit = download(hub, [part.path for part in files.values()])
    raw = RawData(f"hub {hub.id}@{commit}")
    raw.records = {split: _records(hub, folder, part) for split, part in files.items()}
    return raw


def _records(source: HubSource | HubSet, folder: Path, part: HubFiles) -> Iterable[RawRecord]:
    inside = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    found = sorted(name for name in inside if fnmatch(name, part.path))
    if not _are_listed(source, folder) and (not found or {*"*?["} & {*part.path}):
        raise DataError(
            f"the data set {source.pinned} may be on this machine in part only: no list of its files was kept that "
            f"says what {part.path} stands for, and the hub cannot be reached now; the same command goes on once it can"
        )
    if not found:
        raise DataError(f"the data set {source.pinned} has no file {part.path}; see its list of files on the hub")
    records = (record for name in found for record in _file_records(inside[name]))
    return islice(records, part.skip, None if part.first is None else part.skip + part.first)


def _are_listed(source: HubSource | HubSet, folder: Path) -> bool:
    """Whether all files of a data set are known here, so that its download has seen to it that none is missing."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        get_cached_repo_tree(source.id, repo_type="dataset", revision=folder.name)
    except CachedRepoTreeNotFoundError:  # other programs and older versions download files without a list of them
        return False
    return True


def _file_records(path: Path) -> Iterator[RawRecord]:
    if path.suffix != ".parquet":
        yield from read_records(path)
        return
    import datasets  # here, because it takes seconds to import

    try:
        rows = datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True)
        for number, row in enumerate(rows, start=1):
            yield RawRecord(f"{path}, record {number}", row)
    except Exception as error:  # of whatever kind the reader of the format has
        raise DataError(
            f"{path}: no parquet file that can be read ({error}); remove it, and it is downloaded again"
        ) from error


def _by_datasets(hub: HubSource, seed: int) -> RawData:
    """All splits, as `datasets` finds them in a repository."""
    if not Path(hub.id).is_dir():
        hub = at_commit(hub)  # which says what really failed; `datasets` hides it
    try:
        import datasets  # here, because it takes seconds to import and only this source needs it

        builder = datasets.load_dataset_builder(hub.id, hub.config, revision=hub.revision)
        builder.download_and_prepare()
        found = {str(name): split.to_list() for name, split in builder.as_dataset().items()}
    except Exception as error:  # network, access, a loading script, a broken file: one way out
        raise _no_choice(hub, error, "hub.config in the task file") or failure(hub, error) from error
    raw = RawData(f"hub {hub.id}@{hub.revision or builder.hash}")
    wanted = ("train",) if hub.train_split_sizes else SPLITS
    for split in wanted:
        name = next((name for name in SPLIT_NAMES[split] if name in found), None)
        if name is None:
            drawn = "; hub.train_split_sizes in the task file draws all splits from train" if "train" in found else ""
            raise DataError(f"the data set {hub.pinned} has no {split} split; found: {', '.join(found)}{drawn}")
        place = f"hub {hub.id}, split {name}, record"
        everything = [RawRecord(f"{place} {n}", row) for n, row in enumerate(found[name], start=1)]
        raw.records[split] = everything
    if hub.train_split_sizes:
        sizes: dict[str, int] = hub.train_split_sizes.model_dump()
        if len(everything) < sum(sizes.values()):
            raise DataError(f"the data set {hub.pinned}: {len(everything)} records, too few for splits of {sizes}")
        order = iter(sample_order(everything, seed, [record.where for record in everything]))
        raw.records = {split: [next(order) for _ in range(size)] for split, size in sizes.items()}
        drawn = ", ".join(f"{size} {split}" for split, size in sizes.items())
        raw.notes.append(
            f"{hub.id} has no splits: {drawn} drawn by seed {seed} from {len(everything)} records; "
            "not a published split, so scores do not compare with published ones"
        )
    return raw


def at_commit(source: HubSource) -> HubSource:
    """A data set at the commit that it is at now, or was when it was last reached.

    Raises:
        DataError: The hub cannot be asked, and was not before.
    """
    return source.model_copy(update={"revision": download(source, [])[1]})


def stream_texts(source: HubSource, count: int, longest: int, told: Callable[[int], None]) -> Iterator[str]:
    """The first texts of a data set's training split; no more of its files is downloaded than needed.

    Args:
        source: The data set, at a commit; it has a column `text`.
        count: Texts at most; blank ones are left out.
        longest: Characters of a text at most.
        told: Is told how many there are so far.

    Raises:
        DataError: They cannot be had, or there is no such column.
    """
    number = 0
    try:
        import datasets

        rows = datasets.load_dataset(source.id, source.config, split="train", revision=source.revision, streaming=True)
        texts = (_text_of(source, row)[:longest].strip() for row in rows)
        for number, text in enumerate(islice(filter(None, texts), count), start=1):
            if number % 100 == 0:
                told(number)
            yield text
        if number == 0:
            raise DataError(f"the data set {source.pinned} has no text in its column 'text'")
    except DataError:
        raise
    except Exception as error:
        raise _no_choice(source, error, "--set plain_text.hub_config=NAME") or failure(source, error) from error


def _no_choice(source: HubSource, error: Exception, how: str) -> DataError | None:
    """What to tell where none of a data set's configurations was chosen; None where that is not what failed."""
    import datasets

    if not isinstance(error, ValueError):  # as `datasets` refuses a name
        return None
    try:
        names: list[str] = datasets.get_dataset_config_names(source.id, revision=source.revision)
    except Exception:  # whatever keeps it from being read is told with the first error
        return None
    if source.config in names or (source.config is None and len(names) < 2):
        return None
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    lacks = "several configurations:" if source.config is None else f"no configuration {source.config!r}, but"
    return DataError(
        f"the data set {source.pinned} has {lacks} {', '.join(names[:_NAMED])}{more}; choose one with {how}"
    )


def _text_of(source: HubSource, row: dict[str, object]) -> str:
    text = row.get("text")
    if not isinstance(text, str):
        raise DataError(f"the data set {source.pinned} has no column 'text' with texts; found: {', '.join(row)}")
    return text
