"""Evaluation: scoring texts beside rouge_score, and responses for several decoding seeds beside `generate`."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from rouge_score.rouge_scorer import RougeScorer

from bench.config.sections import EvaluationConfig
from bench.data import Example, load_task
from bench.evaluation.evaluate import EvaluationSet, evaluate
from bench.metrics.rouge_l import RougeL
from bench.models.sampling import Decoding
from bench.perf.generation import generated
from bench.perf.measure import Comparison, compare, timed
from bench.perf.workload import Workload, ending_model, untouched

_WORDS = 60  # of a text: the synthetic responses are shorter than Dolly's and are put together


def measure(workload: Workload) -> Iterator[Comparison]:
    """Both."""
    yield _scoring(workload)
    yield _decoding_seeds(workload)


def _scoring(workload: Workload) -> Comparison:
    texts = [one.references[0] for one in load_task("dolly").splits["train"]]
    words = itertools.cycle(word for text in texts for word in text.split())
    long = [" ".join(itertools.islice(words, _WORDS)) for _ in range(workload.texts)]
    scorer, metric, shift = RougeScorer(["rougeL"], use_stemmer=True), RougeL(), itertools.count(1)

    def pairs() -> Iterator[tuple[str, str]]:
        """Each text with another one, a different one each time: a cache of whole texts would be no measurement."""
        by = next(shift) % len(long)
        return zip(long, long[by:] + long[:by], strict=True)

    def ours() -> float:
        return float(len([metric.example(prediction, (reference,)) for prediction, reference in pairs()]))

    def theirs() -> float:
        return float(len([scorer.score(reference, prediction) for prediction, reference in pairs()]))

    cpu = torch.device("cpu")
    arms = {"rouge_score": timed(cpu, theirs)}
    return compare("evaluation", "ROUGE-L", "text", cpu, workload.pace, timed(cpu, ours), arms)


def _decoding_seeds(workload: Workload) -> Comparison:
    shape, batch_sizes = workload.families["GPT-2"]
    size = min(batch_sizes) // (2 if workload.quick else 1)
    model = ending_model(workload, shape, "evaluation")
    sequences, network = workload.sequences(size), untouched(model)
    examples = tuple(Example(s.id, "", ("w2 w3",)) for s in sequences)
    seeds = list(range(workload.decoding_seeds))
    config = EvaluationConfig.model_validate({"seeds": seeds, "batch_size": size})

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder, workload.autocast():
            rows = evaluate(
                model,
                [EvaluationSet("test", examples, sequences)],
                [RougeL()],
                config,
                Decoding(workload.longest_response),
                Path(folder),
                lambda *told: None,
            )
        return float(sum(row["tokens"] for row in rows))

    def theirs() -> float:
        return float(sum(generated(model, network, sequences, workload, one_number=True) for _ in seeds))

    name = f"{len(seeds)} decoding seeds, batch {size}"
    arms = {"first engine": timed(workload.device, theirs)}
    return compare("evaluation", name, "token", workload.device, workload.pace, timed(workload.device, ours), arms)
