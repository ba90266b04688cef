"""Records in the shape that `bench run` writes, without training anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bench import __version__
from bench.config.comparable import comparison_fields
from bench.config.resolve import resolve
from bench.data import TASKS
from bench.evaluation.evaluate import summarise
from bench.metrics.bleu import bleu_statistics
from bench.metrics.registry import find_metric
from bench.record.example_scores import Prediction
from bench.record.record import RunRecord
from bench.record.store import Store
from bench.system.hashing import digest
from distillm.sources import SOURCES

DECODING_SEEDS = (10, 20)
SETS = {"dolly": ("test", "selfinst", "vicuna", "sinst", "uinst"), "samsum": ("test",), "iwslt": ("test",)}
WORDS = ["der", "die", "das", "Hund", "Katze", "Haus", "Baum", "geht", "steht", "groß", "klein", "alt", "und"]


def rouge_rows(scores: dict[str, np.ndarray]) -> list[Prediction]:
    """Prediction rows for scores (decoding seeds, examples) by set."""
    return [
        {"set": name, "seed": seed, "id": f"{name}-{i}", "tokens": 5, "ended": True}
        # other scores are of other texts
        | {"prediction": f"text of {value:.4f}", "scores": {"rouge_l": round(float(value), 4)}}
        for name, table in scores.items()
        for seed, line in zip(DECODING_SEEDS, table, strict=True)
        for i, value in enumerate(line)
    ]


def bleu_rows(noise: float, seed: int, examples: int = 30) -> list[Prediction]:
    """Prediction rows of a translation whose words are wrong with probability `noise`."""
    references = [" ".join(np.random.default_rng(i).choice(WORDS, 8)) for i in range(examples)]
    rows, rng = [], np.random.default_rng(seed)
    for decoding_seed in DECODING_SEEDS:
        for i, reference in enumerate(references):
            text = " ".join(str(rng.choice(WORDS)) if rng.random() < noise else word for word in reference.split())
            rows.append(
                {"set": "test", "seed": decoding_seed, "id": f"test-{i}", "prediction": text, "tokens": 8}
                | {"ended": True, "scores": {"bleu": bleu_statistics(text, (reference,))}}
            )
    return rows


def noisy(mean: float, seed: int, sets: tuple[str, ...], examples: int = 40, sd: float = 5.0) -> dict[str, np.ndarray]:
    """Scores (decoding seeds, examples) by set: examples differ in how hard they are, the same for every method."""
    rng = np.random.default_rng(seed)
    scores = {}
    for number, name in enumerate(sets):
        hard = np.random.default_rng(number).normal(0, 5, examples)
        scores[name] = mean + hard + rng.normal(0, sd, (len(DECODING_SEEDS), examples))
    return scores


def make_record(
    method: str = "kld",
    task: str = "dolly",
    seed: int = 10,
    *,
    mean: float = 30.0,
    rows: list[Prediction] | None = None,
    preset: str = "tiny",
    sgo: str | None = None,
    init: str | None = None,
    models: str | None = None,
    assignments: tuple[str, ...] = (),
    other_load: float | None = 0.0,
    seconds: float = 20.0,
    resumes: int = 0,
    phi: float = 0.5,
) -> tuple[RunRecord, list[Prediction]]:
    """A record and its predictions; without `rows` their scores lie around `mean`, reproducibly."""
    config, _ = resolve(
        preset=preset,
        task=task,
        method=method,
        sgo=sgo,
        init=init,
        models=models,
        seed=seed,
        device="cpu",
        assignments=assignments,
    )
    key = {
        "config": config.identity(),
        "data": "d" * 64,
        "tokenizer": "e" * 64,
        "models": {"teacher": "a" * 64, "student": "scratch"},
        "plain_text": "generated",
        "generation": {"teacher": "decode loop", "student": "decode loop"},
        "version": __version__,
    }
    name, source = config.method.name, config.sgo.source
    run_id = f"{task}-{name}-{source}-s{seed}-{digest(key)[:10]}"
    used = round(400 * phi) if SOURCES[source].phi == "adaptive" else 0
    steps = {"dataset": 400 - used, "generate": used}
    metrics = [find_metric(name) for name in TASKS[task].metrics]
    if rows is None:
        # of what the caller chose, so that a new key of the configuration leaves the scores of all tests as they are
        chosen = [preset, task, name, source, config.init, config.models.name, seed, list(assignments)]
        number = int(digest(chosen)[:8], 16)
        rows = bleu_rows(1 - mean / 100, number) if task == "iwslt" else rouge_rows(noisy(mean, number, SETS[task]))
    scores = {name: one.model_dump(mode="json") for name, one in summarise(rows, metrics).items()}
    plain = {
        "run_id": run_id,
        "started": "2026-01-02T03:04:05+00:00",
        "seconds": 2 * seconds,
        "config": config.canonical(),
        "run_hash": digest(key),
        "comparison_key": digest(comparison_fields(key)),
        "comparison_fields": comparison_fields(key),
        "metrics": [{"name": m.name, "label": m.label, "signature": "a signature"} for m in metrics],
        "scores": scores,
        "teacher_scores": scores,
        "init_scores": scores,
        "data": {
            "source": "synthetic (seed 0)",
            "fingerprint": "d" * 64,
            "examples": {"train": 2000, "validation": 100} | {n: s["examples"] for n, s in scores.items()},
            "overlap": {},
            "teacher_responses": None,
            "notes": [],
            "references": dict.fromkeys(scores, "b" * 64),
        },
        "models": {
            "student_parameters": 123_456,
            "teacher_parameters": 1_234_567,
            "teacher": "a" * 64,
            "generation": key["generation"],
            "decoded_by": ["plain steps"],
        },
        "training": {
            "steps": 400,
            "best_step": 300,
            "resumes": resumes,
            "tokens_trained": 1000,
            "tokens_generated": 0,
        },
        "time": {
            "phases": {"data": 0.1, "student": seconds - 0.1},
            "training_seconds": seconds,
            "steps_per_second": 400 / seconds,
            "tokens_per_second": 1000 / seconds,
            "steps": {kind: {"count": n, "median": seconds / 400} for kind, n in steps.items() if n},
            "before": {"init student": 2.0} if config.init == "sft" else {},
            "stages": {
                "data": 1.0,
                "teacher": 0.0,
                "init student": 0.0,
                "training": seconds,
                "evaluation": seconds - 1.0,
            },
        },
        "memory": {"device_bytes": None, "process_bytes": 2**29},
        "energy_joules": None,
        "environment": {
            "python": "3.12.0",
            "platform": "Linux x86_64",
            "cpu": "A CPU & Co",
            "cpu_cores": 2,
            "threads": 2,
            "memory_gib": 8.0,
            "device": "cpu",
            "device_name": "cpu",
            "cuda": None,
            "packages": {"torch": "2.13.0", "transformers": "5.17.0"},
            "distillm_bench": __version__,
            "git": {"commit": "c" * 40, "changed": False},
            "load_before": 0.1,
        }
        | ({} if other_load is None else {"other_load": other_load}),
        "validations": [{"step": 0, "loss": 3.0}, {"step": 300, "loss": 2.0, "metric": mean}],
        "curve": [{"step": 400, "phi": phi}] if "adaptive" in source else [],
    }
    return RunRecord.model_validate_json(json.dumps(plain)), rows


def altered(record: RunRecord, **values: object) -> RunRecord:
    """A record with other values; keyword `a__b` stands for the field `a.b`."""
    plain = record.plain()
    for name, value in values.items():
        *path, last = name.split("__")
        inner = plain
        for part in path:
            inner = inner[part]
        inner[last] = value
    return RunRecord.model_validate_json(json.dumps(plain))


def rewrite(out: Path, record: RunRecord, **values: object) -> None:
    """Write a record again with other values, its predictions as they are."""
    store = Store(out)
    store.write(altered(record, **values), store.predictions(record))


def write_record(out: Path, method: str = "kld", task: str = "dolly", seed: int = 10, **fields: Any) -> RunRecord:
    """Write a record below OUT/runs as `bench run` does."""
    record, rows = make_record(method, task, seed, **fields)
    Store(out).write(record, rows)
    return record
