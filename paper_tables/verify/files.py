"""Derived files against records: each table, verdict, figure's data and report is made again and compared by cell."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.config.presets import direct_pair, shipped
from bench.config.sections import Config
from bench.record.record import RunRecord
from bench.record.store import Store
from bench.system.cells import as_csv
from bench.system.errors import BenchError
from paper_tables.claims.format import as_markdown
from paper_tables.claims.verdicts import verdicts
from paper_tables.figures.names import FIGURES, file_of
from paper_tables.numbers.runs import RunIndex
from paper_tables.paper.ablations import ABLATIONS
from paper_tables.paper.tables import TABLE_NAMES
from paper_tables.report.write import write_report
from paper_tables.suite.equal_time import AS_LONG_AS
from paper_tables.tables.make import fill_table, rendered
from paper_tables.tables.render import TABLE_FORMATS
from paper_tables.verify.found import Findings, Mismatch

CLAIMS = "claims.md"
_CHOICE = re.compile(r"((?:-seeds(?P<seeds>(?:-\d+)+))?(?:-key(?P<keys>(?:-[0-9a-f]+)+))?)(?=[-.])")
_LABELS = 3  # cells that name a row
Made = Iterator[tuple[Path, bytes]]


@dataclass(frozen=True, order=True)
class Asked:
    """A task and a pair that the paper's tables were asked of.

    Attributes:
        given: what finds the task: its name or file.
        missing: why its tables cannot be made; "" where they can.
    """

    task: str
    pair: str
    given: str
    missing: str = ""

    @classmethod
    def of(cls, config: Config) -> Asked:
        """That of a run."""
        models, missing = config.models, ""
        if models.name not in shipped("pairs"):
            try:
                direct = direct_pair(models.teacher, models.student).name
                missing = "" if direct == models.name else f"models {models.name} came from a file of their own"
            except BenchError as error:
                missing = str(error)
        return cls(config.task, models.name, config.task_file or config.task, missing)

    @property
    def in_names(self) -> str:
        """What the names of files have of it."""
        return f"task-{self.task}-{self.pair}"


@dataclass(frozen=True)
class Choice:
    """The runs that files were made of: a preset's, or those of some seeds, comparison keys, a task and its pair."""

    preset: str
    of: Asked | None = None
    seeds: tuple[int, ...] = ()
    keys: tuple[str, ...] = ()


def check_files(store: Store, records: Sequence[RunRecord], found: Findings) -> Iterator[str]:
    """Check every file below a results folder that follows from its records; says what it looks at."""
    tables, figures = store.root / "tables", store.root / "figures"
    paths = {*tables.glob("*.*"), *figures.glob("*.csv"), *figures.glob("*.txt"), *store.root.glob("*.html")}
    there = {path for path in {*paths, store.root / CLAIMS} if path.is_file() and not path.name.startswith(".")}
    reasons: dict[Path, str] = {}
    presets = sorted({record.config.preset for record in records})
    asked = {Asked.of(one.config) for one in records}
    for choice in sorted(_choices(there, presets, sorted(asked), store.root / CLAIMS), key=str):
        try:
            index = _index(store, choice)
        except BenchError as error:
            for path in there:
                if _is_of(path, choice) or (path.name == CLAIMS and _claims_of(path, choice)):
                    reasons[path] = str(error)
            continue
        for what, make in (("tables", _tables), ("claims", _claims), ("figures", _figures), ("report", _report)):
            yield f"{what} of {choice.preset}{index.chosen}"
            for path, content in make(index, there, reasons):
                if path in there:
                    there.discard(path)
                    _compare(path, path.read_bytes(), content, found)
    for path in sorted(store.root.glob(f"*{AS_LONG_AS}*.yaml")):
        if not any(f"-{path.stem}-" in table.name for table in tables.glob("*.*")):
            found.unchecked[f"{path}: no table is there that its steps are checked by"] += 1
    for path in sorted(there):
        # a name that would be too long has a hash in place of its runs
        other = "its name does not say of which runs it is" if "-chosen-" in path.name else "no record makes it"
        found.unchecked[f"{path}: {reasons.get(path, other)}"] += 1


def _index(store: Store, choice: Choice) -> RunIndex:
    """The runs that files were made of.

    Raises:
        BenchError: there are none, or what their models came from is not known.
    """
    preset, of = store.preset(choice.preset), choice.of
    if of is None:
        return RunIndex(store, preset, choice.seeds, choice.keys)
    if of.missing:
        raise BenchError(of.missing)
    return RunIndex(store, preset, choice.seeds, choice.keys, task=of.given, models=of.pair)


def _is_of(path: Path, choice: Choice) -> bool:
    """Whether a file's name says that it is made of these runs."""
    words = choice.preset if choice.of is None else f"{choice.preset}-{choice.of.in_names}"
    return f"-{words}-" in path.name or path.stem.endswith(words)


def _claims_of(path: Path, choice: Choice) -> bool:
    """Whether a page of verdicts is of these runs of a task."""
    said, of = path.read_text(encoding="utf-8", errors="replace"), choice.of
    return of is not None and _speaks_of(said, f"{choice.preset}, task {of.task}, models {of.pair}")


