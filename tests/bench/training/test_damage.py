"""Checkpoints whose bytes changed on disk: named, never read, and the training still ends in the same numbers."""

from dataclasses import replace

import pytest

from bench.training.trainer import Trainer
from distillm import SourceOptions
from tests.tiny import same, weights

DISTILLM = {"source": "adaptive-off-policy", "options": SourceOptions(initial_phi=0.8, capacity=4, epsilon=0.0)}
LENGTH = {"steps": 6, "validations": 3, "learning_rate": 0.02, "select_by": "loss", "checkpoint_seconds": 1e-9}


class Killed(Exception):
    """Stands for the end of the process."""


def flip(path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "optimiser.safetensors", "state.json", "checksums.json", "../best-00000004.safetensors"],
)
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_checkpoint_is_named_and_dropped(name, damage, make_job):
    whole = make_job("llama", **DISTILLM, **LENGTH)
    expected = Trainer(whole).fit()

    def kill(step, total, figures):
        if step == 5:
            raise Killed

    job = replace(make_job("llama", **DISTILLM, **LENGTH, work="killed"), on_step=kill)
    with pytest.raises(Killed):
        Trainer(job).fit()
    (checkpoint,) = job.work.glob("step-*")
    path = checkpoint / name
    if damage == "flipped":
        flip(path, path.stat().st_size // 2)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.unlink()
    notes = []
    again = replace(make_job("llama", **DISTILLM, **LENGTH, work="killed"), note=notes.append)
    state = Trainer(again).fit()
    assert state.resumes == 0
    assert any(str(checkpoint) in note and "damaged" in note for note in notes)
    assert (state.validations, state.curve) == (expected.validations, expected.curve)
    assert same(weights(again.student), weights(whole.student))


def test_a_sound_checkpoint_is_not_dropped(make_job):
    notes = []
    job = replace(make_job("llama", **DISTILLM, **LENGTH), note=notes.append)
    Trainer(job).fit()
    resumed = replace(make_job("llama", **DISTILLM, **LENGTH), note=notes.append)
    assert Trainer(resumed).fit().resumes == 1
    assert not notes
