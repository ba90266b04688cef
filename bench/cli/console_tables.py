"""The tables that commands print."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from bench.config.fidelity import WORTH, Fidelity
from bench.config.registry import methods
from bench.config.resolve import load_yaml, names
from bench.data import tasks
from bench.evaluation.evaluate import mean_of_sets
from bench.metrics.registry import find_metrics
from bench.record.store import FAILURE, Record, Store
from distillm import SOURCES

Rows = list[dict[str, Any]]


def _score(one: dict[str, Any]) -> str:
    sd = one["sd_over_decoding_seeds"]
    return f"{one['mean']:.1f}" + (f"±{sd:.1f}" if sd is not None else "")


def run_tables(record: Record) -> list[Table | str]:
    """What a run measured, beside its teacher and its init student; and what it cost."""
    config, time, training = record["config"], record["time"], record["training"]
    sets = record["scores"]
    seeds = len(next(iter(sets.values()))["by_decoding_seed"])
    title = f"{record['metric']['name']} on {config['task']} ({config['preset']}, {record['data']['source']})"
    caption = (
        f"mean±sd over {seeds} decoding seeds of one student, temperature {config['evaluation']['temperature']:g}; "
        f"training seed {config['seed']}, from {config['init']}"
    )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("model", no_wrap=True)
    for name, values in sets.items():
        table.add_column(f"{name}\n({values['examples']})", justify="right")
    if len(sets) > 1:
        table.add_column("mean\nof sets", justify="right")
    student = config["method"]["name"] + (
        f" x {config['sgo']['source']}" if config["sgo"]["source"] != "dataset" else ""
    )
    for label, key in (("teacher", "teacher_scores"), ("init student", "init_scores"), (student, "scores")):
        cells = [_score(record[key][name]) for name in sets]
        mean = [f"{mean_of_sets(record[key]):.1f}"] * (len(sets) > 1)
        table.add_row(label, *cells, *mean, style="bold" if key == "scores" else "")
    memory = record["memory"]["device_bytes"] or record["memory"]["process_bytes"]
    spent = sum(time["phases"].values())
    phases = ", ".join(
        f"{name} {value:.1f} ({value / spent:.0%})" for name, value in time["phases"].items() if value >= 0.05
    )
    cost = (
        f"training: {training['steps']} steps in {time['training_seconds']:.1f} s, "
        f"{time['steps_per_second']:.1f} steps/s, {time['tokens_per_second']:.0f} response tokens/s"
        + (f", peak memory {memory / 2**20:.0f} MiB" if memory else "")
        + f"\nseconds: {phases}"
    )
    return [title, table, caption, cost]


def show_tables(record: Record) -> list[Table]:
    """Validations, what was noted, where the run comes from."""
    validations = Table(title="validation", title_justify="left")
    for heading in ("step", "cross-entropy on references (nats/token)", record["metric"]["name"], ""):
        validations.add_column(heading, justify="right")
    for row in record["validations"]:
        metric = f"{row['metric']:.2f}" if "metric" in row else ""
        best = "best" if row["step"] == record["training"]["best_step"] and row["step"] else ""
        validations.add_row(str(row["step"]), f"{row['loss']:.4f}", metric, best)
    signals = _signals(record["curve"])
    origin = Table(title="origin", title_justify="left", show_header=False)
    origin.add_column(style="dim")
    origin.add_column(overflow="fold")
    environment, models = record["environment"], record["models"]
    git = environment["git"] or {"commit": "not a checkout", "changed": False}
    rows = {
        "run": record["run_id"],
        "started": f"{record['started']}, {record['seconds']:.0f} s, resumed {record['training']['resumes']} times",
        "comparison key": record["comparison_key"],
        "data": f"{record['data']['source']}, fingerprint {record['data']['fingerprint'][:16]}",
        "examples": ", ".join(f"{name} {count}" for name, count in record["data"]["examples"].items()),
        "overlap": ", ".join(f"{k} {v}" for k, v in record["data"]["overlap"].items() if v)
        or "no prompt in two splits",
        "notes": "\n".join(record["data"]["notes"]) or "none",
        "teacher": f"{models['teacher_parameters']:,} parameters, {models['teacher'][:16]}",
        "student": f"{models['student_parameters']:,} parameters",
        "hardware": f"{environment['device_name']}; {environment['cpu']}, {environment['threads']} threads",
        "software": ", ".join(f"{name} {version}" for name, version in environment["packages"].items()),
        "commit": git["commit"] + (" with changes" if git["changed"] else ""),
        "metric": record["metric"]["signature"],
    }
    for key, value in rows.items():
        origin.add_row(key, Text(value))
    return [validations, signals, origin]


_SIGNALS = {
    "loss": "the method's loss (per token)",
    "plain_text_loss": "plain-text loss (nats/token)",
    "gradient_norm": "gradient norm",
    "student_entropy": "student's entropy (nats)",
    "share_generate": "share of steps on fresh SGOs",
    "share_replay": "share of steps on older SGOs",
    "sgo_age": "age of SGOs (steps)",
    "sgo_length": "length of SGOs (tokens)",
    "sgo_ended": "share of SGOs ended by EOS",
    "teacher_loss_on_sgo": "teacher's loss on SGOs (nats/token)",
    "phi": "phi",
}


def _signals(curve: Rows, parts: int = 5) -> Table:
    """Means over equal parts of training; a row only for what occurred."""
    table = Table(title="training: means over parts of it, up to step", title_justify="left")
    chunks = [curve[len(curve) * i // parts : len(curve) * (i + 1) // parts] for i in range(parts)]
    chunks = [chunk for chunk in chunks if chunk]
    table.add_column("")
    for chunk in chunks:
        table.add_column(str(chunk[-1]["step"]), justify="right")
    for key, label in _SIGNALS.items():
        if any(row.get(key) for row in curve):
            cells = [[row[key] for row in chunk if key in row] for chunk in chunks]
            table.add_row(label, *(f"{sum(values) / len(values):.3g}" if values else "" for values in cells))
    return table


def comparison_table(rows: Rows) -> Table:
    """The result of `bench compare`."""
    first, second = rows[0]["first"]["run"], rows[0]["second"]["run"]
    table = Table(
        title=f"A = {first}\nB = {second}",
        caption="A - B with 95 % interval, paired bootstrap over examples; p corrected by Holm for the number of sets",
        title_justify="left",
        caption_justify="left",
    )
    for heading in ("set", "A", "B", "A - B", "95 % interval", "p", "examples"):
        table.add_column(heading, justify="left" if heading == "set" else "right")
    for row in rows:
        table.add_row(
            f"{row['set']} {row['metric']}",
            f"{row['first']['score']:.2f}",
            f"{row['second']['score']:.2f}",
            f"{row['difference']:+.2f}",
            f"{row['low']:+.2f} to {row['high']:+.2f}",
            f"{row['p_holm']:.4f}",
            str(row["examples"]),
        )
    return table


def _methods() -> Rows:
    return [
        {
            "method": m.name,
            "what": m.summary,
            "objective": m.objective.__name__,
            "output source": m.source,
            "init in its paper": m.init,
            "paper": m.paper + (" (beyond the paper)" if m.beyond_paper else ""),
            "plain text": m.plain_text.weight,
            "differs from the authors' code": m.deviations,
        }
        for m in methods().values()
    ]


def _fidelity() -> Rows:
    return [
        {"defect": f"fidelity.{name}", "what": field.description, "effect": WORTH[name]}
        for name, field in Fidelity.model_fields.items()
    ]


def _sources() -> Rows:
    return [
        {"source": name, "what": rule.summary, "probability phi": rule.phi, "replay buffer": rule.buffered}
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
    return [{"preset": name, "what": load_yaml("presets", name)["summary"]} for name in names("presets")]


def _models() -> Rows:
    rows = []
    for name in names("pairs"):
        pair = load_yaml("pairs", name)["models"]
        rows.append({"models": name} | {key: pair[key] for key in ("kind", "teacher", "student")})
    return rows


def _runs(store: Store) -> Rows:
    finished = [
        {
            "run": r["run_id"],
            "score": f"{mean_of_sets(r['scores']):.2f} {r['metric']['name']}",
            "seconds": f"{r['time']['training_seconds']:.1f}",
            "started": r["started"][:16].replace("T", " "),
        }
        for r in store.all()
    ]
    begun = [
        {
            "run": i,
            "score": "failed" if (store.folder(i) / FAILURE).is_file() else "unfinished",
            "seconds": "",
            "started": "",
        }
        for i in store.unfinished()
    ]
    return finished + begun


def listing(what: str, store: Store) -> tuple[Rows, Table | str]:
    """Rows and table of `bench list WHAT`."""
    listings: dict[str, Callable[[], Rows]] = {
        "methods": _methods,
        "sources": _sources,
        "fidelity": _fidelity,
        "tasks": _tasks,
        "presets": _presets,
        "models": _models,
        "runs": lambda: _runs(store),
    }
    rows = listings[what]()
    if not rows:
        return rows, f"no runs in {store.runs}; `bench run` makes one"
    shown = [_in_few_columns(row) for row in rows] if what == "methods" else rows
    if what == "runs":  # a line each however long: ids are copied, and lines searched
        widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
        lines = [{name: name for name in widths}, *rows]
        return rows, "\n".join("  ".join(f"{line[name]:<{widths[name]}}" for name in widths).rstrip() for line in lines)
    table = Table(show_lines=what == "methods")
    for index, heading in enumerate(shown[0]):
        table.add_column(heading, overflow="fold", no_wrap=index == 0)
    for row in shown:
        table.add_row(*(Text(str(value)) for value in row.values()))
    return rows, table


def _in_few_columns(method: dict[str, Any]) -> dict[str, Any]:
    """A method's row for a terminal of 80 columns."""
    deviations = method["differs from the authors' code"]
    return {
        "method": method["method"],
        "objective x source": f"{method['objective']} x\n{method['output source']}",
        "start": method["init in its paper"],
        "what": f"{method['what']}; {method['paper']}" + (f". Deviates: {deviations}" if deviations else ""),
    }


def doctor_table(findings: Rows) -> Table:
    """The result of `bench doctor`."""
    table = Table()
    for heading in ("", "check", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    styles = {"ok": "green", "optional": "dim", "problem": "bold red"}
    for row in findings:
        # Text, not markup: an extra's name in brackets would be taken for a style
        table.add_row(*(Text(row[key]) for key in ("state", "check", "found", "advice")), style=styles[row["state"]])
    return table
