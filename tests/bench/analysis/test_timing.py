"""Which time may be shown: that of runs with nothing else running, on one hardware."""

from __future__ import annotations

import pytest

from bench.analysis.timing import (
    hardware,
    has_exclusive_timing,
    slow_few,
    slow_runs,
    step_spread,
    usual_hardware,
)
from tests.records import altered, make_record


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"other_load": 0.0}, True),
        ({"other_load": 0.1}, True),  # of the record's two cores, 5 %
        ({"other_load": 0.11}, False),
        ({"other_load": None}, False),
        ({"other_load": 0.0, "resumes": 1}, False),
    ],
)
def test_whether_a_time_may_stand_in_a_table(fields, verdict):
    assert has_exclusive_timing(make_record(**fields)[0]) is verdict


@pytest.mark.parametrize(
    ("on_gpu", "load", "cores", "verdict"),
    [
        (0, 9.0, 16, True),  # others are busy on the host, and leave cores free
        (0, 14.5, 16, False),
        (1, 0.0, 16, False),
        (None, 0.5, 16, True),  # nobody knows who used the GPU: nothing else on the machine
        (None, 1.0, 16, False),
    ],
)
def test_on_a_gpu_it_counts_who_used_that_gpu(on_gpu, load, cores, verdict):
    record, _ = make_record(other_load=load)
    on = record.environment.model_copy(update={"other_gpu_processes": on_gpu, "cpu_cores": cores})
    assert has_exclusive_timing(record.model_copy(update={"environment": on})) is verdict


@pytest.mark.parametrize(("threads", "expected"), [((2, 1, 1), 1), ((2, 2, 1), 2), ((1, 2), 2), ((), None)])
def test_the_usual_hardware_is_that_of_most_exclusively_timed_runs_then_of_the_latest(threads, expected):
    made = [make_record(seed=number, other_load=0.0)[0] for number in range(len(threads))]
    made += [make_record(seed=99, other_load=1.0)[0] for _ in range(5)]
    records = [
        record.model_copy(
            update={
                "environment": record.environment.model_copy(update={"threads": its}),
                "started": f"2026-01-02T03:04:{number:02d}+00:00",
            }
        )
        for number, (record, its) in enumerate(zip(made, (*threads, *[64] * 5), strict=True))
    ]
    usual = usual_hardware(records)
    assert usual is None if expected is None else usual.threads == expected


def test_a_run_that_is_not_sharded_is_so_whether_its_version_says_no_or_nothing():
    said, unsaid, sharded = (altered(make_record()[0], environment__sharded=one) for one in (False, None, True))
    assert hardware(said) == hardware(unsaid) != hardware(sharded)


def timed(seed: int, seconds: float, **steps: tuple[int, float]):
    """A run by seconds of training, and number and median of its steps by kind."""
    plain = {kind: {"count": count, "median": median} for kind, (count, median) in steps.items()}
    return altered(make_record(seed=seed)[0], time__training_seconds=seconds, time__steps=plain)


@pytest.mark.parametrize(
    ("runs", "slow"),
    [
        ([(20.0, 0.05), (20.2, 0.05), (24.0, 0.05)], {30: 0.194}),  # something came between
        ([(20.0, 0.05), (20.2, 0.05), (24.0, 0.06)], {30: 0.194}),  # every step was slower
        ([(20.0, 0.05), (20.2, 0.05), (20.9, 0.05)], {}),  # within 5 %
        ([(20.0, 0.05), (22.0, 0.05), (23.5, 0.05)], {}),  # no further away than the others are apart
        # two that were slow do not hide each other
        ([(20.0, 0.05), (20.2, 0.05), (20.4, 0.05), (25.0, 0.05), (26.0, 0.05)], {40: 0.232, 50: 0.281}),
        ([(20.0, 0.05), (30.0, 0.05)], {}),  # which of them was slow, nobody knows
    ],
)
def test_a_run_slower_than_the_others_of_its_arm_by_more_than_their_spread(runs, slow):
    records = [timed(10 * n, seconds, dataset=(400, median)) for n, (seconds, median) in enumerate(runs, start=1)]
    found = slow_runs(records)
    assert {r.seed: found[r.run_id] for r in records if r.run_id in found} == pytest.approx(slow, abs=1e-3)


def test_a_run_that_generates_more_is_not_slow_for_that():
    records = [
        timed(
            seed, (400 - generated) * 0.05 + generated * 0.5, dataset=(400 - generated, 0.05), generate=(generated, 0.5)
        )
        for seed, generated in ((10, 20), (20, 25), (30, 100))
    ]
    assert not slow_runs(records)
    records[2] = altered(records[2], time__training_seconds=1.1 * records[2].time.training_seconds)
    assert list(slow_runs(records)) == [records[2].run_id]
    unknown = [altered(record, time__steps={}) for record in records]
    assert not slow_runs(unknown)


def arm(method: str, *medians: float, teacher: float = 1.0, source: str = "dataset", kind: str = "dataset"):
    """An arm's runs by the median of their steps, with the seconds of the teacher's passes."""
    steps = [{kind: {"count": 400, "median": median}} for median in medians]
    phases = {"student": 10.0, "teacher": teacher}
    return [
        altered(make_record(method, seed=seed, sgo=source)[0], time__steps=one, time__phases=phases)
        for seed, one in enumerate(steps, start=1)
    ]


def test_an_arm_of_few_runs_is_judged_by_other_arms_of_the_same_kind_of_step():
    others = [arm("kld", 0.034, 0.035, 0.036), arm("rkld", 0.033), arm("jsd", 0.0355), arm("skl", 0.035)]
    slow, cheap = arm("srkl", 0.040), arm("sft", 0.016, teacher=0.0)
    on_policy = arm("imitkd", 0.09, source="on-policy", kind="generate")
    found = slow_few([*others, slow, cheap, on_policy])
    assert found == {slow[0].run_id: pytest.approx(0.14, abs=0.01)}
    assert not slow_few([*others, arm("srkl", 0.036)]), "within what the others differ by"
    assert not slow_few([*others[:2], slow]), "of three arms nobody knows which is slow"
    assert not slow_few([*others, arm("srkl", 0.040, 0.041, 0.040)]), "three runs speak for themselves"


def test_how_well_an_arms_steps_repeat():
    assert step_spread(arm("kld", 0.100, 0.098, 0.103)) == pytest.approx(0.05)
    assert step_spread(arm("kld", 0.1)) is None
    mixed = [timed(10, 20.0, dataset=(300, 0.03), generate=(100, 0.09))]
    mixed += [timed(20, 20.0, dataset=(100, 0.03), generate=(300, 0.09))]
    assert step_spread(mixed) == pytest.approx(0.0), "another number of steps of a kind is no slower one"
