"""Keys of what runs share: they decide what is found in users' caches, and change with a change that is meant to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from bench.config.resolve import resolve
from bench.experiment import stages
from bench.models.tokenizer import LengthLimits
from bench.record.record import MetricInfo
from bench.system.files import write_json
from bench.system.hashing import digest

OTHERWISE = ("precision=bf16", "score_on=validation", "fidelity.train_without_bos=true")
PINNED = {
    (): {
        "teacher": "08d0e2f1ba2902b1",
        "init-student": "5a45f5b8dd7a9db2",
        "teacher-scores": "1dcfade5c6d2207a",
        "teacher-responses": "2d17833959e732cf",
    },
    OTHERWISE: {
        "teacher": "558e2bbb0838fd50",
        "init-student": "94e1d7e70f4850a8",
        "teacher-scores": "0d9fa7357f96ae27",
        "teacher-responses": "374e6bc35741df43",
    },
}


@pytest.mark.parametrize("assignments", PINNED)
def test_keys_of_artifacts_stay_as_they_are(monkeypatch, tmp_path, assignments):
    """Of a context whose ingredients are named, so that no file, library or release changes them."""
    settings = ("models.teacher=scratch", *assignments)
    config, _ = resolve(preset="tiny", task="samsum", method="seqkd", init="sft", device="cpu", assignments=settings)
    context = SimpleNamespace(
        config=config,
        device=torch.device("cpu"),
        tokenizer=SimpleNamespace(fingerprint="of the tokenizer", kind=config.models.kind),
        added_key={"entries": [40, 48]},
        data_fingerprint="of the data",
        limits=LengthLimits(96, 32),
        metric_infos=[MetricInfo(name="rouge_l", label="ROUGE-L", signature="rouge", file="of/no/matter.py")],
        run_key={"models": {"teacher": "of the teacher", "student": "of the student"}},
        sequences={"train": []},
    )
    keys = {}

    def make(kind, key, build):
        keys[kind] = digest(key)[:16]
        write_json(tmp_path / kind / "scores.json", {})
        return tmp_path / kind

    monkeypatch.setattr(stages, "__version__", "1.2.3")
    monkeypatch.setattr(stages, "model_fingerprint", lambda path: f"files of {path.rpartition('/')[2]}")
    workshop = SimpleNamespace(make=make, processes=None)
    teacher = stages.teacher(context, workshop)
    stages.init_student(context, workshop)
    stages.scores(context, workshop, teacher, "teacher")
    stages.teacher_responses(context, workshop, teacher)
    assert keys == PINNED[assignments]
