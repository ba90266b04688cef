"""Every method with every output source: what must hold whatever is combined; the adaptive schedule in the loop."""

import dataclasses
import json
import random
from pathlib import Path

import pytest
import torch

import baselines
import distillm
from baselines.sft import CrossEntropy
from bench.training.trainer import Trainer
from distillm import SOURCES, BatchObjective, SourceOptions
from tests.drawn import Drawn
from tests.tiny import weights

ALL_METHODS = (*baselines.METHODS, *distillm.METHODS)
GOLDEN = Path(__file__).parents[2] / "golden" / "adaptive_schedule.json"
EAGER = {"capacity": 4, "initial_phi": 1.0, "probability": 1.0, "rollouts": 8, "inner_epochs": 2}


PAIRS = [(method, source) for method in ALL_METHODS for source in SOURCES]
CASES = [
    *(("llama", method, source) for method, source in PAIRS),
    # what an encoder-decoder changes is the same for every source: each method's own will do
    *(("t5", method, method.source) for method in ALL_METHODS),
]


@pytest.mark.parametrize(
    ("family", "method", "source"),
    [
        # half a second each, more than a hundred together
        pytest.param(f, m, s, id=f"{f}-{m.name}-{s}", marks=() if s == m.source else pytest.mark.slow)
        for f, m, s in CASES
    ],
)
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
