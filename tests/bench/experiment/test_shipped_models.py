"""The tiny teachers that ship: unchanged files, and the score on their card."""

from __future__ import annotations

import pytest
from rich.console import Console

from bench.config.resolve import resolve
from bench.data import TASKS
from bench.experiment import stages
from bench.experiment.context import prepare
from bench.experiment.shipped_models import CARD, PRETRAINING, intact, shipped
from bench.experiment.stages import Workshop
from bench.synthetic import shipped_student, shipped_teacher
from bench.system.artifacts import ArtifactCache
from bench.system.files import read_json
from bench.system.progress import Reporter


@pytest.mark.parametrize("task", list(TASKS))
def test_checksums(task):
    assert intact(task)


def test_a_changed_file_is_noticed(tmp_path, monkeypatch):
    import shutil

    copy = tmp_path / "samsum"
    shutil.copytree(shipped_teacher("samsum"), copy)
    monkeypatch.setattr("bench.experiment.shipped_models.shipped_teacher", lambda task: copy)
    assert intact("samsum")
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert not intact("samsum")


def test_they_are_small():
    sizes = [path.stat().st_size for task in TASKS for folder in shipped(task) for path in folder.iterdir()]
    assert sum(sizes) < 11_000_000


@pytest.mark.slow
@pytest.mark.parametrize("folder", [f for task in TASKS for f in shipped(task)], ids=lambda folder: folder.name)
def test_the_score_on_the_card(folder, tmp_path):
    """Measured again with the same decoding seeds; another CPU or version may round, and so sample, differently."""
    card = read_json(folder / CARD)
    task = card["task"]
    config, method = resolve(preset="tiny", task=task, method="sft", device="cpu")
    reporter = Reporter(Console(stderr=True), quiet=True)
    workshop = Workshop(ArtifactCache(tmp_path, reporter.note), reporter)
    context = prepare(config, method, workshop.cache)
    scores = stages.scores(context, workshop, str(folder), "shipped-model")
    for name, score in card["scores"].items():
        assert scores[name].primary.mean == pytest.approx(score, abs=1.5), name
    assert card["metric"] == context.metric_infos[0].signature
    training = PRETRAINING[task] if folder == shipped_student(task) else config.teacher_training
    assert card["training"] == training.model_dump(mode="json"), "made with other settings than today's"
