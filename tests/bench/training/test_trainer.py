"""The training loop on real tiny models: what is minimised, every method and source, and what is kept."""

import json
import time
from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file

import baselines
from baselines.kld import KLD
from baselines.minillm import MiniLLM
from baselines.sft import CrossEntropy
from baselines.taid import TAID
from bench.config.sections import TrainingConfig
from bench.system.files import read_json
from bench.training.job import NonFiniteLoss
from bench.training.length import learning_rate, sequences_at_once, total_steps
from bench.training.trainer import Trainer
from distillm import SOURCES, BatchObjective, SourceOptions, divergences, fused
from distillm.methods import METHODS, SRKL
from tests.tiny import Recording, same, weights

ALL_METHODS = (*baselines.METHODS, *METHODS)
BY_NAME = {method.name: method for method in ALL_METHODS}
KINDS = {"causal": "llama", "seq2seq": "t5"}


# --- what is minimised


@pytest.mark.parametrize("family", KINDS.values())
@pytest.mark.parametrize("objective", [CrossEntropy(), KLD(), SRKL()], ids=["sft", "kld", "srkl"])
def test_micro_batches_add_up_to_the_batch(family, objective, make_job):
    results = []
    for micro in (None, 1, 3):
        job = make_job(family, objective, steps=1, batch_size=4, micro_batch_size=micro, work=f"work-{micro}")
        state, gradients = trained_with_gradients(job)
        results.append((state.curve[0], gradients, weights(job.student)))
    (whole, gradients, expected), *others = results
    for curve, found_gradients, found in others:
        assert curve["loss"] == pytest.approx(whole["loss"], rel=1e-5)
        assert curve["gradient_norm"] == pytest.approx(whole["gradient_norm"], rel=1e-4)
        assert gradients.keys() == found_gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(found_gradients[name], gradient, rtol=1e-4, atol=1e-7)
        for name, tensor in expected.items():
            # Adam divides by a gradient's size: where it is next to nothing, rounding shows, up to 1 % of the step
            torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", KINDS.values())
