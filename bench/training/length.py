"""How long a training is: its steps, those that are validated, their learning rates, and sequences at once."""

from __future__ import annotations

import math

from bench.config.sections import TrainingConfig

_BUSY_TOKENS = 4096  # of a forward pass; with more, a GPU computes no faster, and more is padding


def total_steps(config: TrainingConfig, examples: int) -> int:
    """Optimiser steps of a training."""
    if config.steps is not None:
        return config.steps
    assert config.epochs is not None
    return max(1, round(config.epochs * max(1, examples // config.batch_size)))


def validated_steps(config: TrainingConfig, total: int) -> set[int]:
    """Steps after which the student is validated, the last one always among them."""
    validations = min(config.validations, total)
    return {round(total * i / validations) for i in range(1, validations + 1)}


def learning_rate(config: TrainingConfig, step: int, total: int) -> float:
    """Learning rate of a step, counted from 1: linear warm-up, then the schedule down to zero."""
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, total - config.warmup_steps + 1)
    factor = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}
    return config.learning_rate * factor[config.schedule]


def sequences_at_once(tokens: float, batch_size: int) -> int:
    """Sequences of a micro-batch that keeps a GPU busy: a batch, or an equal part of it.

    Args:
        tokens: that a batch has on average, prompts included.
        batch_size: its sequences.
    """
    return math.ceil(batch_size / max(1, round(tokens / _BUSY_TOKENS)))
