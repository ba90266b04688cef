"""Experiment trackers: what arrives at a real one, and that none of their failures reaches the run."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from accelerate import tracking as accelerates
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bench.experiment import tracking
from bench.record.store import Store
from tests.conftest import invoke, record_of, short

pytestmark = pytest.mark.usefixtures("cache")
WORDS = ["run", "--method", "distillm", "--task", "iwslt"]


def test_tensorboard_has_the_curve_and_the_scores_of_the_record(tmp_path):
    record = record_of(*WORDS, "--out", str(tmp_path), *short(tracking="tensorboard"))
    (folder,) = (tmp_path / "tracking").iterdir()
    assert folder.name == record.run_id
    events = EventAccumulator(str(folder))
    events.Reload()
    curve = {point["step"]: point["loss"] for point in record.curve}
    assert {one.step: one.value for one in events.Scalars("loss")} == pytest.approx(curve, rel=1e-6)
    validated = {row.step: row.loss for row in record.validations}
    assert {one.step: one.value for one in events.Scalars("validation_loss")} == pytest.approx(validated, rel=1e-6)
    (final,) = events.Scalars("test_bleu")
    assert (final.step, final.value) == (record.training.steps, pytest.approx(record.scores["test"].primary.mean))
    assert "phi" in events.Tags()["scalars"]
    # a tracker makes no other run
    plain = record_of(*WORDS, "--out", str(tmp_path), *short())
    assert plain.run_id == record.run_id
    assert len(list(Store(tmp_path).all())) == 1


@dataclass
class Failing:
    """A tracker that fails at some call."""

    project: str
    fails_at: str
    calls: int = 0

    def start(self):
        self._maybe("start")

    def store_init_configuration(self, values):
        self._maybe("store_init_configuration")

    def log(self, values, step):
        self.calls += 1
        if self.calls == 2:
            self._maybe("log")

    def finish(self):
        self._maybe("finish")

    def _maybe(self, name):
        if name == self.fails_at:
            raise ConnectionError("no such service")


@pytest.mark.parametrize("at", ["start", "store_init_configuration", "log", "finish"])
def test_a_tracker_that_fails_is_told_once_and_the_run_goes_on(tmp_path, monkeypatch, at):
    monkeypatch.setitem(accelerates.LOGGER_TYPE_TO_CLASS, "wandb", lambda project, **_: Failing(project, at))
    monkeypatch.setitem(tracking.PACKAGES, "wandb", ("accelerate",))
    result = invoke(*WORDS, "--out", str(tmp_path), *short(tracking="wandb"))
    assert result.exit_code == 0, result.output
    told = " ".join(result.stderr.split())
    assert told.count("the tracker failed, and the run goes on without it: ConnectionError: no such service") == 1
    assert len(list(Store(tmp_path).all())) == 1


def test_a_tracker_that_is_not_installed_is_told_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(tracking.PACKAGES, "mlflow", ("no_such_package",))
    result = invoke(*WORDS, "--out", str(tmp_path), *short(tracking="mlflow"))
    assert result.exit_code == 2
    assert "tracking=mlflow needs no_such_package: pip install no_such_package" in result.stderr
    assert not list(tmp_path.glob("runs/*/record.json"))
