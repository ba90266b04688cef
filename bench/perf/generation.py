"""Generation by family: our engine beside `generate` of transformers, with responses of equal lengths."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList

from bench.models.batches import pad
from bench.models.generation import Decoding
from bench.perf.measure import Comparison, compare, timed
from bench.perf.workload import EndAt, EndingModel, Workload, ending_model


def measure(workload: Workload) -> Iterator[Comparison]:
    """Sampling at temperature 1 in useful tokens, which are those of the responses."""
    for family, (shape, batch_sizes) in workload.families.items():
        model = ending_model(workload, shape, family)
        model.network.eval()
        for size in batch_sizes:
            yield _compare(workload, model, f"{family}, batch {size}", size)


def _compare(workload: Workload, model: EndingModel, name: str, size: int) -> Comparison:
    prompts = [s.prompt for s in workload.sequences(size)]
    decoding = Decoding(workload.longest_response)

    def ours() -> float:
        with autocast(workload):
            return float(sum(map(len, model.sample(prompts, decoding, "generation"))))

    def theirs() -> float:
        with autocast(workload):
            return float(generated(model, prompts, workload))

    arms = {"generate": timed(workload.device, theirs)}
    return compare("generation", name, "token", workload.device, workload.pace, timed(workload.device, ours), arms)


def autocast(workload: Workload) -> torch.autocast:
    """The precision that student outputs are sampled in while a student trains."""
    return torch.autocast(workload.device.type, torch.bfloat16, enabled=workload.device.type == "cuda")


@torch.inference_mode()
def generated(model: EndingModel, prompts: list[tuple[int, ...]], workload: Workload) -> int:
    """Sample with `generate` as it comes; returns how many tokens the responses have."""
    tokenizer, network = model.tokenizer, model.network
    ends = workload.response_lengths(len(prompts))
    settings = GenerationConfig(
        do_sample=True,
        top_k=0,
        max_new_tokens=workload.longest_response,
        pad_token_id=tokenizer.pad_id,
        eos_token_id=tokenizer.eos_id,
        decoder_start_token_id=model.start_id,
    )
    ids, mask = pad(prompts, tokenizer.pad_id, workload.device, left=tokenizer.kind == "causal")
    processors = LogitsProcessorList([EndAt(ends, tokenizer.eos_id)])
    output: Tensor = network.generate(
        input_ids=ids, attention_mask=mask, generation_config=settings, logits_processor=processors
    )
    prefix = ids.shape[1] if tokenizer.kind == "causal" else 1
    made = output[:, prefix:]
    ended = (made == tokenizer.eos_id).long().argmax(-1) + 1
    return int(torch.where((made == tokenizer.eos_id).any(-1), ended, made.shape[1]).sum())
