"""The tables that commands print."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from bench.cli.fit import Fitted, plain_table
from bench.config.fidelity import WORTH, Fidelity
from bench.config.presets import read_pair, read_preset, shipped
from bench.config.registry import methods
from bench.config.settings import settings
from bench.data import tasks
from bench.metrics.registry import find_metrics
from bench.record.differing import what_differs
from bench.record.record import (
    CURVE_LABELS,
    CurvePoint,
    MetricInfo,
    RunRecord,
    Score,
    SetScores,
    StudentPretrainingInfo,
    mean_of_sets,
)
from bench.record.store import FAILURE, Store
from distillm import SOURCES

if TYPE_CHECKING:  # each takes seconds to import, and one command needs one
    from bench.analysis.compare import ComparedRuns, SetComparison
    from bench.cli.doctor import Finding

Cell = str | int | float | bool
Rows = list[dict[str, Cell]]
"""A listing: cells by heading."""


def _score(one: Score) -> str:
    sd = one.sd_over_decoding_seeds
    return f"{one.mean:.1f}" + (f"±{sd:.1f}" if sd is not None else "")


def run_tables(record: RunRecord) -> list[Fitted | str]:
    """What a run measured, beside its teacher and its init student, by each metric; and what it cost."""
    config, time, training = record.config, record.time, record.training
    seeds = len(next(iter(record.scores.values())).primary.by_decoding_seed)
    scores = [part for metric in record.metrics for part in _scores(record, metric)]
    decoded = f"mean±sd over {seeds} decoding seeds" if seeds > 1 else "one decoding seed"
    caption = (
        f"{decoded} of one student, temperature {config.evaluation.temperature:g}; "
        f"training seed {config.seed}, init student {config.init}"
    )
    if record.evaluated:
        temperature = f"temperature {config.evaluation.temperature:g}"
        return [*scores, f"{decoded}, {temperature}; not trained here, scored in {record.seconds:.0f} s"]
    memory = record.memory.peak
    spent = sum(time.phases.values())
    phases = ", ".join(
        f"{name} {value:.1f} ({value / spent:.0%})" for name, value in time.phases.items() if value >= 0.05
    )
    cost = (
        f"training: {training.steps} steps in {time.training_seconds:.1f} s, "
        f"{time.steps_per_second:.1f} steps/s, {time.tokens_per_second:.0f} response tokens/s"
        + (f", peak memory {memory / 2**20:.0f} MiB" if memory else "")
        + f"\nseconds: {phases}"
    )
    return [*scores, caption, cost]


def _scores(record: RunRecord, metric: MetricInfo) -> tuple[str, Fitted]:
    """Title and table of the scores by one metric: a column for each set, or a row where there are too many."""
    config = record.config
    title = f"{metric.label} on {config.task} ({config.preset}, {record.data.source})"
    several = ["mean\nof sets"] * (len(record.scores) > 1)
    lines = [["model", *(f"{name}\n({values.examples})" for name, values in record.scores.items()), *several]]
    student = config.method.name + (f" x {config.sgo.source}" if config.sgo.source != "dataset" else "")
    rows = {"teacher": record.teacher_scores, "init student": record.init_scores, student: record.scores}
    if record.evaluated:
        rows = {record.evaluated: record.scores}
    for label, by_set in rows.items():
        scores = [by_set[name].metrics[metric.name] for name in record.scores]
        mean = [f"{statistics.fmean(one.mean for one in scores):.1f}"] * (len(scores) > 1)
        lines.append([label, *map(_score, scores), *mean])
    turned = [[cell.replace("\n", " ") for cell in line] for line in zip(*lines, strict=True)]
    turned[0][0] = "set"
    return title, Fitted(_simple(lines, last="bold"), otherwise=_simple(turned))


def scores_of(by_model: Mapping[str, SetScores], label: str) -> Fitted:
    """The scores of several models on one set, a row each."""
    return Fitted(_simple([["model", label], *([name, _score(one.primary)] for name, one in by_model.items())], "bold"))


def _simple(lines: list[list[str]], last: str = "") -> Table:
    """A table of numbers with names in its first column; `last` is the style of its last row."""
    table = plain_table(lines[0], whole=range(1, len(lines[0])))
    for line in lines[1:]:
        table.add_row(*map(Text, line), style=last if line is lines[-1] else "")
    return table


def show_tables(record: RunRecord) -> list[Fitted]:
    """Validations, what was noted, where the run comes from."""
    validations = Table(title="validation", title_justify="left")
    for heading in ("step", "cross-entropy on references (nats/token)", record.metric.label, ""):
        validations.add_column(heading, justify="right")
    for row in record.validations:
        metric = f"{row.metric:.2f}" if row.metric is not None else ""
        best = "best" if row.step == record.training.best_step and row.step else ""
        validations.add_row(str(row.step), f"{row.loss:.4f}", metric, best)
    diagnostics = _diagnostics(record.curve)
    origin = Table(title="origin", title_justify="left", show_header=False)
    origin.add_column(style="dim")
    origin.add_column(overflow="fold")
    environment, models, data = record.environment, record.models, record.data
    git = environment.git
    rows = {
        "run": record.run_id,
        "started": f"{record.started}, {record.seconds:.0f} s, resumed {record.training.resumes} times",
        "comparison key": record.comparison_key[:16],
        "data": f"{data.source}, fingerprint {data.fingerprint[:16]}",
        "examples": ", ".join(f"{name} {count}" for name, count in data.examples.items()),
        "overlap": ", ".join(f"{k} {v}" for k, v in data.overlap.items() if v) or "no prompt in two splits",
        "notes": "\n".join(data.notes) or "none",
        "teacher": f"{models.teacher_parameters:,} parameters, {models.teacher[:16]}",
        "student": f"{models.student_parameters:,} parameters{_pretrained(models.student_pretraining)}",
        "generation": ", ".join(f"{side}: {engine}" for side, engine in models.generation.items()),
        "hardware": environment.hardware,
        "software": ", ".join(f"{name} {version}" for name, version in environment.packages.items()),
        "commit": "not a checkout" if git is None else git.commit + (" with changes" if git.changed else ""),
        "metrics": "\n".join(f"{metric.label}: {metric.signature}" for metric in record.metrics),
    }
    if record.evaluated:
        about = {
            "model": f"{record.config.models.teacher}, {models.student_parameters:,} parameters, {models.teacher[:60]}"
        }
        rows = {key: value for key, value in {**about, **rows}.items() if key not in ("teacher", "student")}
    for key, value in rows.items():
        origin.add_row(key, Text(value))
    return [Fitted(origin)] if record.evaluated else [Fitted(validations), Fitted(diagnostics), Fitted(origin)]


def _pretrained(about: StudentPretrainingInfo | None) -> str:
    if about is None:
        return ""
    kept = next(row.loss for row in about.validations if row.step == about.best_step)
    return (
        f", pretrained here on {about.tokens:,} tokens of text ({about.different_tokens:,} different) in "
        f"{about.seconds:.0f} s; loss on held-out text {about.validations[0].loss:.3f} before, {kept:.3f} after "
        "(nats/token)"
    )


def _diagnostics(curve: list[CurvePoint], parts: int = 5) -> Table:
    """Means over equal parts of training; a row only for what occurred."""
    table = Table(title="training: means over parts of it, up to step", title_justify="left")
    chunks = [curve[len(curve) * i // parts : len(curve) * (i + 1) // parts] for i in range(parts)]
    chunks = [chunk for chunk in chunks if chunk]
    table.add_column("")
    for chunk in chunks:
        table.add_column(str(chunk[-1]["step"]), justify="right")
    for key, label in CURVE_LABELS.items():
        if any(row.get(key) for row in curve):
            cells = [[row[key] for row in chunk if key in row] for chunk in chunks]
            table.add_row(label, *(f"{sum(values) / len(values):.3g}" if values else "" for values in cells))
    return table


def comparison_table(rows: list[SetComparison]) -> Fitted:
    """The result of `bench compare`."""
    headings = ("set", "A", "B", "A - B", "95 % interval", "p", "visible", "examples")
    table = plain_table(
        headings,
        whole=(headings.index("set"), headings.index("95 % interval")),
        title=f"A = {rows[0].first.run}\nB = {rows[0].second.run}",
        caption="A - B with 95 % interval; p corrected by Holm for the number of rows",
        title_justify="left",
        caption_justify="left",
    )
    for row in rows:
        table.add_row(
            f"{row.set} {row.label}",
            f"{row.first.score:.2f}",
            f"{row.second.score:.2f}",
            f"{row.difference:+.2f}",
            f"{row.low:+.2f} to {row.high:+.2f}",
            "< 0.0001" if row.p_holm < 1e-4 else f"{row.p_holm:.4f}",
            f"{row.visible:.2f}",
            str(row.examples),
        )
    return Fitted(table, ("examples",))


def comparison_notes(sides: Sequence[ComparedRuns], rows: list[SetComparison]) -> Iterable[str]:
    """What the intervals of `bench compare` know of training seeds, and what not."""
    known = all(row.seed_noise for row in rows)
    if all(len(side.seeds) > 1 for side in sides) and known:
        yield (
            f"Over {min(row.seeds for row in rows)} training seeds and examples, within the seeds that A and B share. "
            "visible: the smallest true difference that is found with 80 % probability."
        )
    elif known:
        yield (
            "One training seed each: the intervals are widened by what other recorded seeds of these methods do. "
            "Compare the methods with all their seeds: bench compare --task TASK METHOD METHOD"
        )
    else:
        yield (
            "One training seed each, and nothing recorded of others: the intervals speak of other test examples alone. "
            "Another seed of the same method often differs as much, so that this says nothing yet of which method is "
            "better. Run both with --seed 20 and --seed 30, and compare again."
        )
    other = [row for row in rows if row.of_sums and abs(row.difference - row.first.score + row.second.score) >= 0.005]
    if labels := ", ".join(dict.fromkeys(row.label for row in other)):
        yield (
            f"{labels}: A and B are means over decoding seeds; A - B is of the counts of all decoding seeds' responses "
            "together, and so not exactly their difference."
        )


def _methods() -> Rows:
    return [
        {
            "method": m.name,
            "what": m.summary,
            "objective": m.objective.__name__,
            "output source": m.source,
            "init student in its paper": m.init,
            "paper": m.paper + (" (beyond the paper)" if m.beyond_paper else ""),
            "plain text": m.plain_text.weight,
            "differs from the authors' code": m.deviations,
        }
        for m in methods().values()
    ]


def _fidelity() -> Rows:
    return [
        {"defect": f"fidelity.{name}", "what": field.description or "", "effect": WORTH[name]}
        for name, field in Fidelity.model_fields.items()
    ]


def _settings() -> Rows:
    return [dict(one._asdict()) for one in settings()]


def _sources() -> Rows:
    return [
        {"output source": name, "what": rule.summary, "probability phi": rule.phi, "replay buffer": rule.buffered}
        for name, rule in SOURCES.items()
    ]


def _tasks() -> Rows:
    return [
        {
            "task": spec.name,
            "metrics": ", ".join(metric.label for metric in find_metrics(spec.metrics)),
            "test sets": ", ".join(("test", *spec.evaluation_sets)),
            "hub": spec.hub.id if spec.hub else "",
        }
        for spec in tasks().values()
    ]


def _presets() -> Rows:
    return [{"preset": name, "what": read_preset(name).summary} for name in shipped("presets")]


def _models() -> Rows:
    rows = []
    for name in shipped("pairs"):
        pair = read_pair(name).settings["models"]
        how = "LoRA" if pair.get("lora") else ""
        rows.append({"models": name} | {key: pair[key] for key in ("kind", "teacher", "student")} | {"how": how})
    return rows


def _runs(store: Store) -> Rows:
    runs = list(store.all(curves=False))
    differing = what_differs(runs)
    finished: Rows = [
        {
            "run": run.run_id,
            "score": f"{mean_of_sets(run.scores):.2f} {run.metric.label}",
            "seconds": f"{run.time.training_seconds:.1f}",
            "started": run.started[:16].replace("T", " "),
            "differs in": differing.get(run.run_id, ""),
        }
        for run in runs
    ]
    begun: Rows = [
        {
            "run": i,
            "score": "failed" if (store.folder(i) / FAILURE).is_file() else "unfinished",
            "seconds": "",
            "started": "",
            "differs in": "",
        }
        for i in store.unfinished()
    ]
    return finished + begun


def _lines(rows: Rows, width: int | None) -> str:
    """A line a run, since ids are copied and lines searched; where that is too wide, less of it or a second line."""
    differing = any(row["differs in"] for row in rows)
    shown = [name for name in rows[0] if name != "differs in"]
    widths = {name: max(len(name), *(len(str(row[name])) for row in rows)) for name in rows[0]}
    while len(shown) > 2 and width is not None and sum(widths[name] + 2 for name in shown) - 2 > width:
        shown.pop()
    used = sum(widths[name] + 2 for name in shown)
    below = differing and width is not None and used + widths["differs in"] > width
    heading: dict[str, Cell] = {name: name for name in widths}
    lines = []
    for place, row in enumerate((heading, *rows)):
        line = "  ".join(f"{row[name]:<{widths[name]}}" for name in shown)
        told = row["differs in"]
        if differing and not below:
            line += f"  {told}"
        lines.append(line.rstrip())
        if below and told and place > 0:
            lines.append(f"    {told}")
    return "\n".join(lines)


def listing(what: str, store: Store, width: int | None = None, newest: int | None = None) -> tuple[Rows, Fitted | str]:
    """Rows and table of `bench list WHAT`; the lines of runs fit in a width, if one is given.

    Of runs, all are listed by id, or so many of the newest.
    """
    listings: dict[str, Callable[[], Rows]] = {
        "methods": _methods,
        "sources": _sources,
        "settings": _settings,
        "fidelity": _fidelity,
        "tasks": _tasks,
        "presets": _presets,
        "models": _models,
        "runs": lambda: _runs(store),
    }
    rows = listings[what]()
    if what == "runs" and newest is not None:
        rows = sorted(rows, key=lambda row: str(row["started"]), reverse=True)[:newest]
    if not rows:
        return rows, f"no runs in {store.runs}; `bench run` makes one"
    fewer = {"methods": _in_few_columns, "models": _pair_in_few_columns}
    shown = [fewer[what](row) for row in rows] if what in fewer else rows
    if what == "runs":
        return rows, _lines(rows, width)
    table = Table(show_lines=what == "methods")
    for index, heading in enumerate(shown[0]):
        table.add_column(heading, overflow="fold", no_wrap=index == 0)
    for row in shown:
        table.add_row(*(Text(str(value)) for value in row.values()))
    return rows, Fitted(table, _LESS_IMPORTANT)


_LESS_IMPORTANT = ("hub", "init student", "replay buffer", "kind", "default", "value")
"""Columns of listings that a narrow terminal does without; `--json` has them all."""


def _in_few_columns(method: dict[str, Cell]) -> dict[str, Cell]:
    """A method's row for a terminal of 80 columns."""
    deviations = method["differs from the authors' code"]
    return {
        "method": method["method"],
        "objective x output source": f"{method['objective']} x\n{method['output source']}",
        "init student": method["init student in its paper"],
        "what": f"{method['what']}; {method['paper']}" + (f". Deviates: {deviations}" if deviations else ""),
    }


def _pair_in_few_columns(pair: dict[str, Cell]) -> dict[str, Cell]:
    """A pair's row for a terminal of 80 columns: ids are long, and there to be copied."""
    how = f", {pair['how']}" if pair["how"] else ""
    return {
        "models": f"{pair['models']}\n{pair['kind']}{how}",
        "teacher, student": f"{pair['teacher']}\n{pair['student']}",
    }


def doctor_table(findings: list[Finding]) -> Fitted:
    """The result of `bench doctor`."""
    table = Table()
    for heading in ("", "check", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    styles = {"ok": "green", "optional": "dim", "problem": "bold red"}
    for one in findings:
        # Text, not markup: an extra's name in brackets would be taken for a style
        table.add_row(*map(Text, (one.state, one.check, one.found, one.advice)), style=styles[one.state])
    return Fitted(table)
