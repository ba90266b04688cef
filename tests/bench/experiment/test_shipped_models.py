"""The tiny teachers that ship: unchanged files, and the score on their card."""

from __future__ import annotations

import pytest
from rich.console import Console

from bench.config.resolve import resolve
from bench.data import TASKS
from bench.experiment import stages
from bench.experiment.context import prepare
from bench.experiment.identity import model_path
from bench.experiment.shipped_models import CARD, PRETRAINING, intact, shipped
from bench.experiment.workshop import Workshop
from bench.models.loading import load_architecture
from bench.synthetic import shipped_student, shipped_teacher
from bench.system.artifacts import ArtifactCache
from bench.system.errors import BenchError
from bench.system.files import read_json
from bench.system.progress import Reporter
from tests.conftest import invoke


@pytest.mark.parametrize("task", list(TASKS))
def test_checksums(task):
    assert intact(task)


def test_a_changed_file_is_noticed(tmp_path, monkeypatch):
    import shutil

    copy = tmp_path / "samsum"
    shutil.copytree(shipped_teacher("samsum"), copy)
    others = shipped("samsum")[1:]
    monkeypatch.setattr("bench.experiment.shipped_models.shipped", lambda task: [copy, *others])
    assert intact("samsum")
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert not intact("samsum")


def test_they_are_small():
    sizes = [path.stat().st_size for task in TASKS for folder in shipped(task) for path in folder.iterdir()]
    assert sum(sizes) < 14_000_000


@pytest.mark.parametrize(("task", "pair"), [("samsum", "tiny-t5"), ("iwslt", "tiny-marian")])
def test_the_second_size_of_student_has_half_the_width(task, pair):
    large, small = (load_architecture(str(shipped_student(task, name))) for name in ("shipped", "shipped-small"))
    assert small.hidden_size * 2 == large.hidden_size
    assert small.num_hidden_layers == large.num_hidden_layers
    config, _ = resolve(preset="tiny", task=task, method="kld", models=f"{pair}-small")
    assert model_path(config, "student") == str(shipped_student(task, "shipped-small"))
    assert config.training == resolve(preset="tiny", task=task, method="kld")[0].training


def test_a_model_that_does_not_ship_is_refused(tmp_path):
    result = invoke("make-teachers", "dolly", "--only", "student-small", "--to", str(tmp_path))
    assert result.exit_code == 2
    assert "dolly has no student-small: teacher, teacher-early, student" in result.stderr
    config, _ = resolve(preset="tiny", task="dolly", method="kld", assignments=["models.student=shipped-small"])
    with pytest.raises(BenchError, match="no student for dolly is shipped"):
        model_path(config, "student")


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
    training = PRETRAINING[task] if "student" in folder.name else config.teacher_training
    if folder.name.endswith("early"):
        training = training.model_copy(update={"steps": 600})
    assert card["training"] == training.model_dump(mode="json"), "made with other settings than today's"
