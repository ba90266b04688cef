"""What a run's time can be trusted for: the load of other processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.analysis.timing import had_machine_to_itself, threads_of, usual_hardware
from bench.system import environment
from bench.system.environment import LoadMeter
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
        ({"other_load": 0.1}, True),  # of the record's two cores, 5 %
        ({"other_load": 0.11}, False),
        ({"other_load": None}, False),
        ({"other_load": 0.0, "resumes": 1}, False),
    ],
)
def test_whether_a_time_may_stand_in_a_table(fields, verdict):
    assert had_machine_to_itself(make_record(**fields)[0]) is verdict


def test_untracked_code_is_a_change_of_the_checkout(tmp_path, monkeypatch):
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    def write(path: str, text: str = "") -> Path:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        return tmp_path / path

    monkeypatch.setattr(environment, "__file__", str(write("bench/environment.py")))
    assert environment.git_state() is None
    write(".gitignore", "ignored.py\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    state = environment.git_state()
    assert state["changed"] is False
    assert len(state["commit"]) == 40
    for path in ("notes.py", "results/x.yaml", "bench/notes.txt", "bench/ignored.py"):
        write(path)
    assert environment.git_state()["changed"] is False
    for path in ("bench/new.py", "baselines/mine.py", "bench/configs/methods/own.yaml"):
        made = write(path)
        assert environment.git_state()["changed"] is True, path
        made.unlink()
    assert environment.git_state()["changed"] is False
    write("bench/environment.py", "# changed\n")
    assert environment.git_state()["changed"] is True


@pytest.mark.parametrize(("threads", "expected"), [((2, 1, 1), 1), ((2, 2, 1), 2), ((1, 2), 2), ((), None)])
def test_the_usual_hardware_is_that_of_most_undisturbed_runs_then_of_the_latest(threads, expected):
    records = [make_record(seed=number, other_load=0.0)[0] for number in range(len(threads))]
    records += [make_record(seed=99, other_load=1.0)[0] for _ in range(5)]
    for number, (record, its) in enumerate(zip(records, (*threads, *[64] * 5), strict=True)):
        record["environment"]["threads"] = its
        record["started"] = f"2026-01-02T03:04:{number:02d}+00:00"
    usual = usual_hardware(records)
    assert usual is None if expected is None else threads_of(usual) == expected
