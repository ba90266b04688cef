"""The gradient of a batch: micro-batches, both models' passes, the objective, and which tokens count.

What the objective costs at each response token is summed up with a weight, so that micro-batches and processes add up
to the mean over the whole batch exactly.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from bench.config.fidelity import Fidelity
from bench.models.batches import Batch
from bench.models.encoded import lengths
from bench.models.language_model import LanguageModel
from bench.system.errors import BenchError
from bench.system.transfer import on_device
from bench.training.captured_pass import CapturedPass, CudaRecorder
from bench.training.diagnostics import Diagnostics
from bench.training.job import TrainingJob
from bench.training.length import sequences_at_once
from bench.training.phase_timer import PhaseTimer
from bench.training.sharded import as_many_passes
from distillm import Objective, TokenSequence, token_losses
from distillm.fused import LossShapeError, Observer, check_gradient, check_shape, is_per_token


class BatchGradient:
    """Adds gradients of batches to those of a training's student.

    Args:
        job: of the training.
        timer: told what goes to data, teacher and student.
        sharded: whether layers are shared out among processes, so that all of them make as many passes.

    Attributes:
        on_cuda: whether batches are cut as a GPU wants them.
        student_pass, teacher_pass: what stands for each model's `hidden_states`; None where that is not asked for, or
            not on CUDA.
    """

    def __init__(self, job: TrainingJob, timer: PhaseTimer, *, sharded: bool) -> None:
        self.job, self.config, self.processes = job, job.config, job.processes
        self.timer, self.sharded = timer, sharded
        self.on_cuda = job.student.device.type == "cuda"
        tokens = job.config.batch_size * sum(lengths(job.train)) / len(job.train)
        self.busy_with = sequences_at_once(tokens, job.config.batch_size)
        trained = [p for p in job.student.network.parameters() if p.requires_grad]
        self.student_pass = self._captured(job.student, trained)
        self.teacher_pass = self._captured(job.teacher, [])

    def _captured(self, model: LanguageModel | None, parameters: list[nn.Parameter]) -> CapturedPass | None:
        if model is None or not (self.on_cuda and self.config.cuda_graphs and self.processes.size == 1):
            return None
        name, note = model.name, self.job.note
        return CapturedPass(
            model.hidden_states, parameters, lambda text: note(f"{name}: {text}"), CudaRecorder(model.device)
        )

    def backward(
        self, objective: Objective, batch: list[TokenSequence], weight: float, diagnostics: Diagnostics | None
    ) -> Tensor:
        """Add the gradient of an objective's mean over a batch's response tokens; returns that mean, on the device.

        Each micro-batch adds its share of the whole batch's mean, so that micro-batches add up to it exactly; of
        several processes each takes some of them, and `Optimiser.update` adds up what they came to. On CUDA they are
        made of sequences of like length, so that little is padding.

        Args:
            objective: what each token costs.
            batch: of the step.
            weight: of the gradient; the mean that is returned is without it.
            diagnostics: shown the logits; None where no point of the curve is due.

        Raises:
            BenchError: the objective returns anything but a loss per token.
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

        Raises:
            BenchError: the objective returns anything but a loss per token.
        """
        job, student = self.job, self.job.student
        teacher = job.teacher if objective.needs_teacher else None
        models = [student] if teacher is None else [student, teacher]
        fused = is_per_token(objective) and all(model.after_head is not None for model in models)
        teacher_projection, teacher_logits = None, None
        if teacher is not None:
            with self.timer.phase("teacher"), torch.no_grad():
                if fused:
                    teacher_projection = teacher.project(tensors, self.teacher_pass)
                else:
                    teacher_logits = teacher.score(tensors)
        try:
            with self.timer.phase("student"):
                if fused:
                    with job.autocast():
                        projection = student.project(tensors, self.student_pass)
                        assert projection is not None
                        total, _ = token_losses(
                            objective, projection, teacher_projection, tensors.tokens, batch, weights, observe
                        )
                    return total
                with job.autocast():
                    logits = student.score(tensors)
                losses = objective(logits, teacher_logits, tensors.tokens, batch)
                check_shape(objective, losses, tensors.tokens)
                check_gradient(objective, losses)
        except LossShapeError as error:
            raise BenchError(f"{job.label}: {error}") from error
        if observe is not None:
            observe(slice(0, len(losses)), logits.detach(), teacher_logits)
        return (losses * weights).sum()

    def counted(self, batch: list[TokenSequence]) -> list[list[bool]] | None:
        """Which response tokens count, per sequence; None where all do."""
        rule, tokenizer = self.job.output_source.rule, self.job.student.tokenizer
        if rule.rounds or rule.paired:
            return None
        return counted_tokens(batch, self.job.fidelity, tokenizer.pad_id, tokenizer.eos_id)

    @property
    def adds_in_place(self) -> bool:
        """Whether gradients are added where they lie, so that the optimiser has to leave them there."""
        return self.student_pass is not None and self.student_pass.adds_in_place

    def forget_graphs(self) -> None:
        """Free all captured passes: gradients may then be other tensors."""
        for captures in (self.student_pass, self.teacher_pass):
            if captures is not None:
                captures.forget()


def counted_tokens(batch: list[TokenSequence], fidelity: Fidelity, pad_id: int, eos_id: int) -> list[list[bool]] | None:
    """Which response tokens count, per sequence; None where all do, as is correct.

    The others are lost to defects of the authors' code, which `fidelity` repeats: they change which tokens of a
    student-generated output count. For the sources of the authors' own training loop. MiniLLM's roll-outs have a
    sampler and a loss of their own, which lose neither, and DistiLLM-2's pairs came later: neither is to be asked about
    here.
    """
    drop_eos = fidelity.sgo_eos and pad_id == eos_id
    if not (fidelity.sgo_first_token or drop_eos) or all(s.sampled_at_step is None for s in batch):
        return None
    return [
        [
            s.sampled_at_step is None or not ((fidelity.sgo_first_token and i == 0) or (drop_eos and token == pad_id))
            for i, token in enumerate(s.response)
        ]
        for s in batch
    ]