def test_sequences_of_like_length_together_add_up_to_the_batch(family, make_job):
    job = make_job(family, SRKL(), batch_size=8, micro_batch_size=2)
    trainer = Trainer(job)
    results, paddings, parts = [], [], []
    assert job.student.after_head  # its probe is no part of the batch
    collate = job.student.batch
    job.student.batch = lambda part: parts.append(part) or collate(part)
    for trainer.gradient.on_cuda in (False, True):
        job.student.network.zero_grad()
        results.append(trainer.gradient.backward(job.objective, job.train, 1.0, None))
        paddings.append(sum(len(part) * max(map(length, part)) for part in parts))
        results += [p.grad for p in job.student.network.parameters()]
        assert sorted(s.id for part in parts for s in part) == sorted(s.id for s in job.train)
        parts.clear()
    torch.testing.assert_close(results[: len(results) // 2], results[len(results) // 2 :], rtol=1e-4, atol=1e-6)
    assert paddings[1] < paddings[0]


def test_an_objective_of_whole_logits_gets_the_batch_as_it_is_on_a_gpu_too(make_job, monkeypatch):
    monkeypatch.setattr("bench.training.length._BUSY_TOKENS", 10)
    job = make_job("llama", Recording(SRKL()), batch_size=8)
    trainer = Trainer(job)
    trainer.gradient.on_cuda = True
    trainer.gradient.backward(job.objective, job.train, 1.0, None)
    assert job.objective.batches == [job.train]


def length(sequence):
    return len(sequence.prompt) + len(sequence.response)


def test_micro_batches_on_a_gpu_are_equal_parts_of_a_batch():
    mean = 127.5  # tokens of a sequence
    assert [sequences_at_once(mean * size, size) for size in (1, 8, 32, 64, 100, 256)] == [1, 8, 32, 32, 34, 32]


def trained_with_gradients(job):
    """The state after one step, and the gradients that the step was taken by, before clipping."""
    trainer, gradients = Trainer(job), {}
    update = trainer.optimiser.update

    def noting(losses, **options):
        gradients.update({name: p.grad.clone() for name, p in job.student.network.named_parameters()})
        return update(losses, **options)

    trainer.optimiser.update = noting
    return trainer.fit(), gradients


@pytest.mark.parametrize("family", KINDS.values())
@pytest.mark.parametrize("name", ["sft", "gkd", "distillm", "akl", "distillm2"])
def test_a_step_in_chunks_is_the_step_of_whole_logits(name, family, make_job, monkeypatch):
    """An objective that does not say that it is made of logits per token is given all of them: the wrapped one."""
    method = BY_NAME[name]
    monkeypatch.setitem(fused.CHUNK, "cpu", 6)
    monkeypatch.setitem(divergences.ENTRIES, "cpu", 4 * 300)
    options = SourceOptions(**({"rollouts": 4} | dict(method.source_options)))
    steps = []
    for work, objective in (("chunks", method.objective()), ("whole", Recording(method.objective()))):
        job = make_job(family, objective, method.source, options, steps=1, batch_size=4, micro_batch_size=3, work=work)
        steps.append(trained_with_gradients(job))
    (chunks, found), (whole, expected) = steps
    assert chunks.curve[0] == pytest.approx(whole.curve[0], rel=1e-4)
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("family", KINDS.values())
def test_the_loss_is_the_mean_over_the_response_tokens_of_the_batch(family, make_job):
    job = make_job(family, Recording(CrossEntropy()), steps=1, batch_size=4, micro_batch_size=2)
    first = make_job(family).student
    state = Trainer(job).fit()
    batch = [s for part in job.objective.batches for s in part]
    losses = []
    for sequence in batch:  # each alone: no padding, no batch to take a mean over
        one = first.batch([sequence])
        losses += (-first.score(one).log_softmax(1).gather(1, one.tokens[:, None])).flatten().tolist()
    assert len(batch) == 4
    assert len(losses) == sum(len(s.response) for s in batch) == state.tokens_trained
    assert state.curve[0]["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.parametrize("family", KINDS.values())
def test_training_lowers_the_loss(family, make_job):
    state = Trainer(make_job(family, CrossEntropy(), steps=30, learning_rate=0.03)).fit()
    first, last = state.curve[0], state.curve[-1]
    assert last["loss"] < 0.9 * first["loss"]


# --- every method, every source


@pytest.mark.parametrize("family", KINDS.values())
@pytest.mark.parametrize("method", ALL_METHODS, ids=lambda method: method.name)
def test_every_method_trains(method, family, make_job):
    options = SourceOptions(**({"capacity": 4, "initial_phi": 0.5, "rollouts": 8} | dict(method.source_options)))
    job = make_job(family, method.objective(), method.source, options, micro_batch_size=1)
    before = weights(job.student)
    assert_trained(job, Trainer(job).fit(), before)


@pytest.mark.parametrize("family", KINDS.values())
@pytest.mark.parametrize("source", [name for name in SOURCES if name != "teacher"])
@pytest.mark.parametrize("objective", [CrossEntropy(), SRKL()], ids=["sft", "srkl"])
def test_every_source_trains(source, family, objective, make_job):
    job = make_job(
        family, objective, source, SourceOptions(capacity=2, initial_phi=1.0, probability=1.0, rollouts=8), steps=4
    )
    before = weights(job.student)
    state = Trainer(job).fit()
    assert_trained(job, state, before)
    generates = SOURCES[source].phi != "never"
    assert (state.tokens_generated > 0) == generates
    assert all(row["share_dataset"] == (not generates) for row in state.curve)


def assert_trained(job, state, before):
    assert state.step == job.config.steps == len(state.curve)
    assert all(torch.tensor([row["loss"], row["gradient_norm"]]).isfinite().all() for row in state.curve)
    assert all(tensor.isfinite().all() for tensor in job.student.network.state_dict().values())
    assert not same(before, weights(job.student))
    assert [row["step"] for row in state.validations] == [0, job.config.steps]
    assert job.student.network.training == getattr(job.objective, "dropout", True)


@pytest.mark.parametrize("family", KINDS.values())
def test_on_policy_means_the_responses_just_generated(family, make_job):
    job = make_job(family, Recording(SRKL()), "on-policy", steps=4)
    state = Trainer(job).fit()
    assert [row["sgo_age"] for row in state.curve] == [0.0] * 4
    assert [{s.sampled_at_step for s in batch} for batch in job.objective.batches] == [{1}, {2}, {3}, {4}]
    references = {s.id: s for s in job.train}
    for sequence in (s for batch in job.objective.batches for s in batch):
        assert sequence.prompt == references[sequence.id].prompt
        assert sequence.response != references[sequence.id].response
        assert 1 <= len(sequence.response) <= job.max_response_length
    assert state.tokens_generated == state.tokens_trained


@pytest.mark.parametrize("family", KINDS.values())
def test_equal_prompts_and_weights_get_other_responses_at_each_step(family, make_job):
    job = make_job(family, Recording(SRKL()), "on-policy", steps=3, learning_rate=1e-30)
    job = replace(job, train=job.train[:2])  # one batch: the same prompts, in the same order, at every step
    before = weights(job.student)
    Trainer(job).fit()
    assert all(torch.allclose(before[name], tensor, atol=1e-20) for name, tensor in weights(job.student).items())
    batches = job.objective.batches
    assert [[s.id for s in batch] for batch in batches] == [[s.id for s in batches[0]]] * 3
    assert len({tuple(s.response for s in batch) for batch in batches}) == 3


def test_equal_prompts_of_one_round_get_other_responses(make_job):
    job = make_job("llama", None, "roll-outs", SourceOptions(rollouts=6), steps=1)
    job = replace(job, train=job.train[:2])  # a round of three times the same two prompts
    Trainer(job).fit()
    made = [[s.response for s in job.output_source.round if s.id == one.id] for one in job.train]
    assert [len(set(responses)) for responses in made] == [3, 3]


def test_responses_depend_on_the_seed_and_are_the_same_for_the_same_seed(make_job):
    made = []
    for number, seed in enumerate((5, 5, 6)):
        job = make_job("llama", Recording(SRKL()), "on-policy", steps=1, work=f"work-{number}")
        Trainer(replace(job, train=job.train[:2], seed=seed)).fit()
        made.append([s.response for s in job.objective.batches[0]])
    assert made[0] == made[1] != made[2]


def test_replayed_responses_have_their_age(make_job):
    job = make_job("llama", Recording(SRKL()), "off-policy", SourceOptions(probability=1.0, capacity=2), steps=8)
    state = Trainer(job).fit()
    replays = [row for row in state.curve if row["share_replay"]]
    assert replays
    for row, batch in zip(state.curve, job.objective.batches, strict=True):
        assert row["sgo_age"] == sum(row["step"] - s.sampled_at_step for s in batch) / len(batch)
        assert (row["sgo_age"] > 0) == (row["share_replay"] == 1.0)


def test_the_teacher_is_left_alone(make_job):
    job = make_job("gpt2", KLD())  # gpt2 has dropout
    assert job.teacher.after_head is not None  # its forward pass is no scoring
    before, states = weights(job.teacher), []
    job.teacher.network.register_forward_hook(
        lambda module, _, output: states.append((module.training, output.logits.requires_grad))
    )
    Trainer(job).fit()
    assert states == [(False, False)] * 3
    assert same(before, weights(job.teacher))
    assert all(p.grad is None for p in job.teacher.network.parameters())


def test_the_schedule_is_told_the_validation_losses(make_job):
    options = SourceOptions(epsilon=1e9)
    job = make_job("llama", source="adaptive", options=options, steps=2)
    state = Trainer(job).fit()
    assert job.output_source.schedule.reference_loss == state.validations[0]["loss"]
    job = make_job("llama", source="adaptive", steps=4, validations=4, learning_rate=0.5, work="rising")
    state = Trainer(job).fit()
    losses = [row["loss"] for row in state.validations]
    assert max(losses) > losses[0] + 0.1
    assert state.curve[0]["phi"] == 0.0
    assert job.output_source.phi > 0.0


@pytest.mark.parametrize(
    ("source", "phi", "told"),
    [
        ("dataset", 0.0, {"loss"}),
        ("on-policy", 1.0, {"loss"}),
        ("mixed", 0.3, {"loss", "phi"}),
        ("adaptive", 0.6, {"loss", "phi"}),
        ("adaptive-off-policy", 0.6, {"loss", "phi", "buffer"}),
    ],
)
def test_phi_is_in_the_curve_and_shown_with_the_buffer_where_the_source_has_one(source, phi, told, make_job):
    options = SourceOptions(probability=0.3, initial_phi=0.6, epsilon=1e9)
    job, shown = make_job("llama", CrossEntropy(), source, options), []
    state = Trainer(replace(job, on_step=lambda step, total, figures: shown.append(figures))).fit()
    assert [row["phi"] for row in state.curve] == [phi] * 3
    assert [figures.keys() for figures in shown] == [told] * 3
    assert [figures.get("phi", phi) for figures in shown] == [phi] * 3


def test_a_rise_of_phi_is_in_the_curve_from_the_next_step_on(make_job):
    job = make_job("llama", source="adaptive", steps=4, validations=2, options=SourceOptions(epsilon=0.0))
    observe, told = job.output_source.observe, []

    def rising(loss):  # than at the validation before, whatever was measured
        told.append(loss)
        observe(float(len(told)))

    job.output_source.observe = rising
    state = Trainer(job).fit()
    assert [row["phi"] for row in state.curve] == pytest.approx([0.0, 0.0, 0.1, 0.1])
    assert job.output_source.phi == pytest.approx(0.2)
    assert told == [row["loss"] for row in state.validations]


# --- objectives that follow the training


@pytest.mark.parametrize("steps", [5, 8])
def test_taids_target_moves_by_its_linear_schedule(steps, make_job):
    job = make_job("llama", TAID(start=0.2, end=0.9, alpha=0.0), steps=steps)
    after, losses = [], []

    def noting(step, total, figures):
        after.append(job.objective.t)
        losses.append((job.objective.previous, figures["loss"]))

    Trainer(replace(job, on_step=noting)).fit()
    # the first step only gives the loss to compare with
    assert after == pytest.approx([0.2, *(0.2 + 0.7 * step / steps for step in range(2, steps + 1))])
    assert all(learnt == loss for learnt, loss in losses)


@dataclass
class Following(BatchObjective):
    """Cross-entropy that notes what the loop tells it, and whether each batch came from its `on_step_begin`."""

    calls: list = field(default_factory=list)
    needs_teacher: ClassVar[bool] = False

    def on_step_begin(self, batch, step, total_steps):
        self.calls.append(("begin", step, total_steps, len(batch)))
        return [replace(s, token_values={"step": (float(step),) * len(s.response)}) for s in batch]

    def on_step_end(self, loss):
        self.calls.append(("finish", loss))

    def __call__(self, student_logits, teacher_logits, tokens, batch):
        self.calls.append(("call", {s.token_values["step"][0] for s in batch}))
        return CrossEntropy()(student_logits, teacher_logits, tokens, batch)


def test_what_the_loop_tells_an_objective(make_job):
    job = make_job("llama", Following(), steps=3, batch_size=4, micro_batch_size=2)
    state = Trainer(job).fit()
    expected = []
    for row in state.curve:
        step = row["step"]
        expected += [("begin", step, 3, 4), ("call", {step}), ("call", {step}), ("finish", row["loss"])]
    assert job.objective.calls == expected


# --- where the time goes


@pytest.mark.parametrize(
    ("objective", "source"), [(CrossEntropy(), "dataset"), (SRKL(), "on-policy")], ids=["sft", "on-policy"]
)
def test_seconds_go_to_the_phase_they_were_spent_in(objective, source, make_job):
    job = replace(make_job("llama", objective, source), max_response_length=2)
    # each forward pass takes at least so long, whatever the machine does
    job.student.network.register_forward_pre_hook(lambda module, _: time.sleep(0.02 if module.training else 0.03))
    job.teacher.network.register_forward_pre_hook(lambda module, _: time.sleep(0.04))
    seconds = Trainer(job).fit().seconds
    assert list(seconds) == ["data", "generation", "teacher", "student", "optimiser", "validation", "checkpoint"]
    assert seconds["student"] >= 3 * 0.02
    assert seconds["validation"] >= 4 * 0.03  # two validations of two batches
    assert seconds["data"] > 0
    assert seconds["optimiser"] > 0
    if source == "dataset":
        assert seconds["generation"] == 0
        assert seconds["teacher"] < 0.04  # never run
    else:
        assert seconds["generation"] >= 3 * 0.03  # at least one token at each step
        assert seconds["teacher"] >= 3 * 0.04


# --- learning rate and length


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 0.8, 0.6, 0.4, 0.2]),
        ("cosine", [0.5, 1.0, 0.904508, 0.654508, 0.345492, 0.095492]),
    ],
)
def test_learning_rates(schedule, expected, make_job):
    config = TrainingConfig(steps=6, batch_size=2, learning_rate=1.0, schedule=schedule, warmup_steps=2)
    assert [learning_rate(config, step, 6) for step in range(1, 7)] == pytest.approx(expected, abs=1e-6)
    rates = {"learning_rate": 2e-3, "schedule": schedule, "warmup_steps": 2}
    state = Trainer(make_job("llama", CrossEntropy(), steps=6, **rates)).fit()
    assert [row["learning_rate"] / 2e-3 for row in state.curve] == pytest.approx(expected, abs=1e-6)


