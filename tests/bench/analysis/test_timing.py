"""Which time may be shown: that of runs with nothing else running, on one hardware."""

from __future__ import annotations

import pytest

from bench.analysis.timing import has_exclusive_timing, usual_hardware
from tests.records import make_record


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
