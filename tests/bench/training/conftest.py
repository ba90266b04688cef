import pytest

from bench.training import checkpoint


@pytest.fixture(autouse=True)
def saves_may_cost_anything(monkeypatch):
    """Trainings of a few steps save where their tests ask for it, however much of their time that takes."""
    monkeypatch.setattr(checkpoint, "MOST_OF_TIME", 1e9)
