"""The report: one HTML file with verdicts, tables, figures and every run, that needs nothing but a browser."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from bench import __version__
from bench.analysis.timing import had_machine_to_itself
from bench.evaluation.evaluate import mean_of_sets
from bench.record.store import Record
from bench.system.files import write_bytes
from paper_tables.claims.format import effect, summary
from paper_tables.claims.verdicts import Judged, judge
from paper_tables.figures.catalogue import FIGURES, file_of
from paper_tables.numbers.cells import measure
from paper_tables.numbers.judge_scores import judgements
from paper_tables.numbers.runs import Library
from paper_tables.paper.ablations import SWEEPS, any_table
from paper_tables.paper.tables import NAMES
from paper_tables.tables.caption import setting_notes
from paper_tables.tables.published_view import as_published, side_by_side
from paper_tables.tables.rendered import Sheet, as_measured

CURVES = {
    "loss": "loss (nats per token)",
    "gradient_norm": "gradient norm",
    "student_entropy": "student's entropy (nats)",
    "phi": "φ, probability of training on SGOs",
    "sgo_length": "length of SGOs (tokens)",
    "sgo_age": "age of SGOs (steps)",
    "teacher_loss_on_sgo": "teacher's loss on SGOs (nats per token)",
}
POINTS = 60  # of a drawn curve
WIDTH, HEIGHT = 200.0, 44.0
_WIDTH = re.compile(rb'<svg[^>]* width="([\d.]+pt)"')


@dataclass(frozen=True)
class Curve:
    """A curve as a polyline in a box of WIDTH x HEIGHT, with the range it covers."""

    label: str
    points: str
    low: float
    high: float
    first: int
    last: int


@dataclass(frozen=True)
class RunPage:
    """What the report says of a run."""

    record: Record
    score: float
    alone: bool
    curves: tuple[Curve, ...]
    config: str


@dataclass(frozen=True)
class TableSection:
    """A table's faces; sweeps have one."""

    name: str
    title: str
    sheets: tuple[tuple[str, Sheet], ...]


def write_report(
    library: Library, out: Path, path: Path, resamples: int, progress: Callable[[str], None] = lambda _: None
) -> Path:
    """Write the report of all records of a preset.

    Figures are taken from OUT/figures; those that were not made are named with the command that makes them.

    Raises:
        BenchError: runs of a table cannot be compared, or the file cannot be written.
    """
    progress("claims")
    judged = list(judge(library, out, resamples=resamples))
    sections = []
    for name in (*NAMES, *SWEEPS):
        progress(f"table {name}")
        section = _table_section(library, name, resamples)
        if section:
            sections.append(section)
    progress("figures and runs")
    runs = [_run_page(record) for record in library.records]
    page = _environment().get_template("report.html.jinja")
    html = page.render(
        preset=library.preset,
        version=__version__,
        summary=summary(judged, library.preset),
        judged=judged,
        sections=sections,
        figures=_figures(out, library.preset),
        missing_figures=[n for n in FIGURES if not _figure_path(out, n, library.preset).is_file()],
        runs=sorted(runs, key=lambda run: run.record["run_id"]),
        setting=setting_notes(library.records),
        dates=sorted({record["started"][:10] for record in library.records}),
    )
    write_bytes(path, html.encode())
    return path


def _table_section(library: Library, name: str, resamples: int) -> TableSection | None:
    table = any_table(name, library.preset)
    selection = library.select(table)
    filled = [row for row in table.rows if any(selection.runs[arm] for arm in row.arms.values())]
    if name in SWEEPS and len(filled) < 2:  # what it shares with the main table alone is no sweep
        return None
    measurement = measure(table, selection, resamples)
    judged = judgements(table, selection, library.store)
    sheets = [("measured", as_measured(table, library.preset, selection, measurement, resamples, judged))]
    if name not in SWEEPS:
        sheets.append(("published", as_published(any_table(name, "paper"))))
        sheets.append(("side by side", side_by_side(table, library.preset, selection, measurement)))
    title = f"{table.title}: {table.caption}"
    return TableSection(table.file, title, tuple(sheets))


def _figure_path(out: Path, name: str, preset: str) -> Path:
    return out / "figures" / f"{file_of(name, preset)}.svg"


def _figures(out: Path, preset: str) -> list[dict[str, str]]:
    found = []
    for name in FIGURES:
        path = _figure_path(out, name, preset)
        if path.is_file():
            caption = path.with_suffix(".txt")
            text = caption.read_text(encoding="utf-8").strip() if caption.is_file() else name
            drawing = path.read_bytes()
            # as data, not inline: ids of one SVG would answer to references of another
            data = base64.b64encode(drawing).decode()
            found.append(
                {
                    "name": file_of(name, preset),
                    "caption": text,
                    "source": f"data:image/svg+xml;base64,{data}",
                    "width": width.group(1).decode() if (width := _WIDTH.search(drawing)) else "100%",
                }
            )
    return found


def _run_page(record: Record) -> RunPage:
    curves = [_curve(record["curve"], key, label) for key, label in CURVES.items()]
    metric = record["metric"]["name"]
    curves.append(_curve(record["validations"], "metric", f"validation {metric}"))
    curves.append(_curve(record["validations"], "loss", "validation loss (nats per token)"))
    return RunPage(
        record,
        mean_of_sets(record["scores"]),
        had_machine_to_itself(record),
        tuple(curve for curve in curves if curve),
        yaml.safe_dump(record["config"], sort_keys=False, allow_unicode=True),
    )


def _curve(rows: Sequence[Mapping[str, Any]], key: str, label: str) -> Curve | None:
    """None where there are fewer than two points, or nothing happens: a constant 0."""
    found = [(int(row["step"]), float(row[key])) for row in rows if row.get(key) is not None]
    if len(found) < 2 or not any(value for _, value in found):
        return None
    found = [found[i] for i in sorted({round(i * (len(found) - 1) / (POINTS - 1)) for i in range(POINTS)})]
    values = [value for _, value in found]
    low, high, first, last = min(values), max(values), found[0][0], found[-1][0]
    x = [WIDTH * (step - first) / max(1, last - first) for step, _ in found]
    y = [HEIGHT * (1 - (value - low) / ((high - low) or 1.0)) for value in values]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return Curve(label, points, low, high, first, last)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("paper_tables.report"),
        autoescape=select_autoescape(["html", "jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"effect": effect, "runs_of": _runs_of}
    return environment


def _runs_of(judged: Judged) -> Iterable[str]:
    return sorted({run for comparison in judged.comparisons for run in comparison.runs})
