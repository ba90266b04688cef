"""Scores: responses to every example of every evaluation set, for each decoding seed, kept one by one."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.config.sections import EvaluationConfig
from bench.data import Example
from bench.metrics.metric import Metric, example_score, set_score
from bench.record.example_scores import Prediction, texts_hash, upgraded
from bench.record.record import Score, Scores, SetScores
from bench.system.files import read_jsonl_gz, remove, write_jsonl_gz
from bench.system.processes import ALONE, Processes

if TYPE_CHECKING:  # torch takes seconds, which summing up scores need not
    from bench.models.language_model import LanguageModel
    from bench.models.sampling import Decoding
    from distillm import TokenSequence


@dataclass(frozen=True)
class EvaluationSet:
    """A set's examples and their sequences, in the same order."""

    name: str
    examples: tuple[Example, ...]
    sequences: Sequence[TokenSequence]


def evaluate(
    model: LanguageModel,
    sets: list[EvaluationSet],
    metrics: Sequence[Metric],
    config: EvaluationConfig,
    decoding: Decoding,
    parts: Path,
    progress: Callable[[int, int, str], None],
    note: Callable[[str], None] = lambda _: None,
    processes: Processes = ALONE,
) -> list[Prediction]:
    """Predictions with per-example scores: a row for each set, decoding seed and example.

    Args:
        model: answers the prompts.
        sets: what it is evaluated on.
        metrics: all that each response is scored by.
        config: the decoding seeds and the batch size.
        decoding: how responses are sampled.
        parts: folder where each set is kept as it is done, so that a killed evaluation goes on.
        progress: told responses done, responses to make in all (sets that are kept are not among them), and the set.
        note: told of a part that is damaged; it is made again. And if the model's steps cannot be captured.
        processes: that share the responses; the leader writes.
    """
    seeds = config.seeds if config.temperature > 0 else config.seeds[:1]  # greedy: every seed is the same
    part_of = {one.name: parts / f"{one.name}.jsonl.gz" for one in sets}
    to_do = {  # the rate is theirs
        one.name: len(one.examples)
        for one in sets
        if processes.leads and not is_whole(part_of[one.name], len(seeds) * len(one.examples), note)
    }
    to_do = processes.tell(to_do)
    total, before = len(seeds) * sum(to_do.values()), 0
    rows: list[Prediction] = []

    def responses(one: EvaluationSet) -> Sequence[tuple[tuple[int, ...], ...]]:
        """For each example the responses of all seeds."""
        places = [("evaluation", one.name, seed) for seed in seeds]

        def told(done: int) -> None:
            progress(min(before + done * processes.size, total), total, one.name)  # the others are as far

        def sample(sequences: Sequence[TokenSequence]) -> list[tuple[tuple[int, ...], ...]]:
            of_seeds = model.sample_each(sequences, decoding, places, batch_size=config.batch_size, progress=told)
            return list(zip(*of_seeds, strict=True))

        return processes.spread(one.sequences, sample)

    model.tell_of_graphs(note)
    for one in sets:
        part = part_of[one.name]
        if one.name in to_do:
            of_set = zip(seeds, zip(*responses(one), strict=True), strict=True)
            if processes.leads:
                write_jsonl_gz(part, (row for seed, made in of_set for row in _rows(model, one, seed, made, metrics)))
            processes.wait()
            before += len(seeds) * len(one.examples)
        rows += upgraded(read_jsonl_gz(part))
    return rows


def is_whole(part: Path, rows: int, note: Callable[[str], None]) -> bool:
    """Whether a part's rows are there; what is there but damaged is named and removed."""
    try:
        if len(read_jsonl_gz(part)) == rows:
            return True
        reason = "rows are missing"
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        reason = str(error)
    note(f"{part} is damaged ({reason}); its responses are made again")
    remove(part)
    return False


def _rows(
    model: LanguageModel,
    one: EvaluationSet,
    seed: int,
    responses: Sequence[tuple[int, ...]],
    metrics: Sequence[Metric],
) -> Iterator[Prediction]:
    for example, response in zip(one.examples, responses, strict=True):
        text = model.tokenizer.text(response)
        yield {
            "set": one.name,
            "seed": seed,
            "id": example.id,
            "prediction": text,
            "tokens": len(response),
            "ended": response[-1] == model.tokenizer.eos_id,
            "scores": {metric.name: example_score(metric, text, example.references) for metric in metrics},
        }


def summarise(rows: list[Prediction], metrics: Sequence[Metric]) -> Scores:
    """Per set: each metric's mean over decoding seeds, their sample standard deviation, each seed's score; lengths;
    a hash of the texts.
    """
    grouped: dict[str, dict[int, list[Prediction]]] = {}
    for row in rows:
        grouped.setdefault(row["set"], {}).setdefault(row["seed"], []).append(row)
    return {name: _summary(seeds, metrics) for name, seeds in grouped.items()}


def _summary(seeds: dict[int, list[Prediction]], metrics: Sequence[Metric]) -> SetScores:
    everything = [row for part in seeds.values() for row in part]
    return SetScores(
        examples=len(next(iter(seeds.values()))),
        mean_tokens=statistics.fmean(row["tokens"] for row in everything),
        share_ended=statistics.fmean(row["ended"] for row in everything),
        metrics={metric.name: _score(seeds, metric) for metric in metrics},
        texts=texts_hash(everything),
    )


def _score(seeds: dict[int, list[Prediction]], metric: Metric) -> Score:
    scores = {seed: set_score(metric, [row["scores"][metric.name] for row in part]) for seed, part in seeds.items()}
    return Score(
        mean=statistics.fmean(scores.values()),
        sd_over_decoding_seeds=statistics.stdev(scores.values()) if len(scores) > 1 else None,
        by_decoding_seed=scores,
    )
