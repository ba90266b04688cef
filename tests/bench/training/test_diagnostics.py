"""What is measured on a batch beside its loss, against the models themselves."""

import dataclasses

import pytest
import torch

from bench.training.trainer import Trainer
from distillm.methods import SRKL
from tests.tiny import Recording


def test_diagnostics_are_those_of_the_models(make_job):
    job = make_job("llama", None, "on-policy", steps=1)
    before = make_job("llama").student
    before.network.eval()
    kept = {}
    objective = job.objective

    class Keeping:
        needs_teacher = True

        def __call__(self, student_logits, teacher_logits, tokens, batch):
            kept.update(batch=batch)
            return objective(student_logits, teacher_logits, tokens, batch)

    row = Trainer(dataclasses.replace(job, objective=Keeping())).fit().curve[0]
    tensors = before.batch(kept["batch"])
    with torch.no_grad():
        log_q, log_p = (model.score(tensors).log_softmax(-1) for model in (before, job.teacher))
    assert row["student_entropy"] == pytest.approx(-(log_q.exp() * log_q).sum(-1).mean().item(), rel=1e-4)
    chosen = log_p.gather(-1, tensors.tokens[:, None])
    assert row["teacher_loss_on_sgo"] == pytest.approx(-chosen.mean().item(), rel=1e-4)


@pytest.mark.parametrize("micro", [None, 3])
def test_diagnostics_of_a_batch_of_references_and_sgos_are_those_of_the_sgos(micro, make_job):
    """DistiLLM-2's batches hold both; a student that often says EOS makes some responses end and others not."""
    job = make_job("llama", Recording(SRKL()), "contrastive", steps=1, batch_size=4, micro_batch_size=micro)
    before = make_job("llama").student
    before.network.eval()
    for model in (job.student, before):
        often = 3.5 * torch.nn.functional.one_hot(
            torch.tensor(job.student.tokenizer.eos_id), len(job.student.tokenizer.backend)
        )
        model.head.register_forward_hook(lambda module, inputs, logits, often=often: logits + often)
    row = Trainer(job).fit().curve[0]
    batch = [s for part in job.objective.batches for s in part]
    sampled = [s for s in batch if s.sampled_at_step is not None]
    assert (len(batch), len(sampled)) == (8, 4)

    tensors = before.batch(sampled)
    with torch.no_grad():
        log_p = job.teacher.score(tensors).log_softmax(-1)
    assert row["teacher_loss_on_sgo"] == pytest.approx(
        -log_p.gather(-1, tensors.tokens[:, None]).mean().item(), rel=1e-4
    )
    tensors = before.batch(batch)
    with torch.no_grad():
        log_q = before.score(tensors).log_softmax(-1)
    assert row["student_entropy"] == pytest.approx(-(log_q.exp() * log_q).sum(-1).mean().item(), rel=1e-4)

    lengths = [len(s.response) for s in sampled]
    ended = [s.response[-1] == job.student.tokenizer.eos_id for s in sampled]
    assert row["sgo_length"] == sum(lengths) / 4
    assert row["sgo_ended"] == sum(ended) / 4
    assert 0 < row["sgo_ended"] < 1
    assert row["sgo_ended"] != 0.5  # so that the share of the others is another number
    assert len(set(lengths)) > 1