def test_a_step_moves_the_weights_by_its_learning_rate(make_job):
    job = make_job("llama", CrossEntropy(), steps=1, learning_rate=1e-3, schedule="constant", weight_decay=0.0)
    before = weights(job.student)
    Trainer(job).fit()
    # Adam's first step is the learning rate times the sign of the gradient
    moved = torch.cat([(tensor - before[name]).abs().flatten() for name, tensor in weights(job.student).items()])
    assert moved.max() == pytest.approx(1e-3, rel=1e-3)


def test_total_steps():
    assert total_steps(TrainingConfig(steps=7, batch_size=4, learning_rate=1.0), 100) == 7
    assert total_steps(TrainingConfig(epochs=2.5, batch_size=4, learning_rate=1.0), 43) == 25
    assert total_steps(TrainingConfig(epochs=1, batch_size=4, learning_rate=1.0), 3) == 1


# --- losses that are not finite


class Failing(Recording):
    """Cross-entropy that is not finite, or whose gradient is not, at the second step."""

    def __init__(self, where: str) -> None:
        super().__init__(CrossEntropy())
        self.where = where

    def __call__(self, student_logits, teacher_logits, tokens, batch):
        loss = super().__call__(student_logits, teacher_logits, tokens, batch)
        if len(self.batches) != 2:
            return loss
        return loss * float("nan") if self.where == "loss" else loss + (loss - loss.detach()).sqrt()


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_stops_the_training(where, make_job):
    job = make_job("llama", Failing(where), checkpoint_seconds=1e-9)
    seen = {}
    job = replace(job, on_step=lambda step, total, figures: seen.update({step: weights(job.student)}))
    what = {"loss": "the loss", "gradient": "the gradient norm"}[where]
    with pytest.raises(NonFiniteLoss, match=f"the student: {what} is not finite at step 2, loss ") as caught:
        Trainer(job).fit()
    ids = [s.id for s in job.objective.batches[1]]
    assert all(one in str(caught.value) for one in ids)
    details = caught.value.details
    assert (details["step"], details["what"], details["batch"]) == (2, what, ids)
    assert details["values"].keys() == {"loss", "gradient_norm"}
    assert details["curve"][-1]["step"] == 1
    json.dumps(details, allow_nan=False)
    assert "training.learning_rate" in str(caught.value)
    assert [path.name for path in job.work.glob("step-*")] == ["step-00000001"]
    assert read_json(job.work / "step-00000001" / "state.json")["state"]["step"] == 1
    assert same(weights(job.student), seen[1])
    kept = load_file(job.work / "step-00000001" / "model.safetensors")
    assert all(torch.equal(tensor, seen[1][name]) for name, tensor in kept.items())


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_steps_that_are_queued_after_a_failure_change_nothing(where, make_job):
    found = []
    for ahead in (0, 1):
        job = make_job("llama", Failing(where), steps=5, work=f"work-{ahead}")
        trainer = Trainer(job)
        trainer.steps_ahead = ahead
        with pytest.raises(NonFiniteLoss) as caught:
            trainer.fit()
        assert len(job.objective.batches) == 2 + ahead
        found.append((str(caught.value), caught.value.details, weights(job.student)))
    (message, details, expected), (ahead_message, ahead_details, kept) = found
    assert "is not finite at step 2, loss " in message
    assert ahead_message == message
    assert ahead_details == details
    assert same(kept, expected)


