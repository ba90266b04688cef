"""The schedules against the authors' traces and against Algorithm 1 worked out by hand."""

import json
import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillm.schedule import AdaptiveSchedule, imitation_share

GOLDEN = Path(__file__).parents[1] / "golden" / "adaptive_schedule.json"


def constant(total_steps: int, phi: float, **options) -> AdaptiveSchedule:
    return AdaptiveSchedule(total_steps=total_steps, initial_phi=phi, increment=0.0, **options)


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("resume_at", [None, 23])
def test_golden_traces(index, resume_at):
    trace = json.loads(GOLDEN.read_text())[index]

    def new_schedule() -> AdaptiveSchedule:
        return AdaptiveSchedule(
            total_steps=trace["total_steps"],
            initial_phi=trace["initial_threshold"],
            increment=trace["threshold_step"],
            epsilon=trace["epsilon"],
            replay_ratio=trace["replay_ratio"],
        )

    schedule, size = new_schedule(), 0
    schedule.observe(trace["initial_validation_loss"])
    decisions = []
    for row in trace["steps"]:
        if row["step"] == resume_at:
            state = json.loads(json.dumps(schedule.state_dict()))
            schedule = new_schedule()
            schedule.load_state_dict(state)
        assert schedule.phi == pytest.approx(row["threshold"], abs=1e-9)
        decision = schedule.decide(row["step"], row["draw"], size, trace["capacity"], trace["batch_size"])
        if decision == "generate":
            size = min(size + trace["batch_size"], trace["capacity"])
        assert size == row["buffer_size"]
        decisions.append(decision)
        if "validation_loss" in row:
            schedule.observe(row["validation_loss"])
    assert decisions == [row["source"] for row in trace["steps"]]


def test_phi_rises_with_the_loss_and_stops_at_one():
    schedule = AdaptiveSchedule(total_steps=10, increment=0.4, epsilon=0.5)
    phis = []
    for loss in (1.0, 1.4, 1.5, 1.75, 2.0, 9.0, 99.0):
        schedule.observe(loss)
        phis.append(schedule.phi)
    # 1.0 is the reference; 1.5 reaches it plus 0.5; 2.0 is measured against 1.5, not against 1.75.
    assert phis == pytest.approx([0.0, 0.0, 0.4, 0.4, 0.8, 1.0, 1.0])


def test_a_falling_loss_does_not_lower_the_reference():
    schedule = AdaptiveSchedule(total_steps=10, epsilon=0.1)
    for loss in (2.0, 1.0, 1.9):
        schedule.observe(loss)
    assert schedule.phi == 0.0
    assert schedule.reference_loss == 2.0


@pytest.mark.parametrize(
    ("replay_ratio", "generating_below"), [("decreasing", 0.6), ("constant", 0.4), ("increasing", 0.2)]
)
def test_a_full_buffer_splits_phi_between_generating_and_replaying(replay_ratio, generating_below):
    # φ = 0.8 a quarter into the run.
    schedule = constant(100, 0.8, replay_ratio=replay_ratio)
    full = {"buffer_size": 16, "capacity": 16, "batch_size": 4}
    assert schedule.decide(25, generating_below - 1e-6, **full) == "generate"
    assert schedule.decide(25, generating_below + 1e-6, **full) == "replay"
    assert schedule.decide(25, 0.8 - 1e-6, **full) == "replay"
    assert schedule.decide(25, 0.8, **full) == "dataset"


@pytest.mark.parametrize(("size", "capacity"), [(0, 16), (15, 16), (17, 16), (3, 3), (0, 3)])
def test_no_replay_from_a_buffer_that_is_not_full_or_holds_no_batch(size, capacity):
    schedule = constant(100, 0.8)
    assert schedule.decide(100, 0.5, size, capacity, batch_size=4) == "generate"
    assert schedule.decide(100, 0.9, size, capacity, batch_size=4) == "dataset"


@given(draw=st.floats(0, 1, exclude_max=True), step=st.integers(1, 50), size=st.integers(0, 16))
def test_probabilities_zero_and_one(draw, step, size):
    assert constant(50, 0.0).decide(step, draw, size, 16, 4) == "dataset"
    assert constant(50, 1.0).decide(step, draw, size, 16, 4) != "dataset"


def test_shares_over_many_draws():
    schedule, rng = constant(2, 0.6, replay_ratio="decreasing"), random.Random(0)
    decisions = [schedule.decide(1, rng.random(), 8, 8, 4) for _ in range(20_000)]
    shares = [decisions.count(name) / len(decisions) for name in ("dataset", "generate", "replay")]
    assert shares == pytest.approx([0.4, 0.3, 0.3], abs=0.015)


def test_a_constant_schedule_stays():
    schedule = constant(10, 0.5)
    for loss in (1.0, 5.0, 50.0):
        schedule.observe(loss)
    assert schedule.phi == 0.5
    for state in (schedule.state_dict(), {}):  # earlier versions kept nothing of it
        schedule.load_state_dict(state)
        assert schedule.phi == 0.5


def test_imitkds_students_share_rises_to_all_but_the_final_share_of_the_data_set():
    # r = 0.01 over 10 steps: the data set's share is 0.01^(i/10)
    assert [imitation_share(step, 10, 0.01) for step in (0, 1, 5, 10)] == pytest.approx([0.0, 0.3690427, 0.9, 0.99])
    assert imitation_share(7, 10, 1.0) == 0.0


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("increment", [0.0, 0.1])
def test_a_loss_that_is_not_finite_is_refused(increment, loss):
    schedule = AdaptiveSchedule(total_steps=10, increment=increment)
    with pytest.raises(ValueError, match=f"validation loss must be finite, got {loss}"):
        schedule.observe(loss)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"total_steps": 0}, "total_steps must be at least 1, got 0"),
        ({"initial_phi": 1.1}, r"initial_phi must lie in \[0, 1\], got 1.1"),
        ({"increment": -0.1}, r"increment must lie in \[0, 1\], got -0.1"),
        ({"epsilon": -0.1}, "epsilon must be finite and at least 0, got -0.1"),
        ({"epsilon": math.nan}, "epsilon must be finite and at least 0, got nan"),
        ({"replay_ratio": "sideways"}, "replay_ratio must be one of decreasing, .* got 'sideways'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveSchedule(**{"total_steps": 10, **options})
