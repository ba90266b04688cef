"""The models of a run's pair, as they are loaded or made: to be trained, or with frozen weights."""

from __future__ import annotations

import torch

from bench.experiment.context import RunContext
from bench.experiment.identity import SCRATCH, Side, model_path, scratch_architecture
from bench.models.cut import keep_layers
from bench.models.language_model import LanguageModel
from bench.models.lora import find_adapter


def load(context: RunContext, path: str, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """A model of the pair from a folder or the hub."""
    return LanguageModel.load(path, context.tokenizer, context.device, dtype, context.common)


def frozen(context: RunContext, path: str) -> LanguageModel:
    """A model of the pair that is not trained, its weights in the run's precision.

    Adapters stay beside the weights, in float32, as they were trained: merged in bfloat16 most of them would vanish.
    """
    dtype = frozen_dtype(context)
    if dtype == torch.float32 or find_adapter(path) is None:
        return load(context, path, dtype)
    model = LanguageModel.load_adapted(path, context.tokenizer, context.device, dtype, context.common)
    model.network.requires_grad_(False)
    return model


def frozen_weights(context: RunContext) -> dict[str, str]:
    """What keeps artifacts apart from those of versions that had frozen weights in float32 whatever the precision."""
    return {"frozen": "bf16"} if context.config.precision == "bf16" else {}


def frozen_dtype(context: RunContext) -> torch.dtype:
    """Of weights that are not trained: they need no more than what they are computed with."""
    return torch.bfloat16 if context.config.precision == "bf16" else torch.float32


def untrained(context: RunContext, side: Side, *seed: int | str, whole: bool = False) -> LanguageModel:
    """Teacher or student before any training here: as loaded, with new adapters if those are trained, or random.

    `whole` leaves out the adapters: all of it will be trained.
    """
    path, pair = model_path(context.config, side), context.config.models
    if path != SCRATCH and pair.lora is not None and not whole:
        return with_new_adapters(context, path, *seed, f"{side} adapter")
    if path != SCRATCH:
        model = load(context, path)
        if side == "student" and pair.student_layers is not None:
            keep_layers(model.network, pair.student_layers)
        return model
    return LanguageModel.from_scratch(
        scratch_architecture(context.config, side),
        context.tokenizer,
        context.device,
        *seed,
        f"{side} weights",
        common=context.common,
    )


def with_new_adapters(context: RunContext, path: str, *seed: int | str) -> LanguageModel:
    """A model with frozen weights and new adapters, which alone are trained."""
    adapters = context.config.models.lora
    assert adapters is not None
    model = frozen(context, path)
    model.add_adapter(adapters, *seed)
    return model
