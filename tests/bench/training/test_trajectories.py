"""Twelve steps of every method give the numbers they gave before: `tests/golden/trajectories.json`."""

import json

import pytest

from tests.make_golden import FAMILIES, GOLDEN, METHODS, STEPS, pinned_job, trajectory

PINNED = json.loads((GOLDEN / "trajectories.json").read_text())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_takes_the_pinned_steps(method, family, tokenizers, tmp_path):
    pinned = PINNED[family][method.name]
    found = trajectory(pinned_job(tokenizers, family, method, tmp_path))
    assert len(found["loss"]) == STEPS
    for name, values in pinned.items():
        # another processor or number of threads rounds otherwise, and the steps carry that on
        assert found[name] == pytest.approx(values, rel=1e-4), f"{name}; if it is meant to change: tests/make_golden.py"


def test_every_method_is_pinned():
    assert {family: list(pinned) for family, pinned in PINNED.items()} == {
        family: [method.name for method in METHODS] for family in FAMILIES
    }
