"""Every method with every output source: what must hold whatever is combined."""

import json
import random
from pathlib import Path

import pytest
import torch

import baselines
import distillm
from bench.encoding import collate
from bench.models import decoder_start, response_logits
from bench.rollouts import TeacherMixture, roll_out
from bench.training import train
from distillm import SOURCES, BatchObjective, Sampling, SourceOptions

ALL_METHODS = (*baselines.METHODS, *distillm.METHODS)
GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden" / "adaptive_schedule.json"
EAGER = {"capacity": 4, "initial_phi": 1.0, "probability": 1.0, "rollouts": 8, "inner_epochs": 2}


def weights(model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


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
        progress = train(job)
        results.append((progress.curve, weights(job.student)))
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
    sampled = [s.with_response(s.response, made_at=1) for s in references]
    losses = []
    for batch in (references, sampled):
        objective = method.objective()
        if isinstance(objective, BatchObjective):
            batch = objective.begin(batch, 1, 10)
        tensors = collate(batch, job.codec, decoder_start(job.student), torch.device("cpu"))
        with torch.no_grad():
            student, teacher = (response_logits(m, tensors) for m in (job.student, job.teacher))
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


@pytest.mark.skipif(not GOLDEN.is_file(), reason="the golden traces (../shared/golden beside the checkout) are absent")
@pytest.mark.parametrize("index", range(4))
def test_golden_schedule_traces_through_the_training_loop(index, make_job):
    """The authors' draws and validation losses in, their decisions out of a real training."""
    trace = json.loads(GOLDEN.read_text())[index]
    rows = trace["steps"][:40]
    losses = iter([trace["initial_validation_loss"], *(r["validation_loss"] for r in rows if "validation_loss" in r)])
    validated = [row["step"] for row in rows if "validation_loss" in row]
    options = SourceOptions(
        initial_phi=trace["initial_threshold"],
        phi_step=trace["threshold_step"],
        epsilon=trace["epsilon"],
        capacity=trace["capacity"],
        replay_ratio=trace["replay_ratio"],
    )
    size = trace["batch_size"]
    job = make_job("llama", None, "adaptive-off-policy", options, steps=len(rows), batch_size=size, learning_rate=1e-5)
    job.source.schedule.total_steps = trace["total_steps"]
    # the trace's losses instead of measured ones, at the trace's steps
    observe = job.source.observe
    job.source.observe = lambda loss: None
    observe(next(losses))
    decisions, phis, fills = [], [], []
    original = job.source.next

    def following(context):
        phis.append(job.source.phi)
        context.rng = Drawn(rows[context.step - 1]["draw"])
        sourced = original(context)
        decisions.append(sourced.decision)
        fills.append(job.source.buffer_size)
        if context.step in validated:
            observe(next(losses))
        return sourced

    job.source.next = following
    train(job)
    assert decisions == [row["source"] for row in rows]
    assert fills == [row["buffer_size"] for row in rows]
    assert phis == pytest.approx([row["threshold"] for row in rows], abs=1e-9)


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
    made = roll_out(job.student, job.teacher, batch, job.codec, 6, Sampling(0.3, log_probs=True), 7, 1)
    tensors = collate(made, job.codec, decoder_start(job.student), torch.device("cpu"))
    with torch.no_grad():
        q, p = (response_logits(m, tensors).float().log_softmax(-1) for m in (job.student.eval(), job.teacher))
    expected = (0.7 * q.exp() + 0.3 * p.exp()).log()
    start = 0
    for row, sequence in enumerate(made):
        for position in range(len(sequence.response)):
            torch.testing.assert_close(seen[position][row], expected[start + position], rtol=1e-3, atol=1e-4)
        length = len(sequence.response)
        chosen = torch.tensor(sequence.response)
        for name, table in (("student", q), ("teacher", p)):
            values = table[start : start + length].gather(1, chosen[:, None]).flatten()
            assert sequence.annotations[name] == pytest.approx(values.tolist(), abs=1e-4)
        start += length
        assert sequence.made_at == 7


def test_rounds_of_roll_outs(make_job):
    options = SourceOptions(rollouts=6, inner_epochs=2)
    job = make_job("llama", None, "roll-outs", options, steps=8)
    progress = train(job)
    # 3 batches of 2, each trained on twice: a new round after 6 steps
    assert [row["share_generate"] for row in progress.curve] == [1, 0, 0, 0, 0, 0, 1, 0]
    assert [row["sgo_age"] for row in progress.curve] == [0, 1, 2, 3, 4, 5, 0, 1]


# --- what is measured


def test_signals_are_those_of_the_models(make_job):
    job = make_job("llama", None, "on-policy", steps=1)
    before = make_job("llama").student.eval()
    kept = {}
    objective = job.objective

    class Keeping:
        needs_teacher = True

        def __call__(self, student_logits, teacher_logits, tokens, batch):
            kept.update(batch=batch)
            return objective(student_logits, teacher_logits, tokens, batch)

    job.objective = Keeping()
    row = train(job).curve[0]
    tensors = collate(kept["batch"], job.codec, None, torch.device("cpu"))
    with torch.no_grad():
        log_q, log_p = (response_logits(m, tensors).log_softmax(-1) for m in (before, job.teacher))
    assert row["student_entropy"] == pytest.approx(-(log_q.exp() * log_q).sum(-1).mean().item(), rel=1e-4)
    chosen = log_p.gather(-1, tensors.tokens[:, None])
    assert row["teacher_loss_on_sgo"] == pytest.approx(-chosen.mean().item(), rel=1e-4)
