"""Captured passes: they give what the network gives, and are used where they pay."""

import time
from dataclasses import replace

import pytest
import torch

from bench.config.sections import LoraConfig
from bench.models.batches import collate
from bench.system.environment import choose_kernels
from bench.training import captured_pass
from bench.training.captured_pass import CapturedPass, CudaRecorder
from bench.training.trainer import Trainer
from distillm.methods import SRKL
from tests.tiny import sequences

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_gpu])]


@pytest.fixture(autouse=True)
def as_in_a_run():
    choose_kernels(torch.device("cuda"))


class Repeating:
    """Stands for a graph on a CPU: it does the work again, in the same places."""

    def __init__(self) -> None:
        self.recorded, self.replayed = 0, 0

    def rehearse(self, work):
        work()

    def record(self, work):
        self.recorded += 1

        def replay():
            self.replayed += 1
            work()

        return replay


def captured(model, parameters=None, note=lambda text: None):
    recorder = Repeating() if model.device.type == "cpu" else CudaRecorder(model.device)
    parameters = list(model.network.parameters()) if parameters is None else parameters
    return CapturedPass(lambda inputs: model.network(**inputs, use_cache=False).logits, parameters, note, recorder)


def batch_of(model, seed):
    """Three sequences, all padded to one length."""
    return collate(sequences(3, seed), model.tokenizer, model.start_id, model.device, bucket=24)


