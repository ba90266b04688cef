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

import torch
from torch import Tensor

from bench.models.decoding import NonFiniteLogits
from bench.system.seeding import derive_seed, seed_torch
from bench.system.transfer import Arriving
from bench.training.checkpoint import Checkpoints, Pace
from bench.training.data_order import batch_order
from bench.training.diagnostics import Diagnostics
from bench.training.gradients import BatchGradient
from bench.training.job import NonFiniteLoss, TrainingJob
from bench.training.length import learning_rate, total_steps, validated_steps
from bench.training.less_memory import checkpoint_gradients
from bench.training.optimiser import Optimiser
from bench.training.phase_timer import PhaseTimer
from bench.training.rollouts import roll_out
from bench.training.sharded import ShardedLayers, all_whole, collected_weights, load_trained
from bench.training.state import TrainerState
from bench.training.validation import validated
from distillm import BatchObjective, Sampling, TokenSequence
from distillm.sources import SourcedBatch


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
        self.validate_at = validated_steps(job.config, self.total)
        self.batch_objective = job.objective if isinstance(job.objective, BatchObjective) else None
        self.timer = PhaseTimer(job.student.device)
        self.sharded: dict[str, ShardedLayers] = {}  # by side, where one process does not hold all
        if self.processes.sharded:
            for side, model in (("student", job.student), ("teacher", job.teacher)):
                if model is not None:
                    _ = model.after_head  # looks at a pass of its own
                    self.sharded[side] = ShardedLayers(model.network, self.processes)
        job.student.tell_of_graphs(job.note)
        self.gradient = BatchGradient(job, self.timer, sharded=bool(self.sharded))
        self.optimiser = Optimiser(job, sharded=bool(self.sharded))
        self.checkpoints = Checkpoints(
            job.work, job.student.network, self.optimiser, job.output_source, job.objective, job.note
        )
        self.state = TrainerState(total_steps=self.total)
        # Steps queued before the figures of one are looked at, so that the device never waits for the host. None where
        # the objective learns from each.
        self.steps_ahead = 1 if job.student.device.type == "cuda" and self.batch_objective is None else 0

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

        self.gradient.forget_graphs()  # a later call of `fit` has other gradients
        self.optimiser.adamw.zero_grad(set_to_none=True)
        self.processes.wait()  # until the best weights are written
        if self.sharded:
            self.sharded["student"].undo()
        load_trained(job.student.network, self.checkpoints.best_path(self.state))
        self.timer.read()
        self.state.step_seconds = self.timer.steps
        job.student.graphs.forget()  # they hold buffers, and the teacher of a mixture
        return self.state

    def batches(self, end: int) -> Iterator[tuple[int, list[TokenSequence]]]:
        """Steps that are left up to a last one, from 1, each with its batch of the data set."""
        done = self.state.step
        order = batch_order(self.job.train, self.config.batch_size, self.job.seed, done)
        return enumerate(itertools.islice(order, max(0, end - done)), start=done + 1)

    def plain_text_batches(self) -> Iterator[list[TokenSequence]]:
        """Batches of the auxiliary loss for the steps that are left."""
        auxiliary = self.job.auxiliary_loss
        if auxiliary is None:
            return iter(())
        return batch_order(auxiliary.sequences, auxiliary.batch_size, self.job.seed, self.state.step)

    def take(self, step: int, dataset_batch: list[TokenSequence], texts: list[TokenSequence]) -> _QueuedStep:
        """One step: batch, loss, gradient, update. On CUDA it is queued on the device when this returns."""
        job = self.job
        sourced = self.source_batch(step, dataset_batch)
        batch = self.begin_step(sourced.batch, step)
        # what a step's diagnostics cost is paid once per point of the curve
        diagnostics = Diagnostics() if self.state.at_point(step) else None
        losses = {"loss": self.gradient.backward(job.objective, batch, 1.0, diagnostics)}
        if job.auxiliary_loss is not None:
            auxiliary = job.auxiliary_loss
            losses["plain_text_loss"] = self.gradient.backward(auxiliary.objective, texts, auxiliary.weight, None)
        if diagnostics is not None:
            diagnostics.add_up(self.processes)
        rate = learning_rate(self.config, step, self.total)
        self.optimiser.set_learning_rate(rate)
        with self.timer.phase("optimiser"):
            measured = self.optimiser.update(losses, keep_gradients=self.gradient.adds_in_place)
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

    def source_batch(self, step: int, dataset_batch: list[TokenSequence]) -> SourcedBatch:
        """The step's batch as the output source decides: the data set's, fresh outputs, or older ones."""
        calls = itertools.count()  # a round of roll-outs is sampled in several calls, each with a seed of its own

        def generate(batch: list[TokenSequence]) -> list[TokenSequence]:
            return self.generate(batch, step, next(calls))

        def peek_batches(count: int) -> list[list[TokenSequence]]:
            with self.timer.phase("data"):
                order = batch_order(self.job.train, self.config.batch_size, self.job.seed, step - 1)
                return list(itertools.islice(order, count))

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

    @torch.no_grad()
    def validate(self, *, score: bool) -> None:
        """Append the validation loss (cross-entropy, nats per response token) and, if wanted, the metric.

        The output source learns the loss: the adaptive ones set phi by it.
        """
        with self.timer.phase("validation"), self.whole("student"):
            row = validated(self.job, self.state, score=score)
        self.job.student.graphs.shrink()  # until the next validation there are steps, which need the memory
        self.state.validations.append(row)
        self.job.watch(self.state.step, {f"validation_{name}": value for name, value in row.items() if name != "step"})
        self.job.output_source.observe(row["loss"])

    def whole(self, *sides: str) -> AbstractContextManager[None]:
        """Hold models whole that are shared out, for what processes do in different numbers."""
        return all_whole(self.sharded[side] for side in sides if side in self.sharded)

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

    def is_due(self, pace: Pace, *, validating: bool) -> bool:
        """Whether to save now; by the leader's clock where it takes all processes to collect what is saved."""
        due = pace.is_due(validating=validating)
        return self.processes.tell(due) if self.sharded else due

    def save(self) -> None:
        """Write a checkpoint."""
        with self.timer.phase("checkpoint"):
            self.state.seconds = self.timer.read()
            going_on = self.state.step < self.total and (self.processes.leads or self.sharded)
            moments = self.optimiser.tensors(keep=self.processes.leads) if going_on else {}
            collected = self.collected() if going_on and self.state.step != self.state.best_step else None
            if self.processes.leads:
                self.checkpoints.save(self.state, moments, collected)

    def collected(self) -> dict[str, Tensor] | None:
        """The student's weights where they are shared out, on the leader."""
        return collected_weights(self.job.student.network, keep=self.processes.leads) if self.sharded else None
