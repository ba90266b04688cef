"""The report: one HTML file with verdicts, tables, figures and every run, that needs nothing but a browser."""

from __future__ import annotations

import base64
import json
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from bench.analysis.timing import has_exclusive_timing
from bench.record.differing import what_differs
from bench.record.record import CURVE_LABELS, RunRecord, mean_of_sets
from bench.record.store import Store
from bench.system.files import write_bytes
from paper_tables.claims.beside import LEGEND, beside
from paper_tables.claims.format import POWER, effect, elsewhere, of_scores, on_other_sets, power, sentence, summary
from paper_tables.claims.verdicts import verdicts
from paper_tables.figures.names import FIGURES, file_of
from paper_tables.numbers.cells import validation_scores
from paper_tables.numbers.runs import RunIndex
from paper_tables.paper.ablations import ABLATIONS
from paper_tables.paper.tables import TABLE_NAMES
from paper_tables.report.glance import at_a_glance
from paper_tables.tables.captions import setting_notes
from paper_tables.tables.make import FilledTable, fill_table

CURVES = ("loss", "gradient_norm", "student_entropy", "phi", "sgo_length", "sgo_age", "teacher_loss_on_sgo")
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
class RunSection:
    """What the report says of a run beyond its record: the curves of training and validation, the config as YAML."""

    curves: tuple[Curve, ...]
    config: str


@dataclass(frozen=True)
class FigureSection:
    """A figure that was made, as a data URL; `width` is that in print."""

    name: str
    caption: str
    url: str
    width: str


def write_report(index: RunIndex, path: Path, progress: Callable[[str], None] = lambda _: None) -> Path:
    """Write the report of all runs of an index.

    Figures are taken from OUT/figures; those that were not made are named with the command that makes them.

    Raises:
        BenchError: runs of a table cannot be compared, or the file cannot be written.
    """
    progress("claims")
    found = verdicts(index)
    filled = []
    for name in (*TABLE_NAMES, *ABLATIONS):
        progress(f"table {name}")
        filled.append(fill_table(index, name))
    progress("figures and runs")
    out, preset = index.store.root, index.preset_name
    page = _environment().get_template("report.html.jinja")
    figures = FIGURES if index.own is None else ()  # those of the preset show the paper's tasks
    html = bytearray()  # filled piece by piece: of thousands of runs it is large
    for piece in page.generate(
        preset=index.scope,
        version=", ".join(sorted({record.environment.distillm_bench for record in index.records})),
        summary=summary(found, index.scope),
        glance=at_a_glance(found, filled, index.records, beside(index)),
        columns_legend=LEGEND,
        power_legend=POWER.replace("*", ""),
        verdicts=found,
        tables=[one for one in filled if _worth_showing(one)],
        figures=[_figure(out, name, preset) for name in figures if _figure_path(out, name, preset).is_file()],
        missing_figures=[name for name in figures if not _figure_path(out, name, preset).is_file()],
        runs=sorted(index.records, key=lambda record: record.run_id),
        section=partial(_run_section, index.store),
        differs=defaultdict(str, what_differs(index.records)),
        setting=setting_notes(index.records),
        dates=sorted({record.started[:10] for record in index.records}),
    ):
        html += piece.encode()
    write_bytes(path, html)
    return path


def _worth_showing(filled: FilledTable) -> bool:
    """An ablation with one row alone, which it shares with the main table, shows nothing."""
    rows = [row for row in filled.table.rows if filled.selection.of_row(row)]
    return filled.table.name not in ABLATIONS or len(rows) > 1


def _figure_path(out: Path, name: str, preset: str) -> Path:
    return out / "figures" / f"{file_of(name, preset)}.svg"


def _figure(out: Path, name: str, preset: str) -> FigureSection:
    path = _figure_path(out, name, preset)
    caption = path.with_suffix(".txt")
    drawing = path.read_bytes()
    width = _WIDTH.search(drawing)
    return FigureSection(
        name=file_of(name, preset),
        caption=caption.read_text(encoding="utf-8").strip() if caption.is_file() else name,
        # as data, not inline: ids of one SVG would answer to references of another
        url=f"data:image/svg+xml;base64,{base64.b64encode(drawing).decode()}",
        width=width.group(1).decode() if width else "100%",
    )


def _run_section(store: Store, record: RunRecord) -> RunSection:
    """The section of a run; an index's records come without their curves, which would fill the memory."""
    points = store.curve(record)
    curves = [
        _curve([(int(point["step"]), point[key]) for point in points if key in point], CURVE_LABELS[key])
        for key in CURVES
    ]
    scores = list(validation_scores(record).items())
    curves.append(_curve(scores, f"validation {record.metric.label}"))
    losses = [(validation.step, validation.loss) for validation in record.validations]
    curves.append(_curve(losses, "validation loss (nats per token)"))
    return RunSection(
        tuple(curve for curve in curves if curve),
        "".join(_as_yaml(json.dumps({key: value})) for key, value in record.config.canonical().items()),
    )


@lru_cache(4096)  # thousands of runs share most of their sections, and YAML is slow to write
def _as_yaml(section: str) -> str:
    return yaml.safe_dump(json.loads(section), sort_keys=False, allow_unicode=True)


@lru_cache
def _drawn(count: int) -> list[int]:
    """Which of so many points are drawn."""
    return sorted({round(i * (count - 1) / (POINTS - 1)) for i in range(POINTS)})


def _curve(found: Sequence[tuple[int, float]], label: str) -> Curve | None:
    """A curve through (step, value); None where there are fewer than two points, or nothing happens: a constant 0."""
    if len(found) < 2 or not any(value for _, value in found):
        return None
    found = [found[i] for i in _drawn(len(found))]
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
    environment.filters |= {
        "effect": effect,
        "power": power,
        "of_scores": lambda found: sentence(of_scores(found)),
        "elsewhere": lambda found: on_other_sets([elsewhere(found)]),
        "score": lambda record: mean_of_sets(record.scores),
        "exclusive": has_exclusive_timing,
    }
    return environment
