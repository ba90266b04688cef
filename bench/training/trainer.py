"""The one training loop: teachers, init students and every method go through it.

The method decides which responses a batch has and what each token costs; the loop owns everything that must be equal
between methods: data order, optimiser, learning rate, precision, validation, checkpoints, clock.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_model as load_weights
from torch import Tensor
from transformers import PreTrainedModel

from bench.config.fidelity import Fidelity
from bench.config.sections import TrainingConfig
from bench.models.batches import Batch, collate
from bench.models.generation import Decoding, NonFiniteLogits, sample_all
from bench.models.loading import decoder_start, response_logits
from bench.models.tokenizer import Codec
from bench.system.errors import BenchError
from bench.system.seeding import derive_seed, seed_torch
from bench.training.checkpoint import Checkpoints, Progress
from bench.training.data_order import batch_order
from bench.training.diagnostics import Signals
from bench.training.phase_timer import Clock
from bench.training.reference_bugs import counted_tokens
from bench.training.rollouts import roll_out
from distillm import BatchObjective, Objective, OutputSource, Sampling, TokenSequence

_NAMED_IDS = 64  # in a message; the record of the failure has all
_ADVICE = "Try a lower training.learning_rate, a longer training.warmup_steps or precision=fp32."


@dataclass(frozen=True)
class AuxiliaryLoss:
    """A second objective on other sequences, added to the method's loss at each step.

    Attributes:
        objective: what each token costs.
        weight: of its mean beside the method's.
        sequences: what it is taken on.
        batch_size: how many of them at each step.
    """

    objective: Objective
    weight: float
    sequences: list[TokenSequence]
    batch_size: int


@dataclass
class Job:
    """Everything one training needs.

    Attributes:
        label: what is trained, for messages.
        objective, source: the method.
        student: trained in place.
        teacher: None where the objective needs none.
        train: the training set.
        validation: the validation set, never trained on.
        score: metric of texts answering the validation prompts in their order; higher is better.
        decoding: how validation responses are sampled.
        max_response_length: tokens of a student-generated output in training.
        seed: the training seed.
        work: folder for checkpoints, the training's alone.
        plain_text: the auxiliary loss; None where it is off.
        fidelity: the authors' defects to repeat.
        watch: told step, total steps and what to show.
    """

    label: str
    objective: Objective
    source: OutputSource
    student: PreTrainedModel
    teacher: PreTrainedModel | None
    codec: Codec
    train: list[TokenSequence]
    validation: list[TokenSequence]
    score: Callable[[list[str]], float]
    config: TrainingConfig
    decoding: Decoding
    evaluation_batch: int
    max_response_length: int
    seed: int
    accelerator: Accelerator
    work: Path
    watch: Callable[[int, int, dict[str, float]], None]
    plain_text: AuxiliaryLoss | None = None
    fidelity: Fidelity = field(default_factory=Fidelity)


@dataclass
class Step:
    """One training step as its output source sees it (`distillm.method.Context`)."""

    step: int
    batch: list[TokenSequence]
    rng: random.Random
    generate: Callable[[list[TokenSequence]], list[TokenSequence]]
    upcoming: Callable[[int], list[list[TokenSequence]]]


class NonFiniteLoss(BenchError):
    """A loss became inf or nan; says where and what to try.

    Args:
        label: what was trained.
        step: the optimiser step.
        what: what is not finite.
        values: the figures at that step.
        batch: the sequences it was taken on.
        progress: the training up to there.
    """

    def __init__(
        self,
        label: str,
        step: int,
        what: str,
        values: dict[str, float],
        batch: list[TokenSequence],
        progress: Progress,
    ) -> None:
        ids = [s.id for s in batch]
        shown = "".join(f", {name} {value}" for name, value in values.items())
        named = ", ".join(ids[:_NAMED_IDS]) + (f" and {len(ids) - _NAMED_IDS} more" if len(ids) > _NAMED_IDS else "")
        super().__init__(f"{label}: {what} is not finite at step {step}{shown}; batch {named}. {_ADVICE}")
        self.details: dict[str, Any] = {
            "step": step,
            "what": what,
            "values": {name: str(value) for name, value in values.items()},  # JSON has no nan
            "batch": ids,
            "advice": _ADVICE,
            "validations": progress.validations,
            "curve": progress.curve,
        }


def total_steps(config: TrainingConfig, examples: int) -> int:
    """Optimiser steps of a training."""
    if config.steps is not None:
        return config.steps
    assert config.epochs is not None
    return max(1, round(config.epochs * max(1, examples // config.batch_size)))


def learning_rate(config: TrainingConfig, step: int, total: int) -> float:
    """Learning rate of a step, counted from 1: linear warm-up, then the schedule down to zero."""
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, total - config.warmup_steps + 1)
    factor = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}
    return config.learning_rate * factor[config.schedule]


def train(job: Job) -> Progress:
    """Train the student, going on from the last checkpoint in `job.work` if there is one.

    Afterwards the student holds the weights that were best on the validation set.

    Raises:
        NonFiniteLoss: the loss of a batch, its gradient, the student's logits or the validation loss is inf or nan.
        BenchError: an objective returns anything but a loss per token, or checkpoints cannot be written.
    """
    config, device = job.config, job.accelerator.device
    total = total_steps(config, len(job.train))
    validate_at = {round(total * i / config.validations) for i in range(1, config.validations + 1)}
    clock = Clock(device)
    student = job.accelerator.prepare_model(job.student)
    optimiser = torch.optim.AdamW(
        _parameter_groups(job.student, config.weight_decay),
        lr=config.learning_rate,
        betas=(0.9, config.adam_beta2),
    )
    whole = job.objective if isinstance(job.objective, BatchObjective) else None
    sampling = whole.sampling if whole is not None else Sampling()
    checkpoints = Checkpoints(job.work, job.student, optimiser, job.source, job.objective)
    progress = checkpoints.load() or Progress(total_steps=total)
    clock.seconds.update(progress.seconds)
    job.student.train(whole is None or whole.dropout)
    if job.teacher is not None:
        job.teacher.eval()

    def generate(batch: list[TokenSequence]) -> list[TokenSequence]:
        with clock.phase("generation"), job.accelerator.autocast():
            try:
                made = roll_out(
                    job.student,
                    job.teacher,
                    batch,
                    job.codec,
                    job.max_response_length,
                    sampling,
                    step,
                    *(job.seed, "student-generated outputs", step, next(calls)),
                    micro_batch_size=config.micro_batch_size,
                )
            except NonFiniteLogits as error:
                what = "the distribution that responses are sampled from"
                raise NonFiniteLoss(job.label, step, what, {}, batch, progress) from error
        progress.tokens_generated += sum(len(s.response) for s in made)
        return made

    def upcoming(count: int) -> list[list[TokenSequence]]:
        order = batch_order(job.train, config.batch_size, job.seed)
        return list(itertools.islice(order, step - 1, step - 1 + count))

    def save() -> None:
        with clock.phase("checkpoint"):
            progress.seconds = dict(clock.seconds)
            checkpoints.save(progress)

    if progress.step == 0 and not progress.validations:
        _validate(job, clock, progress, score=False)
        job.source.observe(progress.validations[-1]["loss"])

    plain_batches = _plain_batches(job, progress.step)
    batches = itertools.islice(batch_order(job.train, config.batch_size, job.seed), progress.step, total)
    saved_at = time.monotonic()
    for step, dataset_batch in enumerate(batches, start=progress.step + 1):
        rng = random.Random(derive_seed(job.seed, "output source", step))
        calls = itertools.count()  # a round of roll-outs is sampled in several calls, each with a seed of its own
        sourced = job.source.next(Step(step, dataset_batch, rng, generate, upcoming))
        batch = sourced.batch if whole is None else whole.begin(sourced.batch, step, total)
        seed_torch(job.seed, "dropout", step)
        rate = learning_rate(config, step, total)
        for group in optimiser.param_groups:
            group["lr"] = rate

        # what a step's signals cost is paid once per point of the curve
        signals = Signals() if progress.at_point(step) else None
        loss = _backward(job, student, clock, job.objective, batch, 1.0, signals)
        figures, concerned = {"loss": loss}, batch
        if job.plain_text is not None:
            auxiliary, texts = job.plain_text, next(plain_batches)
            text_loss = _backward(job, student, clock, auxiliary.objective, texts, auxiliary.weight, None)
            figures["plain_text_loss"] = text_loss
            concerned = batch if not math.isfinite(loss) else texts if not math.isfinite(text_loss) else batch + texts
        with clock.phase("optimiser"):
            norm = float(torch.nn.utils.clip_grad_norm_(job.student.parameters(), config.max_grad_norm))
            figures["gradient_norm"] = norm
            bad = [name for name, value in figures.items() if not math.isfinite(value)]
            if bad:
                what = "the " + bad[0].replace("_", " ")
                raise NonFiniteLoss(job.label, step, what, figures, concerned, progress)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        if whole is not None:
            whole.finish(loss)

        progress.step = step
        progress.tokens_trained += sum(len(s.response) for s in batch)
        figures |= {"learning_rate": rate, "phi": job.source.phi}
        if signals is not None:
            figures |= signals.means()
        progress.log(figures, sourced, job.source.buffer_size, job.codec.eos_id)
        if step in validate_at:
            _validate(job, clock, progress, score=True)
            job.source.observe(progress.validations[-1]["loss"])
            if progress.is_best(config.select_by):
                checkpoints.save_best(progress)
        if step in validate_at or time.monotonic() - saved_at > config.checkpoint_seconds:
            save()
            saved_at = time.monotonic()
        job.watch(step, total, {"loss": loss, "phi": job.source.phi, "buffer": job.source.buffer_size})

    load_weights(job.student, checkpoints.best_path(progress), strict=False)
    return progress


def _backward(
    job: Job,
    student: torch.nn.Module,
    clock: Clock,
    objective: Objective,
    batch: list[TokenSequence],
    weight: float,
    signals: Signals | None,
) -> float:
    """Add the gradient of an objective's mean over a batch's response tokens; returns that mean.

    Each micro-batch adds its share of the whole batch's mean, so that micro-batches add up to it exactly.
    """
    device, start_id = job.accelerator.device, decoder_start(job.student)
    counted = None
    if not (job.source.rule.rounds or job.source.rule.paired):
        counted = counted_tokens(batch, job.fidelity, job.codec.pad_id, job.codec.eos_id)
    total = sum(map(sum, counted)) if counted is not None else sum(len(s.response) for s in batch)
    micro = job.config.micro_batch_size or len(batch)
    mean = 0.0
    for start in range(0, len(batch), micro):
        part = batch[start : start + micro]
        with clock.phase("data"):
            tensors = collate(part, job.codec, start_id, device)
        with clock.phase("teacher"):
            teacher_logits = _teacher_logits(job, tensors) if objective.needs_teacher else None
        with clock.phase("student"):
            with job.accelerator.autocast():
                student_logits = response_logits(student, tensors)
            losses = objective(student_logits, teacher_logits, tensors.tokens, part)
            if losses.shape != tensors.tokens.shape:
                raise BenchError(
                    f"{job.label}: {type(objective).__name__} returned a tensor of shape {tuple(losses.shape)}, "
                    f"expected {tuple(tensors.tokens.shape)}: one loss per response token, of which the training loop "
                    "takes the mean"
                )
            if counted is not None:
                kept = [flag for row in counted[start : start + micro] for flag in row]
                losses = losses * torch.tensor(kept, device=device)
            share = losses.sum() / max(1, total)
            job.accelerator.backward(weight * share)
            mean += share.item()
        if signals is not None:
            signals.add(student_logits.detach(), teacher_logits, tensors.tokens, part)
    return mean


def _plain_batches(job: Job, done: int) -> Iterator[list[TokenSequence]]:
    """Batches of the auxiliary loss from the step after `done` on."""
    if job.plain_text is None:
        return iter(())
    order = batch_order(job.plain_text.sequences, job.plain_text.batch_size, job.seed)
    return itertools.islice(order, done, None)


def _parameter_groups(model: PreTrainedModel, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices only, not on biases and normalisation weights."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _teacher_logits(job: Job, tensors: Batch) -> Tensor:
    assert job.teacher is not None
    with torch.no_grad():
        return response_logits(job.teacher, tensors)


@torch.no_grad()
def _validate(job: Job, clock: Clock, progress: Progress, *, score: bool) -> None:
    """Append the validation loss (cross-entropy, nats per response token) and, if wanted, the metric."""
    model, device = job.student, job.accelerator.device
    was_training = model.training
    with clock.phase("validation"):
        model.eval()
        summed, counted = 0.0, 0
        for start in range(0, len(job.validation), job.evaluation_batch):
            part = job.validation[start : start + job.evaluation_batch]
            tensors = collate(part, job.codec, decoder_start(model), device)
            with job.accelerator.autocast():
                logits = response_logits(model, tensors)
            summed += float(torch.nn.functional.cross_entropy(logits.float(), tensors.tokens, reduction="sum"))
            counted += len(tensors.tokens)
        if not math.isfinite(summed):
            values = {"loss": summed / counted}
            what = "the validation loss"
            raise NonFiniteLoss(job.label, progress.step, what, values, job.validation, progress)
        row: dict[str, float] = {"step": progress.step, "loss": summed / counted}
        if score and job.config.select_by == "metric":
            # one seed for every validation: checkpoints are compared under the same draws
            responses = sample_all(
                model, job.validation, job.codec, job.decoding, job.evaluation_batch, job.seed, "validation"
            )
            row["metric"] = job.score([job.codec.text(r) for r in responses])
        model.train(was_training)
    progress.validations.append(row)