def outcome(model, run, batch, precision=torch.float32):
    """Logits at the response tokens, and the gradient of a function of them, by parameter."""
    model.network.zero_grad(set_to_none=False)
    torch.manual_seed(7)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
        chosen = run(batch.inputs).flatten(0, 1).index_select(0, batch.positions)
    chosen.float().sin().sum().backward()
    found = {name: p.grad.clone() for name, p in model.network.named_parameters() if p.grad is not None}
    return found | {"logits": chosen.detach().clone()}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [False, True], ids=["without dropout", "with dropout"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_a_captured_pass_gives_what_the_network_gives(family, dropout, precision, device, make_model):
    model = make_model(family, **({"dropout_rate": 0.1} if family == "t5" else {}))
    model.network.to(device).train(dropout)
    captures = captured(model)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if precision == torch.float32 else {"rtol": 0.02, "atol": 0.02}
    for seed in range(6):
        batch = batch_of(model, seed)
        expected = outcome(model, lambda inputs: model.network(**inputs, use_cache=False).logits, batch, precision)
        found = outcome(model, captures, batch, precision)
        torch.testing.assert_close(found, expected, **tolerance)
        with torch.no_grad():  # the next pass is one of other weights
            for p in model.network.parameters():
                p.add_(0.01 * torch.randn_like(p))
    assert len(captures.graphs) == 1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_adapters_get_their_gradients(family, device, make_model):
    model = make_model(family, device=device)
    model.add_adapter(LoraConfig(rank=2, dropout=0.0), 1)
    model.network.eval()
    trained = [p for p in model.network.parameters() if p.requires_grad]
    captures = captured(model, trained)
    for seed in range(5):
        batch = batch_of(model, seed)
        expected = outcome(model, lambda inputs: model.network(**inputs, use_cache=False).logits, batch)
        found = outcome(model, captures, batch)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert len(found) == len(trained) + 1
        with torch.no_grad():
            for p in trained:
                p.add_(0.1 * torch.randn_like(p))
    assert len(captures.graphs) == 1


@pytest.mark.parametrize("device", DEVICES)
def test_another_seed_draws_another_dropout(device, make_model):
    model = make_model("gpt2")
    model.network.to(device).train()
    captures = captured(model)
    inputs = batch_of(model, 0).inputs
    for _ in range(3):
        captures(inputs)
    assert captures.graphs
    made = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        made.append((captures(inputs).detach().clone(), captures(inputs).detach().clone()))
    torch.testing.assert_close(made[0], made[2])
    assert not torch.allclose(made[0][0], made[1][0])
    assert not torch.allclose(made[0][0], made[0][1])  # nor are two passes of one step alike


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_of_micro_batches_add_up(device, make_model):
    model = make_model("llama")
    model.network.to(device)
    captures = captured(model)
    parts = [batch_of(model, seed) for seed in range(4)]
    for part in parts:
        outcome(model, captures, part)
    expected = [outcome(model, captures, part) for part in parts]
    model.network.zero_grad(set_to_none=False)
    for part in parts:
        chosen = captures(part.inputs).flatten(0, 1).index_select(0, part.positions)
        chosen.sin().sum().backward()
    for name, p in model.network.named_parameters():
        torch.testing.assert_close(p.grad, sum(one[name] for one in expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_passes_without_gradients(device, make_model):
    model = make_model("gpt2")
    model.network.to(device).eval()
    captures = captured(model, parameters=[])
    with torch.no_grad():
        for seed in range(5):
            inputs = batch_of(model, seed).inputs
            torch.testing.assert_close(captures(inputs), model.network(**inputs, use_cache=False).logits)
    assert captures.graphs
    assert all(p.grad is None for p in model.network.parameters())


def test_a_shape_is_captured_when_it_came_often(make_model):
    model = make_model("llama")
    captures = captured(model)
    common, rare = sequences(3, 0), sequences(2, 1)
    for at, batch in enumerate([common, rare, common, common, rare, common, common]):
        captures(model.batch(batch).inputs)
        assert len(captures.graphs) == (at >= 3)
    assert captures.recorder.recorded == 2  # forward and backward
    assert captures.recorder.replayed == 3


def test_graphs_are_bounded(make_model, monkeypatch):
    monkeypatch.setattr(captured_pass, "_MOST_GRAPHS", 2)
    model = make_model("llama")
    captures = captured(model)
    for rows in (1, 2, 3, 4) * 3:
        captures(model.batch(sequences(rows, 0)).inputs)
    assert len(captures.graphs) == 2


def asking(model, inputs):
    """A forward pass that asks the device for a value, as a mixture of experts does."""
    logits = model.network(**inputs, use_cache=False).logits
    return logits * (1.0 if logits.abs().max().item() > 0 else 2.0)


class Refusing(Repeating):
    def rehearse(self, work):
        raise RuntimeError("called a synchronizing CUDA operation\nand more")


@pytest.mark.parametrize("device", DEVICES)
def test_a_network_that_cannot_be_captured_runs_as_it_is(device, make_model):
    model, notes = make_model("gpt2"), []
    model.network.to(device).train()
    recorder = Refusing() if device == "cpu" else CudaRecorder(model.device)
    captures = CapturedPass(
        lambda inputs: asking(model, inputs), list(model.network.parameters()), notes.append, recorder
    )
    for seed in range(5):
        batch = batch_of(model, seed)
        found = outcome(model, captures, batch)
        torch.testing.assert_close(found, outcome(model, lambda inputs: asking(model, inputs), batch))
    assert not captures.graphs
    assert notes == ["its passes are not captured as CUDA graphs: called a synchronizing CUDA operation"]


@pytest.mark.gpu
@needs_gpu
def test_a_replay_takes_less_of_the_hosts_time(make_model):
    model = make_model("gpt2", n_layer=24)
    model.network.to("cuda")
    captures = captured(model)
    batch = batch_of(model, 0)
    for _ in range(4):
        outcome(model, captures, batch)
    times = {}
    for name, run in (("plain", lambda inputs: model.network(**inputs, use_cache=False).logits), ("graph", captures)):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(10):
            run(batch.inputs).sum().backward()
        torch.cuda.synchronize()
        times[name] = time.perf_counter() - start
    assert times["graph"] < times["plain"] / 3


class Remembering(CapturedPass):
    """Knows how many graphs it had when a training was over."""

    def forget(self):
        self.had = len(self.graphs)
        super().forget()


def test_a_training_that_goes_on_has_the_gradients_of_its_steps(make_job):
    """`fit` once to the middle and once more: graphs of the first call must not add to gradients of the second's."""
    curves = []
    for capturing in (False, True):
        job = make_job(
            *("gpt2", SRKL(), "dataset"),
            **{"steps": 12, "batch_size": 4, "micro_batch_size": 2, "validations": 2},
            work=f"work-{capturing}",
        )
        trainer = Trainer(job)
        if capturing:
            parameters = list(job.student.network.parameters())
            trainer.gradient.student_pass = Remembering(job.student.hidden_states, parameters, print, Repeating())
        trainer.fit(until=6)
        if capturing:
            assert trainer.gradient.student_pass.had
            assert not trainer.gradient.student_pass.graphs
        state = trainer.fit()
        curves.append([(row["loss"], row["gradient_norm"]) for row in state.curve])
    for found, expected in zip(*curves, strict=True):
        assert found == pytest.approx(expected, rel=1e-4)


def test_a_weight_that_no_batch_reaches_does_not_decay_on_a_gpu(make_job):
    """As on a CPU: only graphs, which add to gradients where they lie, keep zeros there between the steps."""
    job = make_job("gpt2", SRKL(), "dataset", steps=4, batch_size=4)
    trainer = Trainer(job)
    trainer.gradient.on_cuda = True
    seen = []
    step = trainer.optimiser.adamw.step

    def watched(*arguments):
        step(*arguments)
        seen.append(True)

    trainer.optimiser.adamw.step = watched
    finish = trainer.finish

    def look(taken):
        assert all(p.grad is None for p in job.student.network.parameters())
        return finish(taken)

    trainer.finish = look
    trainer.fit()
    assert len(seen) == 4


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
@pytest.mark.parametrize("source", ["dataset", "on-policy"])
def test_a_training_takes_the_steps_that_it_takes_without(source, family, device, make_job):
    curves, notes = [], []
    for capturing in (False, True):
        job = make_job(
            *(family, SRKL(), source),
            **{"steps": 8, "batch_size": 4, "micro_batch_size": 2, "device": torch.device(device)},
            work=f"work-{capturing}",
        )
        trainer = Trainer(replace(job, note=notes.append))
        trainer.gradient.on_cuda = True
        models = [
            ("student_pass", job.student, list(job.student.network.parameters())),
            ("teacher_pass", job.teacher, []),
        ]
        for name, model, parameters in models:
            recorder = Repeating() if device == "cpu" else CudaRecorder(model.device)
            captures = Remembering(model.hidden_states, parameters, notes.append, recorder)
            setattr(trainer.gradient, name, captures if capturing else None)
        state = trainer.fit()
        curves.append([(row["loss"], row["gradient_norm"]) for row in state.curve])
        if capturing:
            assert trainer.gradient.student_pass.had
            assert trainer.gradient.teacher_pass.had == trainer.gradient.student_pass.had
    assert notes == []
    for found, expected in zip(*curves, strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
