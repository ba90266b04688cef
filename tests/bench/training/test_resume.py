"""What a training keeps: the best weights, and a checkpoint from which a killed process goes on in the same numbers."""

from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import load_file

from baselines.minillm import MiniLLM
from baselines.sft import CrossEntropy
from baselines.taid import TAID
from bench.config.sections import LoraConfig
from bench.models.language_model import LanguageModel
from bench.training.auxiliary_loss import AuxiliaryLoss, LanguageModelling
from bench.training.checkpoint import Pace
from bench.training.job import TrainingJob
from bench.training.trainer import Trainer
from distillm import SourceOptions
from tests.tiny import same, weights


@pytest.mark.parametrize(("by", "best"), [("metric", 2), ("loss", 4)])
def test_the_best_weights_by_metric_or_loss_are_kept(by, best, make_job):
    scores, seen, told = iter([1.0, 9.0, 9.0, 3.0]), {}, []

    def score(texts: list[str]) -> float:
        told.append(texts)
        return next(scores)

    job = make_job("llama", CrossEntropy(), steps=4, validations=4, learning_rate=0.01, select_by=by)
    job = replace(
        job,
        validation=replace(job.validation, score=score),
        on_step=lambda step, total, figures: seen.update({step: weights(job.student)}),
    )
    state = Trainer(job).fit()
    losses = {row["step"]: row["loss"] for row in state.validations}
    assert losses[4] == min(losses.values())
    assert state.best_step == best
    assert same(weights(job.student), seen[best])
    assert not same(seen[2], seen[4])
    assert [path.name for path in job.work.glob("best-*")] == [f"best-{best:08d}.safetensors"]
    assert len(told) == (4 if by == "metric" else 0)
    assert all(len(texts) == len(job.validation.sequences) for texts in told)


def test_best_weights_do_not_pile_up_between_checkpoints(make_job, monkeypatch):
    due, there = iter([True, False, False, False]), []
    monkeypatch.setattr(Pace, "is_due", lambda self, validating: next(due))
    job = make_job("llama", CrossEntropy(), steps=5, validations=5, learning_rate=0.01, select_by="loss")

    def on_step(step: int, total: int, figures: dict[str, float]) -> None:
        there.append(sorted(path.name[5:13] for path in job.work.glob("best-*")))

    assert Trainer(replace(job, on_step=on_step)).fit().best_step == 5
    # that of the only checkpoint, without which it could not be gone on from, and the newest
    assert there == [[f"{step:08d}" for step in steps] for steps in ([1], [1, 2], [1, 3], [1, 4], [5])]


class Killed(Exception):
    """Stands for the end of the process."""


def killed_at(last: int, job: TrainingJob) -> None:
    """Train until a step is done, and no further."""

    def on_step(step: int, total: int, figures: dict[str, float]) -> None:
        if step == last:
            raise Killed

    with pytest.raises(Killed):
        Trainer(replace(job, on_step=on_step)).fit()


def scored_by_length(job: TrainingJob) -> TrainingJob:
    """The job with a metric that is higher for longer texts."""
    return replace(job, validation=replace(job.validation, score=lambda texts: float(sum(map(len, texts)))))


def comparable(state) -> dict:
    return {k: v for k, v in asdict(state).items() if k not in ("resumes", "seconds", "step_seconds")}


DISTILLM = {"source": "adaptive-off-policy", "options": SourceOptions(initial_phi=0.8, capacity=4, epsilon=0.0)}
LENGTH = {"steps": 8, "validations": 3, "learning_rate": 0.02, "select_by": "metric"}


@pytest.mark.parametrize("family", ["gpt2", "t5"])  # gpt2 has dropout
def test_a_killed_training_goes_on_in_the_same_numbers(family, make_job):
    def job(**more):
        return scored_by_length(make_job(family, **DISTILLM, **LENGTH, **more))

    whole = job()
    expected = Trainer(whole).fit()
    for decision in ("dataset", "generate", "replay"):
        assert any(row[f"share_{decision}"] for row in expected.curve)
    for step in range(1, 9):
        killed_at(step, job(work=f"work-{step}", checkpoint_seconds=1e-9))
        # other weights than the first: all must come from the checkpoint
        resumed = job(work=f"work-{step}", checkpoint_seconds=1e-9, student_seed=99)
        state = Trainer(resumed).fit()
        assert state.resumes == 1
        assert comparable(state) == comparable(expected)
        assert same(weights(resumed.student), weights(whole.student))
        assert resumed.output_source.state_dict() == whole.output_source.state_dict()


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_a_killed_training_of_adapters_goes_on_in_the_same_numbers(family, make_job, make_model, tmp_path):
    make_model(family).save(tmp_path / "base")

    def job(seed=5, **more):
        made = scored_by_length(make_job(family, **DISTILLM, **LENGTH, **more))
        student = LanguageModel.load(str(tmp_path / "base"), made.student.tokenizer, made.student.device)
        student.add_adapter(LoraConfig(rank=2), seed)  # with the paper's dropout
        return replace(made, student=student)

    whole = job()
    before = weights(whole.student)
    expected = Trainer(whole).fit()
    after = weights(whole.student)
    assert {name for name in after if not torch.equal(after[name], before[name])} == {n for n in after if "lora_" in n}
    for step in (1, 4, 6):
        killed_at(step, job(work=f"work-{step}", checkpoint_seconds=1e-9))
        for path in (tmp_path / f"work-{step}").rglob("*.safetensors"):
            names = load_file(path).keys()
            assert "optimiser" in path.name or all("lora_" in name for name in names)
            assert names
        resumed = job(seed=99, work=f"work-{step}")
        assert comparable(Trainer(resumed).fit()) == comparable(expected)
        assert same(weights(resumed.student), weights(whole.student))


@pytest.mark.parametrize("family", ["llama", "t5"])
@pytest.mark.parametrize(
    ("objective", "source"), [(MiniLLM, "roll-outs"), (TAID, "dataset"), (MiniLLM, "off-policy")], ids=str
)
def test_rounds_objectives_and_the_auxiliary_loss_go_on_too(objective, source, family, make_job):
    def job(**more):
        options = SourceOptions(rollouts=6, inner_epochs=2, probability=0.8, capacity=4)
        made = scored_by_length(make_job(family, objective(), source, options, **LENGTH, **more))
        return replace(made, auxiliary_loss=AuxiliaryLoss(LanguageModelling(0.5), 1.0, made.train[4:], 2))

    whole = job()
    expected = Trainer(whole).fit()
    for step in (1, 4, 6):
        killed_at(step, job(work=f"work-{step}", checkpoint_seconds=1e-9))
        resumed = job(work=f"work-{step}", checkpoint_seconds=1e-9, student_seed=99)
        assert comparable(Trainer(resumed).fit()) == comparable(expected)
        assert same(weights(resumed.student), weights(whole.student))
        assert resumed.objective.state_dict() == whole.objective.state_dict()


def test_steps_since_the_last_checkpoint_are_repeated(make_job):
    whole = make_job("gpt2", **DISTILLM, **LENGTH)
    expected = Trainer(whole).fit()
    for step in (2, 4, 7):  # checkpoints are written at the validations only: after steps 3, 5 and 8
        killed_at(step, make_job("gpt2", **DISTILLM, **LENGTH, work="killed", checkpoint_seconds=1000))
    last = make_job("gpt2", **DISTILLM, **LENGTH, work="killed", checkpoint_seconds=1000)
    state = Trainer(last).fit()
    assert state.resumes == 2
    assert comparable(state) == comparable(expected)
    assert same(weights(last.student), weights(whole.student))
