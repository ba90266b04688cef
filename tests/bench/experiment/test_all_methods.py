"""Every method with every output source: what must hold whatever is combined."""

import dataclasses
import json
import random
from pathlib import Path

import pytest
import torch

import baselines
import distillm
from baselines.minillm import MiniLLM
from baselines.sft import CrossEntropy
from bench.training.rollouts import TeacherMixture, roll_out
from bench.training.trainer import Trainer
from distillm import SOURCES, BatchObjective, Sampling, SourceOptions
from distillm.methods import SRKL
from tests.tiny import Recording, weights

ALL_METHODS = (*baselines.METHODS, *distillm.METHODS)
GOLDEN = Path(__file__).parents[2] / "golden" / "adaptive_schedule.json"
EAGER = {"capacity": 4, "initial_phi": 1.0, "probability": 1.0, "rollouts": 8, "inner_epochs": 2}


PAIRS = [(method, source) for method in ALL_METHODS for source in SOURCES]
CASES = [
    *(("llama", method, source) for method, source in PAIRS),
    # what an encoder-decoder changes is the same for every source: each method's own will do
    *(("t5", method, method.source) for method in ALL_METHODS),
]


@pytest.mark.parametrize(("family", "method", "source"), CASES, ids=[f"{f}-{m.name}-{s}" for f, m, s in CASES])
def test_micro_batches_add_up_to_the_batch(family, method, source, make_job):
    results = []
    for micro in (None, 1):
        options = SourceOptions(**EAGER)
        fields = {
            "steps": 2,
            "batch_size": 3,
            "micro_batch_size": micro,
            "work": f"work-{micro}",
            "learning_rate": 1e-4,
        }
        job = make_job(family, method.objective(), source, options, **fields)
        state = Trainer(job).fit()
        results.append((state.curve, weights(job.student)))
    (whole, expected), (parts, found) = results
    for a, b in zip(whole, parts, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-4, abs=1e-6)
        assert b["gradient_norm"] == pytest.approx(a["gradient_norm"], rel=1e-3, abs=1e-6)
        assert torch.tensor(list(a.values())).isfinite().all()
    # single weights with a gradient of next to nothing may move by Adam's whole step either way
    differences = torch.cat([(tensor - found[name]).abs().flatten() for name, tensor in expected.items()])
    assert differences.mean() < 1e-6


