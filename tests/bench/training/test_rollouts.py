"""Roll-outs: what they are sampled from, what they carry, and the rounds they are trained on in."""

import dataclasses

import pytest
import torch

from baselines.minillm import MiniLLM
from baselines.sft import CrossEntropy
from bench.models import decoding
from bench.system.seeding import uniform_numbers
from bench.training.rollouts import roll_out
from bench.training.trainer import Trainer
from distillm import Sampling, SourceOptions
from tests.tiny import Recording


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "t5"])
def test_the_mixture_is_that_of_both_models_at_every_token(family, make_job, monkeypatch):
    """With a cache and padded prompts of unequal length, against one full forward pass of each model."""
    job = make_job(family)
    batch = job.train[:4]
    seen = {}
    draw = decoding.draw

    def recording(logits, uniform):
        rows = [row.item() for row in uniform[:, 0]]  # a row's random numbers name it, wherever it stands
        seen.update(zip(rows, logits.log_softmax(-1), strict=True))
        return draw(logits, uniform)

    monkeypatch.setattr(decoding, "draw", recording)
    made = roll_out(job.student, job.teacher, batch, Sampling(0.3, log_probs=True), 6, 1, step=7)
    numbers = uniform_numbers(6, [(1, s.id) for s in batch])
    tensors = job.student.batch(made)
    job.student.network.eval()
    with torch.no_grad():
        q, p = (model.score(tensors).float().log_softmax(-1) for model in (job.student, job.teacher))
    expected = (0.7 * q.exp() + 0.3 * p.exp()).log()
    start = 0
    for row, sequence in enumerate(made):
        for position in range(len(sequence.response)):
            sampled_from = seen[numbers[row, position].item()]
            torch.testing.assert_close(sampled_from, expected[start + position], rtol=1e-3, atol=1e-4)
        length = len(sequence.response)
        chosen = torch.tensor(sequence.response)
        for name, table in (("student", q), ("teacher", p)):
            values = table[start : start + length].gather(1, chosen[:, None]).flatten()
            assert sequence.token_values[name] == pytest.approx(values.tolist(), abs=1e-4)
        start += length
        assert sequence.sampled_at_step == 7


def test_rounds_of_roll_outs(make_job):
    options = SourceOptions(rollouts=6, inner_epochs=2)
    job = make_job("llama", None, "roll-outs", options, steps=8)
    state = Trainer(job).fit()
    # 3 batches of 2, each trained on twice: a new round after 6 steps
    assert [row["share_generate"] for row in state.curve] == [1, 0, 0, 0, 0, 0, 1, 0]
    assert [row["sgo_age"] for row in state.curve] == [0, 1, 2, 3, 4, 5, 0, 1]


def test_a_round_answers_the_prompts_of_the_steps_it_replaces(make_job):
    options = SourceOptions(rollouts=4, inner_epochs=1)
    seen = {}
    for source in ("dataset", "roll-outs"):
        job = make_job("llama", Recording(CrossEntropy()), source, options, steps=6, work=source)
        Trainer(job).fit()
        seen[source] = [{s.id for s in batch} for batch in job.objective.batches]
    for first in (0, 2, 4):  # shuffled within a round, so that batches of one round are compared together
        rounds = [set.union(*seen[source][first : first + 2]) for source in ("dataset", "roll-outs")]
        assert len(rounds[0]) == 4
        assert rounds[0] == rounds[1]


@pytest.mark.parametrize(("mix", "least", "most"), [(0.95, 0.8, 1.0), (0.0, 0.0, 0.2)])
def test_minillms_mixture_is_sampled_from_in_training(mix, least, most, make_job):
    options = SourceOptions(rollouts=8, inner_epochs=1)
    job = make_job("llama", MiniLLM(teacher_mix=mix), "roll-outs", options, steps=1)
    # a teacher that always says 9: what it has in the mixture shows in the roll-outs
    always = 50.0 * torch.nn.functional.one_hot(torch.tensor(9), len(job.student.tokenizer.backend))
    job.teacher.head.register_forward_hook(lambda module, inputs, logits: logits + always)
    Trainer(job).fit()
    tokens = [token for s in job.output_source.round for token in s.response]
    assert len(job.output_source.round) == 8
    assert least <= tokens.count(9) / len(tokens) <= most


def test_replayed_roll_outs_keep_what_minillms_policy_loss_needs(make_job):
    losses = {}
    for policy in (True, False):
        options = SourceOptions(probability=1.0, capacity=2, replay_ratio="increasing")
        job = make_job("llama", MiniLLM(policy_gradient=policy), "off-policy", options, steps=3, work=f"work-{policy}")
        # a step without effect: both students stay alike, and so do their responses
        state = Trainer(dataclasses.replace(job, config=job.config.model_copy(update={"learning_rate": 1e-30}))).fit()
        replayed = [row for row in state.curve if row["share_replay"]]
        assert replayed
        losses[policy] = [row["gradient_norm"] for row in replayed]
    assert all(with_it != without for with_it, without in zip(losses[True], losses[False], strict=True))
