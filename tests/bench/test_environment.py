"""What a run's time can be trusted for: the load of other processes."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from bench.environment import OTHERS_MAY_USE, LoadMeter, had_machine_to_itself
from tests.records import make_record

SPIN = "import time\nend = time.time() + 2\nwhile time.time() < end: pass"


def test_own_work_and_that_of_children_is_not_others_work():
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    busy = LoadMeter()
    child = subprocess.Popen([sys.executable, "-c", SPIN])
    while child.poll() is None:
        sum(range(10_000))
    alone = busy.mean()
    other = LoadMeter()
    # its own session and no longer a child of this process
    subprocess.run(["setsid", "-f", sys.executable, "-c", SPIN], check=True)
    time.sleep(1.5)
    assert other.mean() > alone - 0.2  # others may be at work all along; the spinning one comes on top of them
    assert other.mean() > 0.2


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"other_load": 0.0}, True),
        ({"other_load": 2 * OTHERS_MAY_USE}, True),
        ({"other_load": 2 * OTHERS_MAY_USE + 0.01}, False),
        ({"other_load": None}, False),
        ({"other_load": 0.0, "resumes": 1}, False),
    ],
)
def test_whether_a_time_may_stand_in_a_table(fields, verdict):
    assert had_machine_to_itself(make_record(**fields)[0]) is verdict
