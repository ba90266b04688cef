"""Less memory, same training: gradient checkpointing, 8-bit moments, and checkpoints that cost little time and disk."""

import itertools
import time
from dataclasses import replace

import pytest
import torch

from baselines.kld import KLD
from baselines.minillm import MiniLLM
from baselines.sft import CrossEntropy
from bench.config.sections import TrainingConfig
from bench.system.errors import BenchError
from bench.training import checkpoint
from bench.training.checkpoint import MOST_OF_TIME, Pace
from bench.training.trainer import Trainer
from distillm import SourceOptions
from tests.tiny import same, weights


def gradients(job, steps=1):
    trainer = Trainer(job)
    trainer.restore()
    for step in range(1, steps + 1):
        trainer.begin_step(list(job.train), step)
        trainer.gradient.backward(job.objective, list(job.train), 1.0, None)
    return {name: p.grad for name, p in job.student.network.named_parameters()}


@pytest.mark.parametrize("micro", [None, 3])
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "t5"])  # gpt2 and opt drop out
def test_gradients_are_those_without_checkpointing(family, micro, make_job):
    jobs = [
        make_job(family, KLD(), batch_size=8, micro_batch_size=micro, gradient_checkpointing=on) for on in (False, True)
    ]
    assert jobs[1].student.after_head  # its probe is no pass of a batch
    counted = []
    layers = [m for m in jobs[1].student.network.modules() if type(m).__name__.endswith(("Block", "Layer"))]
    layers[-1].register_forward_pre_hook(lambda *_: counted.append(1))
    plain, checkpointed = map(gradients, jobs)
    assert len(counted) == 2 * (1 if micro is None else 3), "each layer is run again on the way back"
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("family", ["gpt2", "opt", "t5"])
def test_an_objective_without_dropout_is_checkpointed_too(family, make_job):
    options, made = SourceOptions(rollouts=4, inner_epochs=1), []
    for on in (False, True):
        job = make_job(family, MiniLLM(), "roll-outs", options, steps=2, gradient_checkpointing=on, work=f"work-{on}")
        state = Trainer(job).fit()
        made.append((weights(job.student), [row["loss"] for row in state.curve]))
    assert made[0][1] == pytest.approx(made[1][1], rel=1e-5)
    for name, tensor in made[0][0].items():
        torch.testing.assert_close(made[1][0][name], tensor, rtol=1e-3, atol=1e-4)


def test_graphs_and_checkpointing_do_not_go_together():
    with pytest.raises(ValueError, match="cuda_graphs keeps the activations"):
        TrainingConfig(steps=1, batch_size=1, learning_rate=1.0, cuda_graphs=True, gradient_checkpointing=True)


def test_new_settings_stay_out_of_identities():
    plain = TrainingConfig(steps=1, batch_size=1, learning_rate=1.0).model_dump()
    assert not {"gradient_checkpointing", "optimizer"} & plain.keys()


def test_the_8_bit_optimiser_asks_for_its_package(make_job, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes.optim", None)
    with pytest.raises(BenchError, match=r"pip install 'distillm-bench\[8bit\]'"):
        Trainer(make_job("llama", optimizer="adamw-8bit"))


def test_moments_in_8_bits_go_through_a_checkpoint(make_job, monkeypatch):
    """Those of bitsandbytes, which keeps tables that all parameters share and hides the moments in its state_dict."""
    training = {"steps": 4, "learning_rate": 0.01, "optimizer": "adamw-8bit"}
    whole = make_job("llama", CrossEntropy(), **training)
    Trainer(whole).fit()

    class Killed(Exception):
        pass

    def kill(step, total, figures):
        if step == 2:
            raise Killed

    job = make_job("llama", CrossEntropy(), **training, checkpoint_seconds=1e-9, work="killed")
    with pytest.raises(Killed):
        Trainer(replace(job, on_step=kill)).fit()
    again = make_job("llama", CrossEntropy(), **training, checkpoint_seconds=1e-9, work="killed", student_seed=9)
    trainer = Trainer(again)
    state = trainer.fit()
    assert state.resumes == 1
    assert same(weights(again.student), weights(whole.student))
    entries = trainer.optimiser.adamw.state.values()
    assert {entry["step"] for entry in entries} == {4}
    # tensors of fewer than 4,096 numbers are kept in 32 bits
    assert {entry["state2"].dtype for entry in entries} == {torch.uint8, torch.float32}


def test_a_step_that_is_not_finite_changes_nothing_without_the_fused_kernel(make_job):
    job = make_job("llama", CrossEntropy(), optimizer="adamw-8bit")
    trainer, before = Trainer(job), weights(job.student)
    assert not trainer.optimiser.skips_by_itself
    trainer.gradient.backward(job.objective, list(job.train), float("nan"), None)
    trainer.optimiser.update({"loss": torch.tensor(1.0)})
    assert same(weights(job.student), before)


# --- checkpoints


def test_saving_takes_two_per_cent_of_the_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoint, "MOST_OF_TIME", MOST_OF_TIME)  # the tests beside save often
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace, spent, saved_at = Pace(15.0), 0.0, []
    while now[0] < 10_000:
        now[0] += 1.0
        if pace.is_due(validating=now[0] % 100 == 0):
            with pace.saving():
                now[0] += 4.0
            spent += 4.0
            saved_at.append(now[0])
    assert saved_at[0] == pytest.approx(20.0, abs=1.0)  # nothing is known of its cost: at the interval asked for
    assert spent - 4.0 <= 0.02 * now[0]
    assert all(later - earlier >= 200.0 for earlier, later in itertools.pairwise(saved_at[1:]))


def test_a_cheap_save_keeps_the_interval_and_comes_sooner_at_validations(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoint, "MOST_OF_TIME", MOST_OF_TIME)  # the tests beside save often
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = Pace(15.0)
    with pace.saving():
        now[0] += 0.1
    now[0] += 6.0
    assert not pace.is_due(validating=False)
    assert pace.is_due(validating=True)
    now[0] += 10.0
    assert pace.is_due(validating=False)


def test_after_the_last_step_only_the_best_weights_are_on_disk(make_job):
    job = make_job("llama", CrossEntropy(), steps=3)
    trained = Trainer(job).fit()
    files = sorted(path.relative_to(job.work).as_posix() for path in job.work.rglob("*.*"))
    assert files == ["best-00000003.safetensors", "step-00000003/checksums.json", "step-00000003/state.json"]
    again = make_job("llama", CrossEntropy(), steps=3, student_seed=9)
    state = Trainer(again).fit()
    assert (state.resumes, state.curve) == (1, trained.curve)
    assert same(weights(again.student), weights(job.student))


def test_a_checkpoint_of_the_best_weights_is_their_file(make_job):
    job = make_job("llama", CrossEntropy(), steps=4, validations=2, learning_rate=0.01)
    seen = []

    def look(step, total, figures):
        if step == 2:
            best, kept = job.work / "best-00000002.safetensors", job.work / "step-00000002" / "model.safetensors"
            seen.append(best.samefile(kept))

    Trainer(replace(job, on_step=look)).fit()
    assert seen == [True]


def test_no_gradients_are_left_when_a_training_is_over(make_job):
    job = make_job("llama", CrossEntropy())
    trainer = Trainer(job)
    trainer.gradient.on_cuda = True  # where they are kept between steps
    trainer.fit()
    assert all(p.grad is None for p in job.student.network.parameters())