@pytest.mark.parametrize("method", ALL_METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_an_sgo_equal_to_the_reference_costs_what_the_reference_costs(family, method, make_job, make_model):
    if method.name in ("minillm", "distillm2"):
        pytest.skip("its objective treats sampled responses differently by design")
    job = make_job(family, method.objective())
    references = job.train[:4]
    sampled = [s.with_response(s.response, sampled_at_step=1) for s in references]
    losses = []
    for batch in (references, sampled):
        objective = method.objective()
        if isinstance(objective, BatchObjective):
            batch = objective.on_step_begin(batch, 1, 10)
        tensors = job.student.batch(batch)
        with torch.no_grad():
            student, teacher = (model.score(tensors) for model in (job.student, job.teacher))
        losses.append(objective(student, teacher, tensors.tokens, batch))
    assert torch.equal(*losses)
    assert len(losses[0]) == sum(len(s.response) for s in references)


class Drawn(random.Random):
    """The draw of a trace for `random()`, true random bits for drawing from the buffer."""

    def __init__(self, draw: float) -> None:
        super().__init__(0)
        self.draw = draw

    def random(self) -> float:
        return self.draw

    def getrandbits(self, k: int) -> int:
        return super().getrandbits(k)


@pytest.mark.parametrize("index", range(4))
def test_golden_schedule_traces_through_the_training_loop(index, make_job):
    """The authors' draws and validation losses in, their decisions out of a real training."""
    trace = json.loads(GOLDEN.read_text())[index]
    rows = trace["steps"]
    losses = [trace["initial_validation_loss"], *(r["validation_loss"] for r in rows if "validation_loss" in r)]
    options = SourceOptions(
        initial_phi=trace["initial_threshold"],
        phi_step=trace["threshold_step"],
        epsilon=trace["epsilon"],
        capacity=trace["capacity"],
        replay_ratio=trace["replay_ratio"],
    )
    fields = {"steps": trace["total_steps"], "validations": len(losses) - 1, "batch_size": trace["batch_size"]}
    job = make_job("llama", None, "adaptive-off-policy", options, learning_rate=1e-5, **fields)
    job = dataclasses.replace(job, max_response_length=2)
    # at each of the loop's own validations the trace's loss instead of the measured one
    observe, told = job.output_source.observe, []

    def scripted(loss):
        told.append(loss)
        observe(losses[len(told) - 1])

    job.output_source.observe = scripted
    decisions, phis, fills = [], [], []
    original = job.output_source.next

    def following(context):
        phis.append(job.output_source.phi)
        context.rng = Drawn(rows[context.step - 1]["draw"])
        sourced = original(context)
        decisions.append(sourced.decision)
        fills.append(job.output_source.buffer_size)
        return sourced

    job.output_source.next = following
    state = Trainer(job).fit()
    assert told == [row["loss"] for row in state.validations]
    assert decisions == [row["source"] for row in rows]
    assert fills == [row["buffer_size"] for row in rows]
    assert phis == pytest.approx([row["threshold"] for row in rows], abs=1e-9)


def algorithm_1(draws, losses, every, *, phi, phi_step, epsilon, capacity, batch_size, fresh_share):
    """Written down again from the paper: the decision and phi of each step, given all draws and validation losses."""
    trace, held, reference = [], 0, losses[0]
    for step, draw in enumerate(draws, start=1):
        if draw >= phi:
            decision = "dataset"
        elif held < capacity or draw < phi * fresh_share(step / len(draws)):
            decision = "generate"
            held = min(held + batch_size, capacity)
        else:
            decision = "replay"
        trace.append((decision, phi, held))
        if step % every == 0 and losses[step // every] >= reference + epsilon:
            phi, reference = min(phi + phi_step, 1.0), losses[step // every]
    return trace


@pytest.mark.parametrize(
    ("ratio", "fresh_share"),
    [("decreasing", lambda done: 1 - done), ("constant", lambda done: 0.5), ("increasing", lambda done: done)],
    ids=["decreasing", "constant", "increasing"],
)
def test_the_loops_own_validation_losses_drive_algorithm_1(ratio, fresh_share, make_job):
    """Measured losses and the run's own random draws; nothing of the loop is replaced."""
    rules = {"phi_step": 0.15, "epsilon": 0.05, "capacity": 6}
    options = SourceOptions(initial_phi=0.5, replay_ratio=ratio, **rules)
    # trained on what it says itself, and fast: the validation loss goes down, then up and down
    fields = {"steps": 30, "validations": 10, "learning_rate": 0.03, "schedule": "constant"}
    job = make_job("llama", CrossEntropy(), "adaptive-off-policy", options, **fields)
    job = dataclasses.replace(job, max_response_length=2)
    found, draws, original = [], [], job.output_source.next

    def noting(context):
        ahead = random.Random()
        ahead.setstate(context.rng.getstate())  # what the source is about to draw
        draws.append(ahead.random())
        phi, sourced = job.output_source.phi, original(context)
        found.append((sourced.decision, phi, job.output_source.buffer_size))
        return sourced

    job.output_source.next = noting
    losses = [row["loss"] for row in Trainer(job).fit().validations]
    assert found == algorithm_1(draws, losses, 3, phi=0.5, batch_size=2, fresh_share=fresh_share, **rules)
    # the losses rose more than once, and not always, so that every part of the rule was needed
    assert {decision for decision, *_ in found} == {"dataset", "generate", "replay"}
    assert 3 <= len({phi for _, phi, _ in found}) <= 8
    assert len(set(draws)) == 30


# --- roll-outs


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "t5"])
def test_the_mixture_is_that_of_both_models_at_every_token(family, make_job, monkeypatch):
    """With a cache and padded prompts of unequal length, against one full forward pass of each model."""
    job = make_job(family)
    batch = job.train[:4]
    seen = []
    call = TeacherMixture.__call__

    def recording(self, input_ids, scores):
        seen.append(call(self, input_ids, scores))
        return seen[-1]

    monkeypatch.setattr(TeacherMixture, "__call__", recording)
    made = roll_out(job.student, job.teacher, batch, Sampling(0.3, log_probs=True), 6, 1, step=7)
    tensors = job.student.batch(made)
    job.student.network.eval()
    with torch.no_grad():
        q, p = (model.score(tensors).float().log_softmax(-1) for model in (job.student, job.teacher))
    expected = (0.7 * q.exp() + 0.3 * p.exp()).log()
    start = 0
    for row, sequence in enumerate(made):
        for position in range(len(sequence.response)):
            torch.testing.assert_close(seen[position][row], expected[start + position], rtol=1e-3, atol=1e-4)
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


# --- what is measured


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
        often = 2.0 * torch.nn.functional.one_hot(
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
