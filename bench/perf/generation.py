"""Generation by family: our engine beside `generate` of transformers, with responses of equal lengths."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel

from bench.models.batches import pad
from bench.models.sampling import Decoding
from bench.perf.first_engine import DrawOne
from bench.perf.measure import Arm, Comparison, compare, timed
from bench.perf.workload import EndAt, EndingModel, Workload, ending_model, untouched
from distillm import TokenSequence


def measure(workload: Workload) -> Iterator[Comparison]:
    """Sampling at temperature 1 in useful tokens, which are those of the responses."""
    for family, (shape, batch_sizes) in workload.families.items():
        model = ending_model(workload, shape, family)
        for size in batch_sizes:
            yield _compare(workload, model, f"{family}, batch {size}", size)


def _compare(workload: Workload, model: EndingModel, name: str, size: int) -> Comparison:
    sequences, network = workload.sequences(size), untouched(model)

    def ours() -> float:
        with workload.autocast():
            return float(sum(map(len, model.sample(sequences, Decoding(workload.longest_response), "generation"))))

    def by_generate(*, one_number: bool) -> Arm:
        return timed(
            workload.device, lambda: float(generated(model, network, sequences, workload, one_number=one_number))
        )

    arms = {"first engine": by_generate(one_number=True)}
    if not workload.quick or size == min(workload.families["GPT-2"][1]):
        arms["generate"] = by_generate(one_number=False)
    return compare("generation", name, "token", workload.device, workload.pace, timed(workload.device, ours), arms)


@torch.inference_mode()
def generated(
    model: EndingModel,
    network: PreTrainedModel,
    sequences: list[TokenSequence],
    workload: Workload,
    *,
    one_number: bool,
) -> int:
    """Sample with `generate`, as it comes or as the first engine did; returns how many tokens the responses have.

    Args:
        model: knows tokenizer and start.
        network: generates.
        sequences: give the prompts.
        workload: gives the responses' lengths.
        one_number: a random number a row, as in the first engine.
    """
    tokenizer = model.tokenizer
    settings = GenerationConfig(
        do_sample=not one_number,
        top_k=None if one_number else 0,
        max_new_tokens=workload.longest_response,
        pad_token_id=tokenizer.pad_id,
        eos_token_id=tokenizer.eos_id,
        decoder_start_token_id=model.start_id,
    )
    ids, mask = pad([s.prompt for s in sequences], tokenizer.pad_id, workload.device, left=tokenizer.kind == "causal")
    steps = [EndAt(workload.response_lengths(len(sequences)), tokenizer.eos_id), *[DrawOne()] * one_number]
    network.eval()
    with workload.autocast():
        output: Tensor = network.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=settings,
            logits_processor=LogitsProcessorList(steps),
        )
    made = output[:, ids.shape[1] if tokenizer.kind == "causal" else 1 :]
    is_eos = (made == tokenizer.eos_id).long()
    return int((is_eos.cumsum(-1) - is_eos == 0).sum())  # tokens without an EOS before them
