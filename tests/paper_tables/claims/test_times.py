"""Verdicts on claims about training time, from records whose times are known."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.stats import ttest_ind

from paper_tables.claims.beside import short
from paper_tables.claims.format import effect
from paper_tables.claims.verdicts import p_in_words
from tests.paper_tables.claims.test_claims import SEEDS, verdict
from tests.records import rewrite, write_record


def timed(out, seconds, *, load=0.0, threads=2, jitter=0.02, seeds=SEEDS):
    """Runs of some methods that took so long, a little more or less from seed to seed."""
    for method, mean in seconds.items():
        for number, seed in enumerate(seeds):
            factor = 1 + jitter * (number - 1)
            record = write_record(out, method, seed=seed, seconds=mean * factor, other_load=load)
            rewrite(out, record, environment__threads=threads)


OTHERS = ("minillm", "gkd", "imitkd")


@pytest.mark.parametrize(
    ("slow", "jitter", "expected", "reason"),
    [
        (60.0, 0.02, "reproduced", "3 of 3 comparisons hold"),
        (45.0, 0.02, "not reproduced", "0 of 3 comparisons hold, 3 falling short"),
        (10.0, 0.02, "not reproduced", "0 of 3 comparisons hold, 3 the other way round"),
        (51.0, 0.02, "not enough evidence", "0 of 3 comparisons hold, the others cannot be told"),
        (60.0, 0.2, "not enough evidence", "0 of 3 comparisons hold, the others cannot be told"),
    ],
)
def test_times_are_told_apart_by_their_spread(tmp_path, slow, jitter, expected, reason):
    timed(tmp_path, {"distillm": 20.0} | dict.fromkeys(OTHERS, slow), jitter=jitter)
    judged = verdict(tmp_path, "faster-than-recent")
    assert judged.verdict == expected
    assert judged.reason.startswith(f"{reason} ({p_in_words(judged.p)})")
    assert judged.deciding.effect == pytest.approx(slow / 20, rel=0.01)
    if expected == "not enough evidence":
        assert " from the limit: a factor of " in judged.reason
        assert re.search(r"with the factor seen, \d\.\d\d, (not even )?\d+ timed runs of each would", judged.reason)


def test_the_interval_of_a_ratio_of_times_is_welchs_at_95_percent(tmp_path):
    timed(tmp_path, {"distillm": 20.0} | dict.fromkeys(OTHERS, 60.0))
    one = verdict(tmp_path, "faster-than-recent").comparisons[0]
    logs = [np.log([mean * f for f in (0.98, 1.0, 1.02)]) for mean in (60.0, 20.0)]
    theirs = ttest_ind(*logs, equal_var=False).confidence_interval(0.95)
    assert (one.low, one.high) == pytest.approx(tuple(np.exp([theirs.low, theirs.high])))
    assert len(one.runs) == 6


@pytest.mark.parametrize(("options", "counted"), [({"load": 1.0}, "0"), ({"load": None}, "0"), ({"seeds": (10,)}, "1")])
def test_fewer_than_two_exclusively_timed_runs_say_nothing_of_time(tmp_path, options, counted):
    timed(tmp_path, {"distillm": 20.0} | dict.fromkeys(OTHERS, 60.0), **options)
    judged = verdict(tmp_path, "faster-than-recent")
    assert (judged.verdict, judged.reason) == ("not enough evidence", f"{counted} of 2 timed runs: bench suite main")
    assert (judged.deciding.effect if counted == "1" else judged.deciding) == (
        pytest.approx(3.0) if counted == "1" else None
    )


def test_times_of_other_hardware_than_most_do_not_count(tmp_path):
    timed(tmp_path, dict.fromkeys(OTHERS, 60.0))
    timed(tmp_path, {"distillm": 20.0}, threads=1)
    judged = verdict(tmp_path, "faster-than-recent")
    assert (judged.verdict, judged.reason) == ("not enough evidence", "0 of 2 timed runs: bench suite main")


@pytest.mark.parametrize(
    ("seconds", "expected", "outcome"),
    [
        (25.0, "reproduced", "holds"),
        (40.0, "not reproduced", "beyond the limit"),
        (32.0, "not enough evidence", "open"),
    ],
)
def test_at_most_so_much_slower(tmp_path, seconds, expected, outcome):
    timed(tmp_path, {"kld": 20.0, "distillm": seconds})
    judged = verdict(tmp_path, "near-kd-time")
    assert judged.verdict == expected
    (one,) = judged.comparisons
    assert (one.outcome, one.effect) == (outcome, pytest.approx(seconds / 20, rel=0.01))
    assert effect(one).endswith("times, claimed < 1.6")


@pytest.mark.parametrize(
    ("slowest", "expected"), [(100.0, "reproduced"), (70.0, "not reproduced"), (86.0, "not enough evidence")]
)
def test_up_to_so_much_has_to_be_reached_once(tmp_path, slowest, expected):
    timed(tmp_path, {"distillm": 20.0, "gkd": 40.0, "imitkd": 60.0, "minillm": slowest})
    judged = verdict(tmp_path, "up-to-4.3-times-faster")
    assert judged.verdict == expected
    assert judged.deciding.what == "time of MiniLLM / DistiLLM"


@pytest.mark.parametrize(
    ("slow", "expected"), [(100.0, "reproduced"), (50.0, "not reproduced"), (180.0, "not reproduced")]
)
def test_a_range_of_times_has_two_ends(tmp_path, slow, expected):
    timed(tmp_path, {"kld": 20.0} | dict.fromkeys(OTHERS, slow))
    judged = verdict(tmp_path, "others-slow")
    assert judged.verdict == expected
    assert [(c.side, c.threshold) for c in judged.comparisons] == [("above", 3.0), ("below", 7.0)] * 3
    within = judged.verdict == "reproduced"
    assert judged.reason.startswith("3 of 3 comparisons hold" if within else "0 of 3 comparisons hold, 3 ")
    assert judged.asked == 3
    assert short(judged) == ("holds (3, 0 of 3)" if within else "does not hold (0, 3 of 3)")


@pytest.mark.parametrize(("share", "expected"), [(0.9, "reproduced"), (0.6, "not reproduced")])
def test_the_share_of_generation_is_that_of_the_longest(tmp_path, share, expected):
    for method, its in (("imitkd", share), ("gkd", 0.3), ("minillm", 0.5)):
        for seed in SEEDS:
            record = write_record(tmp_path, method, seed=seed, seconds=50.0)
            rewrite(tmp_path, record, time__phases__generation=50.0 * (its + seed / 10_000))
    judged = verdict(tmp_path, "generation-takes-most")
    assert judged.verdict == expected
    assert judged.deciding.effect == pytest.approx(share, abs=0.01)
    assert judged.comparisons[1].outcome == "falling short"


def test_a_claim_without_adaptive_use_needs_no_phi(tmp_path):
    timed(tmp_path, {"kld": 20.0} | dict.fromkeys(OTHERS, 100.0))
    judged = verdict(tmp_path, "others-slow")
    assert judged.verdict == "reproduced"
    assert "φ" not in judged.scope
