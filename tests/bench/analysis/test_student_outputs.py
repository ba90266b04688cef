"""Runs with adaptive φ that never trained on a student output."""

from __future__ import annotations

from bench.analysis.student_outputs import none_used
from tests.records import make_record


def test_runs_whose_probability_stayed_zero_are_counted():
    fixed, without, some = (make_record(m, phi=phi)[0] for m, phi in (("srkl", 0), ("distillm", 0), ("distillm", 0.1)))
    assert none_used([fixed, some]) == ""
    assert none_used([fixed, without]).startswith("in its one run φ stayed 0")
    assert none_used([fixed, without, some, some]).startswith("in 1 of 3 runs φ stayed 0")
