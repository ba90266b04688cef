"""Recorded runs on disk: one folder a run, found by its id, written whole or not at all."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.record.differing import what_differs
from bench.record.example_scores import ExampleArray, Prediction, example_arrays, upgraded
from bench.record.read import Changed, Unreadable, read_record
from bench.record.record import CurvePoint, RunRecord
from bench.system.errors import BenchError, nearest
from bench.system.files import read_gz, read_json, read_jsonl_gz, remove, write_jsonl_gz, write_sealed_json

RECORD = "record.json"
PREDICTIONS = "predictions.jsonl.gz"
WORK = "work"
FAILURE = "failure.json"
LOCK = "lock"  # held by the process that makes the run
JUDGED = "judged"  # folder of what judges made of a run
SHOWN = 20  # ids in a message


def _texts_of(record: RunRecord) -> dict[str, str | None]:
    """The hash of a run's responses, by evaluation set."""
    return {name: scores.texts for name, scores in record.scores.items()}


class Store:
    """The runs below `ROOT/runs`.

    Args:
        root: the folder; it need not be there.
        warn: told of each record that `all` skips, and why.
        changed_too: give back records that were changed under their checksum, too, once that was told.
    """

    def __init__(self, root: Path, warn: Callable[[str], None] = lambda _: None, *, changed_too: bool = False) -> None:
        self.changed_too = changed_too
        self.root = root
        self.runs = root / "runs"
        self.warn = warn
        self._elsewhere: dict[str, Path] = {}  # runs found by a path outside this store

    def folder(self, run_id: str) -> Path:
        """Folder of a run, there or not."""
        return self._elsewhere.get(run_id, self.runs / run_id)

    def finished(self, run_id: str) -> RunRecord | None:
        """The record of a finished run; None if there is none that can be read."""
        try:
            return read_record(self.folder(run_id) / RECORD)
        except Unreadable:
            return None

    def preset(self, name: str) -> str:
        """A recorded preset's name, or its file where `bench tune` or `bench suite --equal-time` put it."""
        files = [*self.root.glob("*.yaml"), *self.root.glob("tuning/*.yaml")]
        return next((str(path) for path in files if path.stem == name), name)

    def write(self, record: RunRecord, predictions: list[Prediction]) -> Path:
        """Write a finished run; the record comes last, so that a run with a record is complete.

        Of the same run made before, what judges said is kept where its responses are the same.
        """
        folder, before = self.folder(record.run_id), self.finished(record.run_id)
        (folder / RECORD).unlink(missing_ok=True)  # whose predictions are replaced now
        if before is None or _texts_of(before) != _texts_of(record):
            remove(folder / JUDGED)
        write_jsonl_gz(folder / PREDICTIONS, predictions)
        write_sealed_json(folder / RECORD, record.plain())
        (folder / FAILURE).unlink(missing_ok=True)
        return folder / RECORD

    def all(self, *, curves: bool = True) -> Iterator[RunRecord]:
        """All finished runs, by their folders' names; what is no record, or a second copy of one, is skipped.

        Curves fill the memory with thousands of runs, so they can be left out; `curve` reads one.
        """
        seen: dict[str, Path] = {}
        for folder in self._folders():
            try:
                record = self._record(folder / RECORD)
            except Unreadable as error:
                if isinstance(error.__cause__, FileNotFoundError):  # a run that was begun
                    continue
                self.warn(f"skipped {folder / RECORD}: {error}")
                continue
            run_id = record.run_id
            own = self.runs / run_id
            first = own if folder != own and (own / RECORD).exists() else seen.get(run_id)
            if first is not None:
                self.warn(f"skipped {folder / RECORD}: the same run as {first}")
                continue
            seen[run_id] = folder
            if folder != own:
                self._elsewhere[run_id] = folder
            yield record if curves else record.model_copy(update={"curve": []})

    def _record(self, path: Path) -> RunRecord:
        try:
            return read_record(path)
        except Changed as error:
            if not self.changed_too:
                raise
            self.warn(f"{path}: {error}")
            return error.record

    def unfinished(self) -> list[str]:
        """Ids of runs that were begun and have no record."""
        begun = (f for f in self._folders() if (f / WORK).is_dir() or (f / FAILURE).is_file())
        return [f.name for f in begun if self.finished(f.name) is None]

    def _folders(self) -> list[Path]:
        """All folders of runs, by name."""
        try:
            with os.scandir(self.runs) as found:
                return [self.runs / name for name in sorted(entry.name for entry in found if entry.is_dir())]
        except OSError:  # none is there
            return []

    def find(self, name: str) -> RunRecord:
        """A finished run by its id, the beginning of its id, its folder or its record's path.

        Raises:
            BenchError: none or several match.
        """
        path = Path(name)
        if path.name == RECORD:
            path = path.parent
        if (path / RECORD).is_file():
            record = _record_or_error(path / RECORD)
            self._elsewhere[record.run_id] = path
            return record
        if not name or path.name != name:
            near = ", ".join(nearest(path.name, [run.run_id for run in self.all(curves=False)]))
            known = f"; the nearest ids in {self.runs}: {near}" if near else ""
            raise BenchError(f"no run {name!r}: there is no {RECORD} at this path{known}")
        named = self.finished(name)
        if named is not None and named.run_id == name:  # without a look at thousands of others
            return named
        records = list(self.all(curves=False))
        ids = [run.run_id for run in records]
        matches = [run_id for run_id in ids if run_id.startswith(name)]
        if name in matches:
            matches = [name]
        if len(matches) > 1:
            differing = what_differs(run for run in records if run.run_id in matches)
            lines = [f"{one}  {differing.get(one, '')}".rstrip() for one in matches[:SHOWN]]
            lines += [f"and {len(matches) - SHOWN} more"] * (len(matches) > SHOWN)
            raise BenchError("\n  ".join([f"{name!r} is the beginning of {len(matches)} runs:", *lines]))
        if not matches:
            failed = [i for i in self.unfinished() if i.startswith(name) and (self.folder(i) / FAILURE).is_file()]
            if failed:
                told = "\n".join(f"{i} failed: {_reason(self.folder(i) / FAILURE)}" for i in failed)
                raise BenchError(f"{told}\nMore is in {self.folder(failed[0]) / FAILURE}")
            for folder in sorted(self.runs.glob(f"{glob.escape(name)}*/")):
                if (folder / RECORD).exists():
                    _record_or_error(folder / RECORD)
            known = "none is recorded yet; `bench run` makes one"
            if ids:
                near = ", ".join(nearest(name, ids))
                known = f"the nearest ids: {near}\n`bench list runs --out {self.root}` shows all {len(ids)}"
            raise BenchError(f"no run {name!r} in {self.runs}: {known}")
        return self.find(str(self.folder(matches[0])))

    def curve(self, record: RunRecord) -> list[CurvePoint]:
        """The curve of a run, for a record that was kept without it; empty where it can no longer be read."""
        try:
            return read_record(self.folder(record.run_id) / RECORD).curve
        except Changed as error:  # which `all` has told
            return error.record.curve
        except Unreadable:
            return []

    def example_arrays(self, record: RunRecord, metric: str | None = None) -> dict[str, ExampleArray]:
        """What each example of a run scored by a metric, its first unless one is given, by set.

        Raises:
            BenchError: the predictions are missing or damaged, or lack the scores.
        """
        path = self.folder(record.run_id) / PREDICTIONS
        try:
            return example_arrays(read_gz(path), metric or record.metric.name)
        except BenchError as error:
            raise BenchError(f"{path}: {error}") from error
        except (OSError, ValueError) as error:
            raise _no_predictions(path, error) from error

    def predictions(self, record: RunRecord) -> list[Prediction]:
        """The predictions of a run.

        Raises:
            BenchError: the file is missing or damaged.
        """
        path = self.folder(record.run_id) / PREDICTIONS
        try:
            return upgraded(read_jsonl_gz(path))
        except (OSError, ValueError) as error:
            raise _no_predictions(path, error) from error


def _no_predictions(path: Path, error: Exception) -> BenchError:
    return BenchError(f"{path}: cannot be read ({error}); make the run again with --fresh")


def _record_or_error(path: Path) -> RunRecord:
    try:
        return read_record(path)
    except Unreadable as error:
        raise BenchError(f"{path} is no record this version reads: {error}; make the run again with --fresh") from error


def _reason(path: Path) -> str:
    """Why a run failed, as far as its file can be read."""
    try:
        return str(read_json(path)["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"{path} is damaged"
