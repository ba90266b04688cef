"""All records as one tidy table, for analysis elsewhere; `bench export --help` documents the columns."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from bench.record.record import RunRecord
from bench.record.store import Store
from bench.system.cells import as_csv
from bench.system.errors import BenchError, did_you_mean
from bench.system.files import write_bytes

FORMATS = ("csv", "parquet")

Cell = str | int | float | None


def parse_formats(text: str, known: tuple[str, ...]) -> list[str]:
    """The formats in a comma-separated list, each once.

    Raises:
        BenchError: an unknown one, or none at all.
    """
    names = list(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    if not names:
        raise BenchError(f"--format: none given; known: {', '.join(known)}")
    for name in names:
        if name not in known:
            raise BenchError(f"--format: unknown format {name!r}: {did_you_mean(name, known)}")
    return names


def export_records(store: Store, formats: str, to: Path) -> list[Path]:
    """Write `records.csv` and `records.parquet` in a folder; gives back what was written.

    Raises:
        BenchError: an unknown format, no records, nothing that writes Parquet, or a folder that cannot be written.
    """
    wanted = parse_formats(formats, FORMATS)
    frame = tidy(store)
    written = []
    for name in wanted:
        written.append(to / f"records.{name}")
        write_bytes(written[-1], as_csv(frame) if name == "csv" else _parquet(frame))
    return written


def tidy(store: Store) -> pd.DataFrame:
    """One row for each run, evaluation set, decoding seed and metric.

    Raises:
        BenchError: nothing is recorded.
    """
    rows = [row for record in store.all() for row in _rows(record)]
    if not rows:
        raise BenchError(f"no records in {store.runs}; make one with: bench run --method srkl --task samsum")
    return pd.DataFrame(rows)


def _rows(record: RunRecord) -> Iterator[dict[str, Cell]]:
    config, environment, training = record.config, record.environment, record.training
    run: dict[str, Cell] = {
        "run": record.run_id,
        "started": record.started,
        "preset": config.preset,
        "task": config.task,
        "models": config.models.name,
        "method": config.method.name,
        "method_options": json.dumps(config.method.options, sort_keys=True),
        "method_file": config.method.file_sha256,
        "output_source": config.sgo.source,
        "output_source_options": json.dumps(config.sgo.options, sort_keys=True),
        "init_student": config.init,
        "training_seed": config.seed,
    }
    about: dict[str, Cell] = {
        "steps": training.steps,
        "best_step": training.best_step,
        "training_seconds": record.time.training_seconds,
        "other_load": environment.other_load,
        "peak_bytes": record.memory.peak,
        "tokens_trained": training.tokens_trained,
        "tokens_generated": training.tokens_generated,
        "student_parameters": record.models.student_parameters,
        "teacher_parameters": record.models.teacher_parameters,
        "device": environment.device_name,
        "cpu": environment.cpu,
        "version": environment.distillm_bench,
        "commit": environment.git.commit if environment.git else None,
        "comparison_key": record.comparison_key,
    }
    for name, scores in record.scores.items():
        for metric, score in scores.metrics.items():
            for seed, value in score.by_decoding_seed.items():
                yield {
                    **run,
                    "set": name,
                    "decoding_seed": seed,
                    "metric": metric,
                    "value": value,
                    "examples": scores.examples,
                    "mean_tokens": scores.mean_tokens,
                    "share_ended": scores.share_ended,
                    **about,
                }


def _parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    try:
        frame.to_parquet(buffer, index=False, engine="pyarrow")
    except ImportError as error:
        raise BenchError("--format parquet needs the package pyarrow: pip install pyarrow (or use csv)") from error
    return buffer.getvalue()
