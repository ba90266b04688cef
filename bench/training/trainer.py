"""The one training loop: teachers, init students and every method go through it.

The method decides which responses a batch has and what each token costs; the loop owns everything that must be equal
between methods: data order, optimiser, learning rate, precision, validation, checkpoints, timing.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from bench.config.sections import TrainingConfig
from bench.models.batches import Batch
from bench.models.decoding import NonFiniteLogits
from bench.models.encoded import lengths
from bench.models.language_model import LanguageModel
from bench.system.errors import BenchError
from bench.system.seeding import derive_seed, seed_torch
from bench.system.transfer import Arriving, on_device
from bench.training.captured_pass import CapturedPass, CudaRecorder
from bench.training.checkpoint import Checkpoints, Pace
from bench.training.data_order import batch_order
from bench.training.diagnostics import Diagnostics
from bench.training.job import NonFiniteLoss, TrainingJob
from bench.training.less_memory import checkpoint_gradients
from bench.training.optimiser import make_optimiser, skips_by_itself, tensors_of
from bench.training.phase_timer import PhaseTimer
from bench.training.reference_bugs import counted_tokens
from bench.training.rollouts import roll_out
from bench.training.sharded import (
    ShardedLayers,
    all_whole,
    as_many_passes,
    clip_gradients,
    collected_weights,
    load_trained,
)
from bench.training.state import TrainerState
from distillm import BatchObjective, Objective, Sampling, TokenSequence, token_losses
from distillm.fused import LossShapeError, Observer, check_gradient, check_shape, is_per_token
from distillm.sources import SourcedBatch

_BUSY_TOKENS = 4096  # of a forward pass; with more, a GPU computes no faster, and more is padding


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


def sequences_at_once(train: Sequence[TokenSequence], batch_size: int) -> int:
    """Sequences of a micro-batch that keeps a GPU busy: a batch, or an equal part of it."""
    tokens = batch_size * sum(lengths(train)) / len(train)
    return busy_part(tokens, batch_size)


def busy_part(tokens: float, batch_size: int) -> int:
    """The same from the tokens that a batch has on average."""
    return math.ceil(batch_size / max(1, round(tokens / _BUSY_TOKENS)))


@dataclass
class _Step:
    """One training step as its output source sees it (`distillm.interface.StepContext`)."""

    step: int
    batch: list[TokenSequence]
    rng: random.Random
    generate: Callable[[list[TokenSequence]], list[TokenSequence]]
    peek_batches: Callable[[int], list[list[TokenSequence]]]


@dataclass(frozen=True)
class _QueuedStep:
    """A step that was taken; what it measured may not be known yet."""

    step: int
    sourced: SourcedBatch
    batch: list[TokenSequence]
    texts: list[TokenSequence]
    names: list[str]
    values: Arriving
    known: dict[str, float]
    buffer_size: int
    diagnostics: Diagnostics | None


class Trainer:
    """One training, from the last checkpoint in `job.work` if there is one."""

    def __init__(self, job: TrainingJob) -> None:
        self.job, self.config, self.processes = job, job.config, job.processes
        self.total = total_steps(job.config, len(job.train))
        validations = min(self.config.validations, self.total)
        self.validate_at = {round(self.total * i / validations) for i in range(1, validations + 1)}
        self.batch_objective = job.objective if isinstance(job.objective, BatchObjective) else None
        self.on_cuda = job.student.device.type == "cuda"
        self.busy_with = sequences_at_once(job.train, job.config.batch_size)
        self.timer = PhaseTimer(job.student.device)
        self.sharded: dict[str, ShardedLayers] = {}  # by side, where one process does not hold all
        if self.processes.sharded:
            for side, model in (("student", job.student), ("teacher", job.teacher)):
                if model is not None:
                    _ = model.after_head  # looks at a pass of its own
                    self.sharded[side] = ShardedLayers(model.network, self.processes)
        trained = [p for p in job.student.network.parameters() if p.requires_grad]
        job.student.tell_of_graphs(job.note)
        self.student_pass = self.captured(job.student, trained)
        self.teacher_pass = self.captured(job.teacher, [])
        groups = _parameter_groups(job.student.network, self.config.weight_decay)
        self.optimiser = make_optimiser(groups, self.config, job.student.device, sharded=bool(self.sharded))
        self.checkpoints = Checkpoints(
            job.work, job.student.network, self.optimiser, job.output_source, job.objective, job.note
        )
        self.state = TrainerState(total_steps=self.total)
        self.failed = torch.zeros((), device=job.student.device)  # 1 after a step whose figures are not finite
        # Steps queued before the figures of one are looked at, so that the device never waits for the host. None where
        # the objective learns from each.
        self.steps_ahead = 1 if self.on_cuda and self.batch_objective is None else 0

    def fit(self, until: int | None = None) -> TrainerState:
        """Train the student. Afterwards it holds the weights that were best on the validation set.

        Args:
            until: stop after this step, which is one that is validated; a later call goes on to where it would be
                without the stop. None = to the end.

        Raises:
            NonFiniteLoss: the loss of a batch, its gradient, the student's logits or the validation loss is inf or nan.
            BenchError: an objective returns anything but a loss per token, or checkpoints cannot be written.
        """
        job = self.job
        self.restore()
        if self.state.step == 0 and not self.state.validations:
            self.validate(score=False)
        texts = self.plain_text_batches()
        pace = Pace(self.config.checkpoint_seconds)
        queued: list[_QueuedStep] = []
        end = self.total if until is None else until
        for step, dataset_batch in self.batches(end):
            queued.append(self.take(step, dataset_batch, next(texts, [])))  # no texts without an auxiliary loss
            validating = step in self.validate_at
            saving = step == end or self.is_due(pace, validating=validating)
            due = len(queued) - (0 if saving or validating else self.steps_ahead)
            figures = {taken.step: self.finish(taken) for taken in queued[:due]}
            queued = queued[due:]
            if validating:
                self.validate(score=True)
                if self.state.is_best(self.config.select_by):
                    with self.timer.phase("checkpoint"):
                        collected = self.collected()
                        if self.processes.leads:
                            self.checkpoints.save_best(self.state, collected)
            if saving:
                with pace.saving():
                    self.save()
            for finished, shown in figures.items():
                job.on_step(finished, self.total, shown)

        for captures in (self.student_pass, self.teacher_pass):
            if captures is not None:
                captures.forget()  # a later call of `fit` has other gradients
        self.optimiser.zero_grad(set_to_none=True)
        self.processes.wait()  # until the best weights are written
        if self.sharded:
            self.sharded["student"].undo()
        load_trained(job.student.network, self.checkpoints.best_path(self.state))
        self.timer.read()
        self.state.step_seconds = self.timer.steps
        job.student.graphs.forget()  # they hold buffers, and the teacher of a mixture
        return self.state

    def take(self, step: int, dataset_batch: list[TokenSequence], texts: list[TokenSequence]) -> _QueuedStep:
        """One step: batch, loss, gradient, update. On CUDA it is queued on the device when this returns."""
        job = self.job
        sourced = self.source_batch(step, dataset_batch)
        batch = self.begin_step(sourced.batch, step)
        rate = self.set_learning_rate(step)
        # what a step's diagnostics cost is paid once per point of the curve
        diagnostics = Diagnostics() if self.state.at_point(step) else None
        losses = {"loss": self.backward(job.objective, batch, 1.0, diagnostics)}
        if job.auxiliary_loss is not None:
            auxiliary = job.auxiliary_loss
            losses["plain_text_loss"] = self.backward(auxiliary.objective, texts, auxiliary.weight, None)
        if diagnostics is not None:
            diagnostics.add_up(self.processes)
        measured = self.update(losses)
        if "teacher" in self.sharded:
            self.sharded["teacher"].forget_passes()
        self.timer.end_step(sourced.decision)
        source = job.output_source
        known = {"learning_rate": rate, "phi": source.phi}
        return _QueuedStep(
            step,
            sourced,
            batch,
            texts,
            list(measured),
            Arriving(torch.stack(list(measured.values()))),
            known,
            source.buffer_size,
            diagnostics,
        )

    def finish(self, taken: _QueuedStep) -> dict[str, float]:
        """Look at the figures of a step that was taken, and add it to the curve; returns those to show.

        Raises:
            NonFiniteLoss: a loss or the gradient's norm is inf or nan; the weights are those before the step.
        """
        job, step = self.job, taken.step
        figures = dict(zip(taken.names, taken.values.read(), strict=True))
        bad = [name for name, value in figures.items() if not math.isfinite(value)]
        if bad:
            concerned = {"loss": taken.batch, "plain_text_loss": taken.texts}.get(bad[0], taken.batch + taken.texts)
            what = "the " + bad[0].replace("_", " ")
            raise NonFiniteLoss(job.label, step, what, figures, concerned, self.state)
        if self.batch_objective is not None:
            self.batch_objective.on_step_end(figures["loss"])
        self.state.step = step
        self.state.tokens_trained += sum(len(s.response) for s in taken.batch)
        means = {} if taken.diagnostics is None else taken.diagnostics.means()
        self.state.log(figures | taken.known | means, taken.sourced, taken.buffer_size, job.student.tokenizer.eos_id)
        if self.state.at_point(step):
            self.timer.read()  # marks would pile up
            job.watch(step, figures | taken.known | means)
        shown = {"loss": figures["loss"]}
        if job.output_source.rule.phi in ("constant", "adaptive"):
            shown["phi"] = taken.known["phi"]
        if job.output_source.buffer is not None:
            shown["buffer"] = taken.buffer_size
        return shown

    def is_due(self, pace: Pace, *, validating: bool) -> bool:
        """Whether to save now; by the leader's clock where it takes all processes to collect what is saved."""
        due = pace.is_due(validating=validating)
        return self.processes.tell(due) if self.sharded else due

    def whole(self, *sides: str) -> AbstractContextManager[None]:
        """Hold models whole that are shared out, for what processes do in different numbers."""
        return all_whole(self.sharded[side] for side in sides if side in self.sharded)

    def captured(self, model: LanguageModel | None, parameters: list[nn.Parameter]) -> CapturedPass | None:
        """What stands for a model's `hidden_states` in training; None where that is not asked for, or not on CUDA."""
        if model is None or not (self.on_cuda and self.config.cuda_graphs and self.processes.size == 1):
            return None
        name, note = model.name, self.job.note
        return CapturedPass(
            model.hidden_states, parameters, lambda text: note(f"{name}: {text}"), CudaRecorder(model.device)
        )

    def restore(self) -> None:
        """Go on from the last checkpoint, if there is one."""
        if not self.processes.leads:
            self.processes.wait()  # until the leader has dropped what is damaged
        self.state = self.checkpoints.load() or self.state
        if self.processes.leads:
            self.processes.wait()
        self.processes.check_same(self.state.step, "the step to go on from")  # none saves before all have read
        self.timer.seconds.update(self.state.seconds)
        self.set_modes()

    def set_modes(self) -> None:
        """Dropout and gradient checkpointing of the student as its steps have them, and a teacher without dropout."""
        dropout = self.batch_objective is None or self.batch_objective.dropout
        self.job.student.network.train(dropout)
        if self.config.gradient_checkpointing:
            checkpoint_gradients(self.job.student.network, dropout=dropout)
        if self.job.teacher is not None:
            self.job.teacher.network.eval()

    def batches(self, end: int) -> Iterator[tuple[int, list[TokenSequence]]]:
        """Steps that are left up to a last one, from 1, each with its batch of the data set."""
        order = batch_order(self.job.train, self.config.batch_size, self.job.seed)
        return enumerate(itertools.islice(order, self.state.step, max(self.state.step, end)), start=self.state.step + 1)

    def plain_text_batches(self) -> Iterator[list[TokenSequence]]:
        """Batches of the auxiliary loss for the steps that are left."""
        auxiliary = self.job.auxiliary_loss
        if auxiliary is None:
            return iter(())
        order = batch_order(auxiliary.sequences, auxiliary.batch_size, self.job.seed)
        return itertools.islice(order, self.state.step, None)

    def source_batch(self, step: int, dataset_batch: list[TokenSequence]) -> SourcedBatch:
        """The step's batch as the output source decides: the data set's, fresh outputs, or older ones."""
        calls = itertools.count()  # a round of roll-outs is sampled in several calls, each with a seed of its own

        def generate(batch: list[TokenSequence]) -> list[TokenSequence]:
            return self.generate(batch, step, next(calls))

        def peek_batches(count: int) -> list[list[TokenSequence]]:
            order = batch_order(self.job.train, self.config.batch_size, self.job.seed)
            return list(itertools.islice(order, step - 1, step - 1 + count))

        rng = random.Random(derive_seed(self.job.seed, "output source", step))
        return self.job.output_source.next(_Step(step, dataset_batch, rng, generate, peek_batches))

    def generate(self, batch: list[TokenSequence], step: int, call: int) -> list[TokenSequence]:
        """Responses of the present student to a batch's prompts."""
        job = self.job
        sampling = self.batch_objective.sampling if self.batch_objective is not None else Sampling()

        def sample(part: Sequence[TokenSequence]) -> list[TokenSequence | None]:
            try:
                return [
                    *roll_out(
                        job.student,
                        job.teacher,
                        list(part),
                        sampling,
                        job.max_response_length,
                        *(job.seed, "student-generated outputs", step, call),
                        step=step,
                        batch_size=job.validation.batch_size,
                        micro_batch_size=self.config.micro_batch_size,
                    )
                ]
            except NonFiniteLogits:
                return [None] * len(part)

        mixes = sampling.teacher_mix or sampling.log_probs
        with self.timer.phase("generation"), job.autocast(), self.whole("student", *(["teacher"] if mixes else [])):
            sampled = self.processes.spread(batch, sample)
        made = [s for s in sampled if s is not None]
        if len(made) < len(sampled):  # told to all processes: each ends
            what = "the distribution that responses are sampled from"
            raise NonFiniteLoss(job.label, step, what, {}, batch, self.state)
        self.state.tokens_generated += sum(len(s.response) for s in made)
        return made

    def begin_step(self, batch: list[TokenSequence], step: int) -> list[TokenSequence]:
        """Let the objective see the whole batch, and seed what is random in the forward pass."""
        if self.batch_objective is not None:
            batch = self.batch_objective.on_step_begin(batch, step, self.total)
        # processes draw their dropout apart; the leader draws as one that is alone
        seed_torch(self.job.seed, "dropout", step, *([self.processes.rank] if self.processes.rank else []))
        return batch

    def set_learning_rate(self, step: int) -> float:
        """Set the step's learning rate; returns it."""
        rate = learning_rate(self.config, step, self.total)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return rate

    def backward(
        self, objective: Objective, batch: list[TokenSequence], weight: float, diagnostics: Diagnostics | None
    ) -> Tensor:
        """Add the gradient of an objective's mean over a batch's response tokens; returns that mean, on the device.

        Each micro-batch adds its share of the whole batch's mean, so that micro-batches add up to it exactly; of
        several processes each takes some of them, and `update` adds up what they came to. On CUDA they are made of
        sequences of like length, so that little is padding.
        """
        micro = self.config.micro_batch_size or len(batch)
        if self.on_cuda and is_per_token(objective):
            batch = sorted(batch, key=lambda s: len(s.prompt) + len(s.response))
            micro = self.config.micro_batch_size or self.busy_with
        micro = min(micro, math.ceil(len(batch) / self.processes.size))
        counted = self.counted(batch)
        flags = counted if counted is not None else [[True] * len(s.response) for s in batch]
        total = max(1, sum(map(sum, flags)))
        mean = torch.zeros((), device=self.job.student.device)
        for start in as_many_passes(range(0, len(batch), micro), self.processes):
            if start is None and not self.sharded:
                continue  # else a pass that counts for nothing: the others' passes need this process's layers
            part = batch[:1] if start is None else batch[start : start + micro]
            with self.timer.phase("data"):
                tensors = self.job.student.batch(part)
                kept = [float(flag) for row in flags[start or 0 :][: len(part)] for flag in row]
                weights = on_device(np.array(kept, dtype=np.float32) / total, tensors.tokens.device)
            weights = weights if start is not None else torch.zeros_like(weights)
            observed = diagnostics is not None and start is not None
            observe = diagnostics.observer(tensors.tokens, part) if diagnostics is not None and observed else None
            share = self.weighted_loss(objective, tensors, part, weights, observe)
            with self.timer.phase("student"):
                torch.autograd.backward(weight * share)
                mean += share.detach()
        return mean

    def weighted_loss(
        self,
        objective: Objective,
        tensors: Batch,
        batch: list[TokenSequence],
        weights: Tensor,
        observe: Observer | None,
    ) -> Tensor:
        """The weighted sum of an objective's losses at a micro-batch's response tokens, a scalar with gradient.

        Output layers and an objective that is made of logits per token go together, chunk by chunk; one that wants all
        logits, or a model that does something unknown to its logits, has all of them formed.

        Args:
            objective: what each token costs.
            tensors, batch: the micro-batch.
            weights: (N,), of the tokens.
            observe: told the logits.
        """
        job = self.job
        teacher = job.teacher if objective.needs_teacher else None
        models = [job.student] if teacher is None else [job.student, teacher]
        if not is_per_token(objective) or any(model.after_head is None for model in models):
            return self.weighted_loss_of_logits(objective, tensors, batch, weights, observe)
        teacher_projection = None
        if teacher is not None:
            with self.timer.phase("teacher"), torch.no_grad():
                teacher_projection = teacher.project(tensors, self.teacher_pass)
        with self.timer.phase("student"), job.autocast():
            student_projection = job.student.project(tensors, self.student_pass)
            assert student_projection is not None
            try:
                total, _ = token_losses(
                    objective, student_projection, teacher_projection, tensors.tokens, batch, weights, observe
                )
            except LossShapeError as error:
                raise BenchError(f"{job.label}: {error}") from error
        return total

    def weighted_loss_of_logits(
        self,
        objective: Objective,
        tensors: Batch,
        batch: list[TokenSequence],
        weights: Tensor,
        observe: Observer | None,
    ) -> Tensor:
        """`weighted_loss` with all logits of the micro-batch at once."""
        job = self.job
        teacher_logits = None
        if objective.needs_teacher:
            assert job.teacher is not None
            with self.timer.phase("teacher"), torch.no_grad():
                teacher_logits = job.teacher.score(tensors)
        with self.timer.phase("student"):
            with job.autocast():
                student_logits = job.student.score(tensors)
            losses = objective(student_logits, teacher_logits, tensors.tokens, batch)
            try:
                check_shape(objective, losses, tensors.tokens)
                check_gradient(objective, losses)
            except LossShapeError as error:
                raise BenchError(f"{job.label}: {error}") from error
        if observe is not None:
            observe(slice(0, len(losses)), student_logits.detach(), teacher_logits)
        return (losses * weights).sum()

    def counted(self, batch: list[TokenSequence]) -> list[list[bool]] | None:
        """Which response tokens count, per sequence; None where all do."""
        rule, tokenizer = self.job.output_source.rule, self.job.student.tokenizer
        if rule.rounds or rule.paired:
            return None
        return counted_tokens(batch, self.job.fidelity, tokenizer.pad_id, tokenizer.eos_id)

    def update(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Clip the gradient and take the optimiser's step; returns the losses and the norm before clipping.

        After a loss or norm that is inf or nan no step changes the weights any more.
        """
        with self.timer.phase("optimiser"):
            losses = self.add_up(losses)
            parameters = list(self.job.student.network.parameters())
            measured = losses | {"gradient_norm": clip_gradients(parameters, self.config.max_grad_norm, self.processes)}
            finite = torch.stack(list(measured.values())).isfinite().all()
            self.failed = torch.maximum(self.failed, (~finite).float())
            if skips_by_itself(self.optimiser):
                # The fused kernel takes no step where this is 1: the host may look later, when the next step is queued.
                self.optimiser.found_inf = self.failed  # type: ignore[attr-defined]
                self.optimiser.step()
            elif not self.failed:
                self.optimiser.step()
            # elsewhere a weight that the next batch does not reach must have no gradient, or AdamW lets it decay
            self.optimiser.zero_grad(set_to_none=self.student_pass is None or not self.student_pass.adds_in_place)
        return measured

    def add_up(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch's losses and gradients from the processes' shares of them.

        Sums of float32 are rounded by their order, so that two processes equal one but for rounding; among each other
        they stay equal to the bit. A weight that no process has a gradient for keeps none.
        """
        if self.processes.size == 1:
            return losses
        # what is shared out was summed in the backward pass
        trained = [p for p in self.job.student.network.parameters() if p.requires_grad and not isinstance(p, DTensor)]
        reached = torch.tensor([p.grad is not None for p in trained], dtype=torch.int32)  # on the host: nobody waits
        self.processes.add_up([reached])
        for parameter, processes in zip(trained, reached.tolist(), strict=True):
            if processes and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        summed = torch.stack(list(losses.values()))
        self.processes.add_up([summed, *(p.grad for p in trained if p.grad is not None)])
        return dict(zip(losses, summed, strict=True))

    @torch.no_grad()
    def validate(self, *, score: bool) -> None:
        """Append the validation loss (cross-entropy, nats per response token) and, if wanted, the metric.

        The output source learns the loss: the adaptive ones set phi by it.
        """
        with self.timer.phase("validation"), self.whole("student"):
            row = self.validated(score)
        self.job.student.graphs.shrink()  # until the next validation there are steps, which need the memory
        self.state.validations.append(row)
        self.job.watch(self.state.step, {f"validation_{name}": value for name, value in row.items() if name != "step"})
        self.job.output_source.observe(row["loss"])

    def validated(self, score: bool) -> dict[str, float]:
        """The step's row of `TrainerState.validations`."""
        job, student, validation = self.job, self.job.student, self.job.validation
        if self.processes.size > 1:
            sums = [p.sum(dtype=torch.float64) for p in student.network.parameters() if p.requires_grad]
            self.processes.check_same(float(torch.stack(sums).sum()), "the student's weights")
        sequences, size = validation.sequences, validation.batch_size
        was_training = student.network.training
        student.network.eval()

        def batch_losses(starts: Sequence[int]) -> list[float]:
            with job.autocast():
                batches = (student.batch(sequences[start : start + size]) for start in starts)
                return [-float(student.log_probs(tensors).sum()) for tensors in batches]

        summed, counted = 0.0, sum(len(s.response) for s in sequences)
        for loss in self.processes.spread(range(0, len(sequences), size), batch_losses):
            summed += loss  # not by `sum`, which rounds otherwise from Python 3.12 on
        if not math.isfinite(summed):
            values = {"loss": summed / counted}
            what = "the validation loss"
            raise NonFiniteLoss(job.label, self.state.step, what, values, sequences, self.state)
        row: dict[str, float] = {"step": self.state.step, "loss": summed / counted}
        if score and self.config.select_by == "metric":
            # one seed for every validation: checkpoints are compared under the same draws
            seed = (job.seed, "validation")

            def sample(part: Sequence[TokenSequence]) -> list[tuple[int, ...]]:
                return student.sample(part, validation.decoding, *seed, batch_size=size)

            responses = self.processes.spread(sequences, sample)
            scored = validation.score([student.tokenizer.text(r) for r in responses])
            row["metric"] = self.processes.tell(scored)  # a metric that is not exact must not part them
        student.network.train(was_training)
        return row

    def save(self) -> None:
        """Write a checkpoint."""
        with self.timer.phase("checkpoint"):
            self.state.seconds = self.timer.read()
            going_on = self.state.step < self.total and (self.processes.leads or self.sharded)
            moments = tensors_of(self.optimiser, keep=self.processes.leads) if going_on else {}
            collected = self.collected() if going_on and self.state.step != self.state.best_step else None
            if self.processes.leads:
                self.checkpoints.save(self.state, moments, collected)

    def collected(self) -> dict[str, Tensor] | None:
        """The student's weights where they are shared out, on the leader."""
        return collected_weights(self.job.student.network, keep=self.processes.leads) if self.sharded else None


def _parameter_groups(network: PreTrainedModel, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices only, not on biases and normalisation weights."""
    trained = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
