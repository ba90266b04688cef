"""Whether a stage of a plan fits into memory, and the least change of settings that makes it fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.config.sections import Config
from bench.experiment.planning.plan import SECTIONS, Plan, Stage, changed_stage

SPARE = 0.1
"""The share of memory that the plan leaves to kernels, fragmentation and the allocator: ours, not measured."""


@dataclass(frozen=True)
class Remedy:
    """Settings that make a stage fit, as `KEY=VALUE`, and what it then takes in bytes."""

    settings: tuple[str, ...]
    peak: float


def fits(stage: Stage, memory: float) -> bool:
    """Whether a stage fits into so many bytes, some spare."""
    return stage.peak <= memory * (1 - SPARE)


def remedy(plan: Plan, stage: Stage, memory: float) -> Remedy | None:
    """The least change that makes a stage fit into so many bytes; None where none of those known does.

    In this order, each with the largest micro-batch that fits: that alone, gradient checkpointing, bf16, 8-bit moments.
    """

    def changed(settings: Mapping[str, Any]) -> Stage:
        return changed_stage(plan, stage.name, _changed(plan.config, settings))

    for group in _changes(plan.config, stage):
        if not fits(changed(group[-1]), memory):
            continue
        for settings in group:
            found = changed(settings)
            if fits(found, memory):
                return Remedy(tuple(f"{key}={str(value).lower()}" for key, value in settings.items()), found.peak)
    return None


def _changed(config: Config, settings: Mapping[str, Any]) -> Config:
    for key, value in settings.items():
        section, _, name = key.partition(".")
        part = getattr(config, section).model_copy(update={name: value}) if name else value
        config = config.model_copy(update={section: part})
    return config


def _changes(config: Config, stage: Stage) -> Iterator[list[dict[str, Any]]]:
    """Groups of changes, in each of them those of larger micro-batches first."""
    rows = config.evaluation.batch_size
    half: dict[str, Any] = {"precision": "bf16"} if config.precision == "fp32" else {}
    section = SECTIONS.get(stage.name)
    if section is None:
        fewer: list[dict[str, Any]] = [{"evaluation.batch_size": size} for size in _halves(rows)]
        if fewer:
            yield fewer
        if half:
            yield [half | less for less in [{}, *fewer]]
        return
    few_rows: dict[str, Any] = {"evaluation.batch_size": min(rows, 8)} if stage.generation > stage.activations else {}
    micros: list[dict[str, Any]] = [{f"{section}.micro_batch_size": size} for size in _halves(stage.micro_batch)]
    again: dict[str, Any] = {f"{section}.gradient_checkpointing": True}
    if getattr(config, section).cuda_graphs:
        again[f"{section}.cuda_graphs"] = False
    small: dict[str, Any] = {f"{section}.optimizer": "adamw-8bit"}
    combinations = [few_rows, few_rows | again]
    combinations += [few_rows | half, few_rows | half | again] if half else []
    for more in [*combinations, few_rows | half | again | small]:
        group = [more | micro for micro in [{}, *micros] if more or micro]
        if group:
            yield group


def _halves(size: int) -> list[int]:
    found = []
    while size > 1:
        size //= 2
        found.append(size)
    return found


def with_lora(plan: Plan, stage: Stage) -> float | None:
    """About what a stage would take with adapters alone trained (arXiv:2106.09685); None where nothing is trained.

    Its weights are frozen in the run's precision, and gradients and moments of adapters are a few per mille of those of
    a whole model, so they are left out.
    """
    if stage.name not in SECTIONS or plan.config.models.lora is not None:
        return None
    weights = stage.weights / (2 if plan.config.precision == "bf16" else 1)
    return weights + stage.teacher + max(stage.activations + stage.output_layer + stage.buffers, stage.generation)