@pytest.mark.parametrize("source", ["dataset", "on-policy", "adaptive-off-policy"])
def test_a_step_queued_ahead_is_the_step_that_comes(source, make_job):
    found = []
    for ahead in (0, 1):
        options = SourceOptions(capacity=4, initial_phi=0.5)
        job = make_job("llama", SRKL(), source, options, steps=7, validations=2, work=f"work-{ahead}")
        shown = []
        trainer = Trainer(replace(job, on_step=lambda step, total, figures, shown=shown: shown.append((step, figures))))
        trainer.steps_ahead = ahead
        state = trainer.fit()
        found.append([state.curve, state.validations, shown, state.tokens_trained, state.tokens_generated])
        found[-1].append({name: tensor.tolist() for name, tensor in weights(job.student).items()})
    assert found[0] == found[1]
    assert [step for step, _ in found[1][2]] == list(range(1, 8))


def test_a_validation_loss_that_is_not_finite_stops_the_training(make_job):
    job = make_job("gpt2", CrossEntropy(), steps=1, learning_rate=1e30)
    with pytest.raises(NonFiniteLoss, match="the validation loss is not finite at step 1, loss nan") as caught:
        Trainer(job).fit()
    assert caught.value.details["batch"] == [s.id for s in job.validation.sequences]
    assert not list(job.work.glob("best-*"))


