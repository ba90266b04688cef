"""Output sources against the authors' traces, and their options and state."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from distillm import SOURCES, OutputSource, SourceOptions, TokenSequence
from tests.drawn import Drawn

GOLDEN = Path(__file__).parents[1] / "golden" / "adaptive_schedule.json"


@dataclass
class Step:
    """A training step with responses that say when they were made."""

    step: int
    batch: list[TokenSequence]
    rng: random.Random

    def generate(self, batch: list[TokenSequence]) -> list[TokenSequence]:
        return [s.with_response((self.step, 2), sampled_at_step=self.step) for s in batch]

    def peek_batches(self, count: int) -> list[list[TokenSequence]]:
        return [
            [TokenSequence(f"{self.step + k}-{i}", (5,), (6, 2)) for i in range(len(self.batch))] for k in range(count)
        ]


def step(number: int, draw: float, batch_size: int = 2) -> Step:
    return Step(number, [TokenSequence(f"{number}-{i}", (5,), (6, 2)) for i in range(batch_size)], Drawn(draw))


@pytest.mark.parametrize("index", range(4))
def test_golden_traces(index):
    trace = json.loads(GOLDEN.read_text())[index]
    options = SourceOptions(
        initial_phi=trace["initial_threshold"],
        phi_step=trace["threshold_step"],
        epsilon=trace["epsilon"],
        capacity=trace["capacity"],
        replay_ratio=trace["replay_ratio"],
    )
    sizes = {"total_steps": trace["total_steps"], "batch_size": trace["batch_size"]}
    source = OutputSource("adaptive-off-policy", options, **sizes)
    source.observe(trace["initial_validation_loss"])
    for row in trace["steps"]:
        assert source.phi == pytest.approx(row["threshold"], abs=1e-9)
        context = step(row["step"], row["draw"], trace["batch_size"])
        sourced = source.next(context)
        assert sourced.decision == row["source"]
        assert source.buffer_size == row["buffer_size"]
        assert_consistent(sourced, context)
        if "validation_loss" in row:
            source.observe(row["validation_loss"])


def assert_consistent(sourced, context, paired=False):
    """The batch is what the decision says."""
    trained_on = sourced.batch
    if paired:
        assert trained_on[: len(context.batch)] == context.batch
        trained_on = trained_on[len(context.batch) :]
    assert len(trained_on) == len(context.batch)
    sampled_at_step = [s.sampled_at_step for s in trained_on]
    if sourced.decision == "dataset":
        assert sourced.batch == context.batch
        assert sourced.ages == []
    else:
        assert sourced.ages == [context.step - made for made in sampled_at_step]
        assert all(s.response == (s.sampled_at_step, 2) for s in trained_on)
        assert all(age == 0 for age in sourced.ages) == (sourced.decision == "generate")


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(("draw", "below_half"), [(0.49, True), (0.51, False)])
def test_what_each_source_gives_first(name, draw, below_half):
    options = SourceOptions(probability=0.5, initial_phi=0.5)
    source = OutputSource(name, options, total_steps=10, batch_size=2)
    context = step(1, draw)
    sourced = source.next(context)
    generates = {"never": False, "always": True}.get(SOURCES[name].phi, below_half)
    assert sourced.decision == ("generate" if generates else "dataset")
    assert_consistent(sourced, context, SOURCES[name].paired)
    assert source.buffer_size == (2 if generates and SOURCES[name].buffered else 0)


def test_a_full_buffer_is_replayed_from():
    source = OutputSource("off-policy", SourceOptions(probability=1.0, capacity=4), total_steps=4, batch_size=2)
    # Decreasing: at step t of 4 draws from 1 - t/4 on replay, once the buffer is full.
    decisions = []
    for number, draw in [(1, 0.9), (2, 0.9), (3, 0.2), (4, 0.0)]:
        context = step(number, draw)
        sourced = source.next(context)
        assert_consistent(sourced, context)
        decisions.append(sourced.decision)
    assert decisions == ["generate", "generate", "generate", "replay"]
    assert {s.sampled_at_step for s in source.next(step(4, 0.5)).batch} <= {2, 3}  # the oldest went


class Annotating(Step):
    """Every response is made with log-probabilities of its own, as a roll-out is."""

    def generate(self, batch: list[TokenSequence]) -> list[TokenSequence]:
        return [
            TokenSequence(s.id, s.prompt, (self.step, 2), self.step, {"student": (-float(self.step), -float(i))})
            for i, s in enumerate(batch)
        ]


@pytest.mark.parametrize(
    ("name", "extra"), [("off-policy", {}), ("adaptive-off-policy", {}), ("on-policy", {"replays_fresh": True})]
)
def test_what_is_replayed_is_what_was_pushed_annotations_included(name, extra):
    # without its token_values a roll-out would lose MiniLLM's policy loss when it is replayed
    options = SourceOptions(probability=1.0, initial_phi=1.0, capacity=4)
    source = OutputSource(name, options, total_steps=4, batch_size=2, **extra)
    replayed = 0
    for number in range(1, 7):
        plain = step(min(number, 4), 0.9)
        sourced = source.next(Annotating(plain.step, plain.batch, plain.rng))
        held = source.buffer.items
        assert all(made in held and made.token_values["student"][0] == -made.sampled_at_step for made in sourced.batch)
        replayed += sourced.decision == "replay"
    assert replayed >= 1


def test_a_round_is_every_response_once_per_inner_epoch_each_in_a_new_order():
    source = OutputSource("roll-outs", SourceOptions(rollouts=6, inner_epochs=3), total_steps=20, batch_size=2)
    seen, decisions = [], []
    for number in range(1, 19):
        sourced = source.next(step(number, 0.5))
        seen.append([s.id for s in sourced.batch])
        decisions.append(sourced.decision)
        assert sourced.ages == [(number - 1) % 9] * 2
    assert decisions == (["generate"] + ["replay"] * 8) * 2
    for first, batches in ((1, seen[:9]), (10, seen[9:])):  # two rounds of three batches three times
        everyone = [f"{first + k}-{i}" for k in range(3) for i in range(2)]
        epochs = [[one for batch in batches[start : start + 3] for one in batch] for start in (0, 3, 6)]
        assert all(sorted(epoch) == everyone for epoch in epochs)
        # the first epoch too: in the order of sampling, prompts of like length would stay together
        assert len({tuple(epoch) for epoch in (everyone, *epochs)}) == 4


@pytest.mark.parametrize("name", ["mixed", "off-policy"])
def test_imitkds_decay_moves_phi_with_the_step(name):
    options = SourceOptions(final_data_share=0.0625, probability=0.9)
    source = OutputSource(name, options, total_steps=4, batch_size=2)
    # the data set's share falls as 0.0625^(t/4): a half, a quarter, an eighth, a sixteenth
    for number, share in enumerate((0.5, 0.25, 0.125, 0.0625), start=1):
        phi = 1.0 - share
        assert source.next(step(number, phi - 0.01)).decision == "generate"
        assert source.phi == pytest.approx(phi)
        assert source.next(step(number, phi + 0.01)).decision == "dataset"


@pytest.mark.parametrize("name", [name for name, rule in SOURCES.items() if rule.phi != "constant"])
def test_imitkds_decay_leaves_the_other_sources_alone(name):
    source = OutputSource(name, SourceOptions(final_data_share=0.5, initial_phi=0.3), total_steps=4, batch_size=2)
    before = source.phi
    source.next(step(3, 0.5))
    assert source.phi == before == {"never": 0.0, "always": 1.0, "adaptive": 0.3}[SOURCES[name].phi]


def test_a_source_takes_one_draw_from_each_step():
    after = []
    for name, rule in SOURCES.items():
        if not rule.rounds:  # a round is also shuffled
            rng = random.Random(3)
            OutputSource(name, SourceOptions(), total_steps=4, batch_size=2).next(Step(1, step(1, 0.0).batch, rng))
            after.append(rng.random())
    assert len(set(after)) == 1


def test_a_state_goes_through_json():
    options = SourceOptions(initial_phi=0.8, capacity=4, epsilon=0.0)

    def new() -> OutputSource:
        return OutputSource("adaptive-off-policy", options, total_steps=40, batch_size=2)

    source, resumed, rng = new(), new(), random.Random(0)
    source.observe(1.0)
    for number in range(1, 41):
        draw = rng.random()
        if number % 4 == 0:
            resumed = new()
            resumed.load_state_dict(json.loads(json.dumps(source.state_dict())))
            assert resumed.state_dict() == source.state_dict()
            assert resumed.next(step(number, draw)) == source.next(step(number, draw))
            source.observe(number)
        else:
            source.next(step(number, draw))
    assert source.phi == 1.0


def test_annotations_are_part_of_the_state():
    source = OutputSource("off-policy", SourceOptions(), total_steps=4, batch_size=1)
    annotated = TokenSequence("a", (5,), (6, 2), 3, {"log_probability": (-0.5, -1.25)})
    source.buffer.push([annotated])
    resumed = OutputSource("off-policy", SourceOptions(), total_steps=4, batch_size=1)
    resumed.load_state_dict(json.loads(json.dumps(source.state_dict())))
    assert resumed.buffer.items == [annotated]


@pytest.mark.parametrize("name", SOURCES)
def test_a_buffer_smaller_than_a_batch_is_refused(name):
    sizes = {"total_steps": 4, "batch_size": 3}
    OutputSource(name, SourceOptions(capacity=3), **sizes)
    if SOURCES[name].buffered:
        with pytest.raises(ValueError, match="capacity 2 is smaller than the batch of 3: no batch could be drawn"):
            OutputSource(name, SourceOptions(capacity=2), **sizes)
    else:
        OutputSource(name, SourceOptions(capacity=2), **sizes)


def test_an_unknown_source_is_refused():
    with pytest.raises(ValueError, match="unknown output source 'off'; known: dataset, teacher, on-policy"):
        OutputSource("off", SourceOptions(), total_steps=4, batch_size=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probability": 1.1}, r"probability must lie in \[0, 1\], got 1.1"),
        ({"initial_phi": -0.1}, r"initial_phi must lie in \[0, 1\], got -0.1"),
        ({"phi_step": 2.0}, r"phi_step must lie in \[0, 1\], got 2.0"),
        ({"phi_step": float("nan")}, r"phi_step must lie in \[0, 1\], got nan"),
        ({"epsilon": -0.1}, "epsilon must be 0 or more, got -0.1"),
        ({"capacity": 0}, "capacity must be at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SourceOptions(**options)


@pytest.mark.parametrize("options", [{"epsilon": float("nan")}, {"epsilon": float("inf")}, {"replay_ratio": "odd"}])
@pytest.mark.parametrize("name", ["adaptive", "adaptive-off-policy"])
def test_options_the_schedule_cannot_take_are_refused(name, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        OutputSource(name, SourceOptions(**options), total_steps=4, batch_size=2)


def test_the_limits_of_the_ranges_are_allowed():
    SourceOptions(probability=0.0, initial_phi=1.0, phi_step=1.0, epsilon=0.0, capacity=1)
