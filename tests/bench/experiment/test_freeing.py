"""A model is there while its stage needs it, and no longer; teacher's responses outlive a killed process."""

import gc
import weakref

import pytest
import torch

from bench.config.resolve import resolve
from bench.experiment import stages
from bench.experiment.context import prepare
from bench.experiment.pair import frozen
from bench.experiment.run import run
from bench.experiment.workshop import Workshop
from bench.models.language_model import LanguageModel
from bench.record.store import Store
from bench.system.artifacts import ArtifactCache
from bench.system.progress import Reporter
from bench.system.terminal import console
from tests.conftest import SHORT

FEW = SHORT | {"training.steps": 3, "init_training.steps": 3, "data.max_train": 20, "evaluation.batch_size": 8}


def configured(method, **changes):
    given = [f"{key}={value}" for key, value in (FEW | changes).items()]
    return resolve(preset="tiny", task="dolly", method=method, assignments=given)


@pytest.fixture
def workshop(tmp_path):
    reporter = Reporter(console(err=True), quiet=True, title="")
    return Workshop(ArtifactCache(tmp_path / "cache", reporter.note), reporter)


@pytest.fixture
def living(monkeypatch):
    """How many networks there were whenever another was made, with the type of its weights."""
    networks, counted = weakref.WeakSet(), []
    made = LanguageModel.__post_init__

    def noting(self):
        made(self)
        networks.add(self.network)
        counted.append((len(networks), self.network.dtype))

    monkeypatch.setattr(LanguageModel, "__post_init__", noting)
    gc.disable()  # they go when their stage is over, and not when the collector comes by
    yield networks, counted
    gc.enable()


def test_a_stage_frees_its_model_before_the_next_loads_one(living, workshop, tmp_path):
    networks, counted = living
    config, method = configured("seqkd", **{"precision": "bf16"})
    run(config, method, Store(tmp_path / "out"), workshop)
    # teacher's scores, its responses, fine-tuning, init student's scores: one at a time; then the student
    assert [count for count, _ in counted] == [1] * len(counted)
    assert [dtype for _, dtype in counted][:2] == [torch.bfloat16] * 2
    assert counted[-1][1] == torch.float32
    assert not list(networks)


def test_a_distillation_holds_teacher_and_student(living, workshop, tmp_path):
    networks, counted = living
    config, method = configured("srkl")
    run(config, method, Store(tmp_path / "out"), workshop)
    assert [count for count, _ in counted][-2:] == [1, 2]
    assert max(count for count, _ in counted) == 2
    assert not list(networks)


def test_responses_of_the_teacher_go_on_where_a_killed_process_was(workshop, monkeypatch):
    config, method = configured("seqkd")
    context = prepare(config, method, workshop.cache)
    path = stages.teacher(context, workshop)
    sample, asked = LanguageModel.sample, []

    def dying(self, sequences, *arguments, **options):
        asked.append(len(sequences))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return sample(self, sequences, *arguments, **options)

    monkeypatch.setattr(LanguageModel, "sample", dying)
    with pytest.raises(KeyboardInterrupt):
        stages.training_sequences(context, stages.teacher_responses(context, workshop, path))
    found = stages.training_sequences(context, stages.teacher_responses(context, workshop, path))
    assert asked == [8, 8, 4, 4], "batches that were done are not made again"
    monkeypatch.setattr(LanguageModel, "sample", sample)
    model = frozen(context, path)
    train = context.sequences["train"]
    whole = model.sample(
        train, stages.Decoding(context.limits.response), "teacher responses", batch_size=config.evaluation.batch_size
    )
    assert [s.response for s in found] == whole
    assert [(s.id, s.prompt) for s in found] == [(s.id, s.prompt) for s in train]
    assert not list(workshop.cache.root.glob("teacher-responses/*/work"))
