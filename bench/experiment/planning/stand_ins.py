"""What stands for a run's models and training where only their sizes count: random weights, tokens of no meaning.

Both the plan's memory and the measurement of a device run these, the one without contents, the other on the device.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest.mock import patch

import torch

from bench.config.sections import LoraConfig, TrainingConfig
from bench.experiment.planning.shapes import Shape
from bench.models.language_model import LanguageModel
from bench.models.output_head import AfterHead
from bench.models.sampling import Decoding
from bench.models.tokenizer import TokenizerAdapter
from bench.training.job import TrainingJob, ValidationSet
from distillm import Objective, OutputSource, SourceOptions, TokenSequence


@dataclass(frozen=True)
class Setting:
    """What determines the memory and arithmetic of a pass, beside models and objective.

    Attributes:
        device: type of the device that is planned for.
        bf16: whether passes are in bfloat16.
        sequences: at once.
        prompt, response: tokens of each.
        checkpointing: of gradients.
        accumulating: gradients are there already, of an earlier micro-batch or, with captured passes, an earlier step.
        lora: the adapters that are trained, as JSON; empty where all weights are.
    """

    device: str
    bf16: bool
    sequences: int
    prompt: int
    response: int
    checkpointing: bool = False
    accumulating: bool = False
    lora: str = ""


def job(student: Shape, teacher: Shape | None, objective: Objective, setting: Setting, device: str) -> TrainingJob:
    """A training of random models on sequences of the setting's lengths."""
    frozen = torch.bfloat16 if setting.bf16 else torch.float32
    values = dict.fromkeys(("student", "teacher"), (0.0,) * setting.response)
    sequences = [
        TokenSequence(str(i), (0,) * setting.prompt, (1,) * setting.response, token_values=values)
        for i in range(setting.sequences)
    ]
    given = {"steps": 2, "batch_size": setting.sequences, "learning_rate": 1e-9, "select_by": "loss"}
    config = TrainingConfig.model_validate(given | {"gradient_checkpointing": setting.checkpointing})
    trained = language_model(student, device, frozen if setting.lora else torch.float32)
    if setting.lora:
        # peft moves new adapters to where the weights are: they are there, and what has no contents cannot be moved
        with patch.object(torch.nn.Module, "to", lambda module, *_, **__: module):
            trained.add_adapter(LoraConfig.model_validate_json(setting.lora), 0)
    return TrainingJob(
        label="a plan",
        objective=objective,
        output_source=OutputSource("dataset", SourceOptions(), total_steps=2, batch_size=setting.sequences),
        student=trained,
        teacher=language_model(teacher, device, frozen) if teacher and objective.needs_teacher else None,
        train=sequences,
        validation=ValidationSet(sequences, lambda texts: 0.0, Decoding(setting.response), setting.sequences),
        config=config,
        max_response_length=setting.response,
        seed=0,
        work=Path(os.devnull),  # nothing is saved or read
        on_step=lambda step, total, figures: None,
        note=lambda text: None,
        precision="bf16" if setting.bf16 else "fp32",
    )


def language_model(shape: Shape, device: str, dtype: torch.dtype) -> LanguageModel:
    """A model of a shape, with a tokenizer that only knows its special ids, and a plain output layer."""
    tokenizer = SimpleNamespace(kind=shape.kind, pad_id=0, eos_id=1, size=shape.config.get_text_config().vocab_size)
    network = shape.network(device, dtype)
    network.config.decoder_start_token_id = 0
    model = LanguageModel(network, cast(TokenizerAdapter, tokenizer), shape.name)
    vars(model)["after_head"] = AfterHead()  # finding it out needs numbers
    return model
