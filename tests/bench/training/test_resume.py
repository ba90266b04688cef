"""What a training keeps: the best weights, and a checkpoint from which a killed process goes on in the same numbers."""

import dataclasses

import pytest
import torch

from baselines.minillm import MiniLLM
from baselines.sft import CrossEntropy
from baselines.taid import TAID
from bench.training.auxiliary_loss import LanguageModelling
from bench.training.trainer import AuxiliaryLoss, train
from distillm import SourceOptions


def weights(model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(ours, theirs) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(("by", "best"), [("metric", 2), ("loss", 4)])
def test_the_best_weights_by_metric_or_loss_are_kept(by, best, make_job):
    scores, seen, told = iter([1.0, 9.0, 9.0, 3.0]), {}, []

    def score(texts: list[str]) -> float:
        told.append(texts)
        return next(scores)

    job = make_job("llama", CrossEntropy(), steps=4, validations=4, learning_rate=0.01, select_by=by)
    job.score, job.watch = score, lambda step, total, figures: seen.update({step: weights(job.student)})
    progress = train(job)
    losses = {row["step"]: row["loss"] for row in progress.validations}
    assert losses[4] == min(losses.values())
    assert progress.best_step == best
    assert same(weights(job.student), seen[best])
    assert not same(seen[2], seen[4])
    assert [path.name for path in job.work.glob("best-*")] == [f"best-{best:08d}.safetensors"]
    assert len(told) == (4 if by == "metric" else 0)
    assert all(len(texts) == len(job.validation) for texts in told)


class Killed(Exception):
    """Stands for the end of the process."""


def kill_at(last: int):
    def watch(step: int, total: int, figures: dict[str, float]) -> None:
        if step == last:
            raise Killed

    return watch


def comparable(progress) -> dict:
    return {k: v for k, v in dataclasses.asdict(progress).items() if k not in ("resumes", "seconds")}


DISTILLM = {"source": "adaptive-off-policy", "options": SourceOptions(initial_phi=0.8, capacity=4, epsilon=0.0)}
LENGTH = {"steps": 8, "validations": 3, "learning_rate": 0.02, "select_by": "metric"}


@pytest.mark.parametrize("family", ["gpt2", "t5"])  # gpt2 has dropout
def test_a_killed_training_goes_on_in_the_same_numbers(family, make_job):
    def job(**more):
        made = make_job(family, **DISTILLM, **LENGTH, **more)
        made.score = lambda texts: float(sum(map(len, texts)))
        return made

    whole = job()
    expected = train(whole)
    for decision in ("dataset", "generate", "replay"):
        assert any(row[f"share_{decision}"] for row in expected.curve)
    for step in range(1, 9):
        killed = job(work=f"work-{step}", checkpoint_seconds=1e-9)
        killed.watch = kill_at(step)
        with pytest.raises(Killed):
            train(killed)
        # other weights than the first: all must come from the checkpoint
        resumed = job(work=f"work-{step}", checkpoint_seconds=1e-9, student_seed=99)
        progress = train(resumed)
        assert progress.resumes == 1
        assert comparable(progress) == comparable(expected)
        assert same(weights(resumed.student), weights(whole.student))
        assert resumed.source.state_dict() == whole.source.state_dict()


@pytest.mark.parametrize("family", ["llama", "t5"])
@pytest.mark.parametrize(
    ("objective", "source"), [(MiniLLM, "roll-outs"), (TAID, "dataset"), (MiniLLM, "off-policy")], ids=str
)
def test_rounds_objectives_and_the_auxiliary_loss_go_on_too(objective, source, family, make_job):
    def job(**more):
        options = SourceOptions(rollouts=6, inner_epochs=2, probability=0.8, capacity=4)
        made = make_job(family, objective(), source, options, **LENGTH, **more)
        made.score = lambda texts: float(sum(map(len, texts)))
        return dataclasses.replace(made, plain_text=AuxiliaryLoss(LanguageModelling(0.5), 1.0, made.train[4:], 2))

    whole = job()
    expected = train(whole)
    for step in (1, 4, 6):
        killed = job(work=f"work-{step}", checkpoint_seconds=1e-9)
        killed.watch = kill_at(step)
        with pytest.raises(Killed):
            train(killed)
        resumed = job(work=f"work-{step}", checkpoint_seconds=1e-9, student_seed=99)
        assert comparable(train(resumed)) == comparable(expected)
        assert same(weights(resumed.student), weights(whole.student))
        assert resumed.objective.state_dict() == whole.objective.state_dict()


def test_steps_since_the_last_checkpoint_are_repeated(make_job):
    whole = make_job("gpt2", **DISTILLM, **LENGTH)
    expected = train(whole)
    for step in (2, 4, 7):  # checkpoints are written at the validations only: after steps 3, 5 and 8
        killed = make_job("gpt2", **DISTILLM, **LENGTH, work="killed", checkpoint_seconds=1000)
        killed.watch = kill_at(step)
        with pytest.raises(Killed):
            train(killed)
    last = make_job("gpt2", **DISTILLM, **LENGTH, work="killed", checkpoint_seconds=1000)
    progress = train(last)
    assert progress.resumes == 2
    assert comparable(progress) == comparable(expected)
    assert same(weights(last.student), weights(whole.student))
