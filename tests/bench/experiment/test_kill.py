"""kill -9 at any moment, then the same command: the same numbers, bit for bit. Two at once: no harm."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bench.record.record import RunRecord
from tests.conftest import short, start

pytestmark = pytest.mark.slow

# kills are to hit every stage, with a buffer in use and a checkpoint at every chance
OPTIONS = short(
    training__steps=40,
    training__checkpoint_seconds=0.05,
    init_training__checkpoint_seconds=0.05,
    sgo__initial_phi=0.8,
    sgo__capacity=16,
    evaluation__seeds="[10,20]",
)
LORA = ["--set", "models.lora.targets=[q_proj, v_proj]"]
SAME = ("run_id", "scores", "init_scores", "teacher_scores", "validations", "curve", "comparison_key")


def command(out: Path, more: Sequence[str] = ()) -> list[str]:
    return ["run", "--method", "distillm", "--task", "iwslt", "--out", str(out), "--json", *OPTIONS, *more]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


def finish(out: Path, cache: Path, more: Sequence[str] = ()) -> tuple[RunRecord, float]:
    begun = time.monotonic()
    process = start(*command(out, more), cache=cache)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    return RunRecord.model_validate_json(stdout), time.monotonic() - begun


def predictions(out: Path, record: RunRecord) -> bytes:
    return (out / "runs" / record.run_id / "predictions.jsonl.gz").read_bytes()


@pytest.mark.parametrize(("more", "times"), [((), 3), (LORA, 1)], ids=["all weights", "adapters"])
def test_killed_at_random_moments_it_ends_in_the_same_numbers(more, times, tmp_path):
    whole, seconds = finish(tmp_path / "whole", tmp_path / "whole-cache", more)
    assert (whole.models.trained_parameters < whole.models.student_parameters / 10) == bool(more)
    out, cache = tmp_path / "killed", tmp_path / "killed-cache"
    seed = time.time_ns()
    moments = random.Random(seed)
    kills = 0
    for _ in range(times):
        process = start(*command(out, more), cache=cache)
        time.sleep(moments.uniform(0.4 * seconds, 0.95 * seconds))
        kills += process.poll() is None
        process.kill()
        process.communicate()
    record, _ = finish(out, cache, more)
    assert kills >= 1, f"seed {seed}"
    for key in SAME:
        assert getattr(record, key) == getattr(whole, key), f"{key}, seed {seed}"
    assert predictions(out, record) == predictions(tmp_path / "whole", whole)
    assert not (out / "runs" / record.run_id / "work").exists()
    assert not [path for path in tmp_path.rglob(".*") if path.name.startswith(".tmp") or path.suffix == ".part"]


def test_a_damaged_half_made_artifact_does_not_block_the_runs_that_share_it(tmp_path):
    whole, _ = finish(tmp_path / "whole", tmp_path / "whole-cache")
    out, cache = tmp_path / "killed", tmp_path / "killed-cache"
    process = start(*command(out), cache=cache)
    wait_for(lambda: list(cache.glob("init-student/*.partial/work/step-*/model.safetensors")))
    process.kill()
    process.communicate()
    (weights,) = cache.glob("init-student/*.partial/work/step-*/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    process = start(*command(out)[: -len(OPTIONS) - 1], *OPTIONS, cache=cache)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert f"checkpoint {weights.parent} is damaged (model.safetensors" in stderr.replace("\n", "")
    record, _ = finish(out, cache)
    for key in SAME:
        assert getattr(record, key) == getattr(whole, key), key


def test_two_processes_making_the_same_run_do_not_harm_each_other(tmp_path):
    out, cache = tmp_path / "out", tmp_path / "cache"
    both = [start(*command(out), cache=cache) for _ in range(2)]
    results = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    first, second = (json.loads(stdout) for stdout, _ in results)
    assert first == second, "one made the run, the other waited and read its record"
    assert not list(out.rglob("*.part"))
    assert not list(cache.rglob("*.partial"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_what_ends_a_run_says_how_to_go_on(number, code, tmp_path):
    out, cache = tmp_path / "out", tmp_path / "cache"
    process = start(*command(out), "--set", "training.steps=100000", cache=cache)
    wait_for(lambda: list(out.glob("runs/*/work/step-*")))
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert "goes on from the last checkpoint" in stderr
    assert "Traceback" not in stderr
    assert list(out.glob("runs/*/work/step-*"))