@pytest.mark.parametrize("family", ["llama", "t5"])
@pytest.mark.parametrize("source", ["on-policy", "roll-outs"])
def test_a_student_that_cannot_be_sampled_from_stops_the_training(source, family, make_job):
    options = SourceOptions(rollouts=4, inner_epochs=1)
    job = make_job(family, KLD(), source, options, steps=3, batch_size=4)

    def break_it(step, total, figures):
        torch.nn.init.constant_(job.student.network.get_input_embeddings().weight, float("nan"))

    job = replace(job, on_step=break_it)
    with pytest.raises(NonFiniteLoss, match="responses are sampled from is not finite at step 2; batch ") as caught:
        Trainer(job).fit()
    assert len(caught.value.details["batch"]) == 4


class RatioRecorder(MiniLLM):
    """MiniLLM that keeps log q / q_old of the tokens it is called on."""

    def __call__(self, student_logits, teacher_logits, tokens, batch):
        now = student_logits.detach().log_softmax(-1).gather(-1, tokens[:, None]).squeeze(-1)
        old = torch.tensor([value for s in batch for value in s.token_values["student"]])
        RATIOS.append(now - old)
        return super().__call__(student_logits, teacher_logits, tokens, batch)


RATIOS: list[torch.Tensor] = []


def test_minillm_compares_the_student_with_its_past_without_dropout(make_job, make_model):
    RATIOS.clear()
    # one inner epoch of one batch, so that q is q_old at every step
    options = SourceOptions(rollouts=4, inner_epochs=1)
    job = make_job("gpt2", RatioRecorder(), "roll-outs", options, steps=3, batch_size=4, validations=1)
    assert job.student.network.config.resid_pdrop > 0
    Trainer(job).fit()
    assert len(RATIOS) == 3
    assert max(float(ratio.abs().max()) for ratio in RATIOS) < 1e-4


def test_other_objectives_train_with_dropout(make_job):
    job = make_job("gpt2", KLD(), steps=2)
    modes = []
    job.student.network.register_forward_pre_hook(
        lambda model, _: modes.append((model.training, torch.is_grad_enabled()))
    )
    Trainer(job).fit()
    assert {training for training, recording in modes if recording} == {True}
