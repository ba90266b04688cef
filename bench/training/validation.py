"""A validation: the loss on the references and, where checkpoints are chosen by it, the metric of responses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from bench.training.job import NonFiniteLoss, TrainingJob
from bench.training.state import TrainerState
from distillm import TokenSequence


def validated(job: TrainingJob, state: TrainerState, *, score: bool) -> dict[str, float]:
    """Validate the student as it is now; returns a row of `TrainerState.validations`.

    Cross-entropy is in nats per response token. Several processes share the sequences, and each returns the same row.

    Args:
        job: of the training.
        state: its step is named in the row.
        score: whether responses are sampled, too, where the training selects by the metric.

    Raises:
        NonFiniteLoss: the loss is inf or nan.
        BenchError: processes hold different weights.
    """
    student, validation, processes = job.student, job.validation, job.processes
    if processes.size > 1:
        sums = [p.sum(dtype=torch.float64) for p in student.network.parameters() if p.requires_grad]
        processes.check_same(float(torch.stack(sums).sum()), "the student's weights")
    sequences, size = validation.sequences, validation.batch_size
    was_training = student.network.training
    student.network.eval()

    def batch_losses(starts: Sequence[int]) -> list[float]:
        with job.autocast():
            batches = (student.batch(sequences[start : start + size]) for start in starts)
            return [-float(student.log_probs(tensors).sum()) for tensors in batches]

    summed, counted = 0.0, sum(len(s.response) for s in sequences)
    for loss in processes.spread(range(0, len(sequences), size), batch_losses):
        summed += loss  # not by `sum`, which rounds otherwise from Python 3.12 on
    if not math.isfinite(summed):
        values = {"loss": summed / counted}
        raise NonFiniteLoss(job.label, state.step, "the validation loss", values, sequences, state)
    row: dict[str, float] = {"step": state.step, "loss": summed / counted}
    if score and job.config.select_by == "metric":
        # one seed for every validation: checkpoints are compared under the same draws
        seed = (job.seed, "validation")

        def sample(part: Sequence[TokenSequence]) -> list[tuple[int, ...]]:
            return student.sample(part, validation.decoding, *seed, batch_size=size)

        responses = processes.spread(sequences, sample)
        scored = validation.score([student.tokenizer.text(r) for r in responses])
        row["metric"] = processes.tell(scored)  # a metric that is not exact must not part them
    student.network.train(was_training)
    return row