def _choices(paths: set[Path], presets: Sequence[str], asked: Sequence[Asked], claims: Path) -> set[Choice]:
    """All runs of each preset, and what the names of files say of chosen ones."""
    choices = {Choice(preset) for preset in presets}
    said = claims.read_text(encoding="utf-8", errors="replace") if claims in paths else ""
    for preset in presets:
        for one in asked:
            if _speaks_of(said, f"{preset}, task {one.task}, models {one.pair}"):
                choices.add(Choice(preset, one))
        for path in paths:
            _, named, rest = path.name.partition(f"-{preset}-")
            own = [one for one in asked if re.match(re.escape(one.in_names) + "[-.]", rest)]
            of = max(own, key=lambda one: len(one.in_names)) if own else None
            rest = f"-{rest}" if of is None else rest.removeprefix(of.in_names)
            if named and (choice := _CHOICE.match(rest)) and (of or choice.group()):
                seeds = tuple(int(seed) for seed in (choice["seeds"] or "").split("-") if seed)
                keys = tuple(key for key in (choice["keys"] or "").split("-") if key)
                choices.add(Choice(preset, of, seeds, keys))
    return choices


def _speaks_of(claims: str, scope: str) -> bool:
    """Whether a page of verdicts is of these runs; of the paper's own preset it does not say."""
    return f"the models and data of preset {scope}, not for" in claims


def _tables(index: RunIndex, there: set[Path], reasons: dict[Path, str]) -> Made:
    for name in (*TABLE_NAMES, *ABLATIONS):
        stem = f"table{name}" if name.isdigit() else name
        mine = [path for path in there if path.parent.name == "tables" and path.name.startswith(f"{stem}-")]
        if not mine:
            continue
        try:
            filled = fill_table(index, name)
        except BenchError as error:
            reasons.update(dict.fromkeys(mine, str(error)))
            continue
        for file, content in rendered(index, filled.views, tuple(TABLE_FORMATS)):
            yield index.store.root / "tables" / file, content


def _claims(index: RunIndex, there: set[Path], reasons: dict[Path, str]) -> Made:
    """`bench claims --markdown > claims.md`, of the preset, or the task, that it names."""
    path = index.store.root / CLAIMS
    if path in there and not (index.seeds or index.keys):
        said = path.read_text(encoding="utf-8", errors="replace")
        if not _speaks_of(said, index.scope) and (index.own or "the models and data of preset " in said):
            return
        try:
            content = as_markdown(verdicts(index), index.scope) + "\n"
        except BenchError as error:
            reasons[path] = str(error)
            return
        yield path, content.encode()


def _figures(index: RunIndex, there: set[Path], reasons: dict[Path, str]) -> Made:
    """The data and captions of figures; a drawing's picture is not compared."""
    folder = index.store.root / "figures"
    wanted = {n: folder / f"{file_of(n, index.preset_name)}{index.chosen}.csv" for n in FIGURES}
    wanted = {name: path for name, path in wanted.items() if path in there}
    if not wanted:
        return
    import matplotlib.pyplot as plt  # here: tables and verdicts alone need no drawing

    from paper_tables.figures.catalogue import FROM_MODELS, FROM_RUNS

    for name, path in wanted.items():
        try:
            if name in FROM_MODELS:
                kind, draw = FROM_MODELS[name]
                probe = kind.read(index.store.root, index.preset_name)
                if probe is None:
                    reasons[path] = "its model probe is not recorded"
                    continue
                drawing = draw(probe)
            else:
                drawing = FROM_RUNS[name](index)
        except BenchError as error:
            reasons[path] = str(error)
            continue
        plt.close(drawing.figure)
        yield path, as_csv(drawing.frame, "%.6g")
        yield path.with_suffix(".txt"), ("\n".join(drawing.caption) + "\n").encode()


def _report(index: RunIndex, there: set[Path], reasons: dict[Path, str]) -> Made:
    path = index.store.root / f"report-{index.preset_name}{index.chosen}.html"
    if path not in there:
        return
    try:
        with TemporaryDirectory() as folder:
            yield path, write_report(index, Path(folder) / path.name).read_bytes()
    except BenchError as error:
        reasons[path] = str(error)


def _compare(path: Path, holds: bytes, should: bytes, found: Findings) -> None:
    """Compare a file with what it should be; each cell that differs is named, or the line where there are no cells."""
    if holds == should:
        found.checked["files"] += 1
        found.checked["cells"] += sum(map(len, _rows(path, should)))
        return
    found.checked["files"] += 1
    there, made = _rows(path, holds), _rows(path, should)
    heads = made[0] if path.suffix == ".csv" and made else []
    before = len(found.wrong)
    for number, (row, right) in enumerate(zip_longest(there, made), start=1):
        if row == right:
            continue
        label = f"line {number}" + (f" ({', '.join(right[:_LABELS])})" if right and len(right) > 1 else "")
        if row is None or right is None or len(row) != len(right):
            _keep(found, path, label, "the whole line", _line(row), _line(right))
            continue
        for place, (cell, wanted) in enumerate(zip(row, right, strict=True)):
            if cell != wanted:
                column = heads[place] if place < len(heads) else f"cell {place + 1}" if len(row) > 1 else ""
                _keep(found, path, label, column, cell, wanted)
    if len(found.wrong) == before:  # quotes, or ends of lines
        _keep(found, path, "", "bytes", f"{len(holds)} bytes", f"{len(should)} bytes with the same cells")


def _keep(found: Findings, path: Path, row: str, column: str, holds: str, should: str) -> None:
    found.wrong.append(Mismatch(str(path), row, column, holds, should))


def _line(row: list[str] | None) -> str:
    return "no such line" if row is None else " | ".join(row)


def _rows(path: Path, content: bytes) -> list[list[str]]:
    """A file's lines as cells: of CSV, Markdown tables and LaTeX tables; of others a line is one cell."""
    text = content.decode(errors="replace")
    if path.suffix == ".csv":
        return list(csv.reader(io.StringIO(text)))
    sign = {".md": r"(?<!\\)\|", ".tex": r"(?<!\\)&"}.get(path.suffix)
    return [[cell.strip() for cell in re.split(sign, line)] if sign else [line] for line in text.splitlines()]
