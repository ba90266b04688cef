"""Scores: responses to every example of every evaluation set, for each decoding seed, kept one by one."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from bench.config import EvaluationConfig
from bench.encoding import Codec
from bench.files import read_jsonl_gz, write_jsonl_gz
from bench.generation import Decoding, sample_all
from bench.metrics import bleu_from_statistics, bleu_signature, bleu_statistics, rouge_l
from bench.tasks import Example
from distillm import Sequence

Row = dict[str, Any]


@dataclass(frozen=True)
class EvaluationSet:
    """A set's examples and their sequences, in the same order."""

    name: str
    examples: tuple[Example, ...]
    sequences: list[Sequence]


class Metric:
    """The metric of a task: ROUGE-L averages examples, BLEU pools their n-gram counts over the corpus."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def label(self) -> str:
        """Name in tables."""
        return "BLEU" if self.name == "bleu" else "ROUGE-L"

    def signature(self, examples: tuple[Example, ...]) -> str:
        """What exactly is computed on these examples."""
        if self.name == "bleu":
            counts = {len(example.references) for example in examples}
            return bleu_signature(counts.pop() if len(counts) == 1 else None)
        return "rouge_score rougeL F1, stemmer, maximum over references, x100, mean over examples"

    def example(self, prediction: str, references: tuple[str, ...]) -> Row:
        """What a prediction adds to the score: its ROUGE-L, or its BLEU statistics."""
        if self.name == "bleu":
            return {"bleu_statistics": bleu_statistics(prediction, references)}
        return {"rouge_l": round(rouge_l(prediction, references), 4)}

    def corpus(self, rows: list[Row]) -> float:
        """Score of a set from what its examples added."""
        if self.name == "bleu":
            columns = zip(*(row["bleu_statistics"] for row in rows), strict=True)
            return bleu_from_statistics([sum(column) for column in columns])
        return statistics.fmean(row["rouge_l"] for row in rows)

    def of(self, predictions: list[str], examples: tuple[Example, ...]) -> float:
        """Score of predictions for a set's examples."""
        pairs = zip(predictions, examples, strict=True)
        return self.corpus([self.example(text, example.references) for text, example in pairs])


def evaluate(
    model: PreTrainedModel,
    sets: list[EvaluationSet],
    codec: Codec,
    metric: Metric,
    config: EvaluationConfig,
    decoding: Decoding,
    parts: Path,
    progress: Callable[[int, int, str], None],
) -> list[Row]:
    """Predictions with per-example scores: a row for each set, decoding seed and example.

    Args:
        config: the decoding seeds and the batch size.
        decoding: how responses are sampled.
        parts: folder where each set and seed is kept as it is done, so that a killed evaluation goes on.
        progress: told responses done, responses in all, and the set.
    """
    seeds = config.seeds if config.temperature > 0 else config.seeds[:1]  # greedy: every seed is the same
    total, before = len(seeds) * sum(len(s.examples) for s in sets), 0
    rows: list[Row] = []
    for one in sets:
        for seed in seeds:
            part = parts / f"{one.name}-{seed}.jsonl.gz"
            if not part.exists():
                watch = functools.partial(_offset, progress, before, total, one.name)
                responses = sample_all(
                    model,
                    one.sequences,
                    codec,
                    decoding,
                    config.batch_size,
                    *("evaluation", one.name, seed),
                    progress=watch,
                )
                write_jsonl_gz(
                    part,
                    (
                        {
                            "set": one.name,
                            "seed": seed,
                            "id": example.id,
                            "prediction": (text := codec.text(response)),
                            "tokens": len(response),
                            "ended": response[-1] == codec.eos_id,
                            **metric.example(text, example.references),
                        }
                        for example, response in zip(one.examples, responses, strict=True)
                    ),
                )
            rows += read_jsonl_gz(part)
            before += len(one.examples)
    return rows


def _offset(progress: Callable[[int, int, str], None], before: int, total: int, name: str, done: int) -> None:
    progress(before + done, total, name)


def summarise(rows: list[Row], metric: Metric) -> dict[str, Any]:
    """Per set: the mean over decoding seeds, their sample standard deviation, each seed's score, lengths."""
    grouped: dict[str, dict[int, list[Row]]] = {}
    for row in rows:
        grouped.setdefault(row["set"], {}).setdefault(row["seed"], []).append(row)
    summary: dict[str, Any] = {}
    for name, seeds in grouped.items():
        scores = {seed: metric.corpus(part) for seed, part in seeds.items()}
        everything = [row for part in seeds.values() for row in part]
        summary[name] = {
            "mean": statistics.fmean(scores.values()),
            "sd_over_decoding_seeds": statistics.stdev(scores.values()) if len(scores) > 1 else None,
            "by_decoding_seed": {str(seed): score for seed, score in scores.items()},
            "examples": len(next(iter(seeds.values()))),
            "mean_tokens": statistics.fmean(row["tokens"] for row in everything),
            "share_ended": statistics.fmean(row["ended"] for row in everything),
        }
    return summary


def mean_of_sets(summary: Mapping[str, Any]) -> float:
    """The plain mean over evaluation sets."""
    return statistics.fmean(one["mean"] for one in summary.values())
