"""A suite on several GPUs and machines: parts, GPUs of their own, and how far all of it is."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bench.record.store import FAILURE, LOCK, WORK, Store
from bench.system.artifacts import is_locked, locked
from bench.system.files import write_json
from paper_tables.paper.suites import run_specs, timed_specs
from paper_tables.suite import executors
from paper_tables.suite.executors import environment, visible_gpus
from paper_tables.suite.plan import make_plan
from tests.conftest import short
from tests.records import make_record

COMMANDS = Path(__file__).parents[3] / "docs" / "commands.md"
# what `sbatch --array=1-N SCRIPT WORDS...` does, all tasks at once
SBATCH = """#!/bin/bash
count=${1#--array=1-}; shift
export SLURM_SUBMIT_DIR=$PWD SLURM_ARRAY_TASK_COUNT=$count
for task in $(seq "$count"); do
    SLURM_ARRAY_TASK_ID=$task bash "$@" > "task-$task.txt" 2>&1 &
    tasks+=($!)
done
for task in "${tasks[@]}"; do wait "$task" || failed=1; done
exit ${failed:-0}
"""


def runs_of(shard, records=()):
    made = make_plan(
        run_specs("table1", "tiny"), timed_specs("tiny"), records, preset="tiny", seeds=(10, 20), shard=shard
    )
    return [(run.spec, run.seed) for run in made.runs]


def test_the_parts_are_all_runs_once_whatever_is_recorded():
    whole = runs_of((1, 1))
    parts = [runs_of((number, 3)) for number in (1, 2, 3)]
    assert sorted(repr(run) for part in parts for run in part) == sorted(map(repr, whole))
    assert {len(part) for part in parts} == {3, 4}
    records = [make_record(method, seed=10)[0] for method in ("rkld", "jsd")]
    assert [runs_of((number, 3), records) for number in (1, 2, 3)] == parts


@pytest.mark.parametrize(
    ("shard", "told"),
    [("0/4", "numbered from 1 to 4"), ("5/4", "numbered from 1 to 4"), ("2", "I/N"), ("a/b", "I/N"), ("-1/2", "I/N")],
)
def test_a_part_that_cannot_be_is_told(command, tmp_path, shard, told):
    result = command("suite", "table1", "--shard", shard, "--out", tmp_path)
    assert (result.exit_code, told in result.stderr) == (2, True)


def test_where_no_gpu_is_named_all_are_shared_out(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    given = visible_gpus({})
    assert [environment(given, slot, 2)["CUDA_VISIBLE_DEVICES"] for slot in range(2)] == ["0", "1"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "1"}) == visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == {}
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert visible_gpus({}) == {}


def test_two_runs_at_a_time_have_a_gpu_each(monkeypatch, tmp_path):
    """Real processes, which write down the GPU that they were given."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    told = tmp_path / "told"
    stand_in = tmp_path / "python"
    stand_in.write_text(f'#!/bin/bash\necho "$CUDA_VISIBLE_DEVICES" >> {shlex.quote(str(told))}\nsleep 1\n')
    stand_in.chmod(0o755)
    monkeypatch.setattr(executors.sys, "executable", str(stand_in))
    plan = make_plan(run_specs("table1", "tiny"), {}, [], preset="tiny", seeds=(10,), jobs=2, only=("kld", "srkl"))
    assert len([event for event in executors.run_locally(plan, tmp_path, 2) if event.seconds is not None]) == 2
    assert sorted(told.read_text().split()) == ["0", "1"]


def test_the_status_says_what_is_made_what_stopped_and_what_failed(command, tmp_path):
    store = Store(tmp_path)
    record, rows = make_record("rkld")
    store.write(record, rows)
    being_made, stopped, failed = (store.folder(f"dolly-{name}") for name in ("being-made", "stopped", "failed"))
    for folder in (being_made, stopped):
        (folder / WORK / "step-00000250").mkdir(parents=True)
    failed.mkdir()
    write_json(failed / FAILURE, {"error": "a reason"})
    with locked(being_made / LOCK, "the run", print):
        assert is_locked(being_made / LOCK)
        result = command("suite", "table1", "--seeds", "10", "--status", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "runs done" not in result.stdout, "nothing is done by this command"
    assert f"1 of 5 runs are recorded in {tmp_path}" in result.stdout
    assert re.search(r"being made: dolly-being-made, step 250 \d+ s ago", result.stdout)
    assert re.search(r"stopped: dolly-stopped, step 250 \d+ s ago; the suite goes on with it", result.stdout)
    assert "failed: dolly-failed (`bench show dolly-failed` says why)" in result.stdout
    assert is_locked(being_made / LOCK) is False
    assert is_locked(tmp_path) is None, "a file that cannot be read says nothing"
    assert "a reason" in command("show", "dolly-failed", "--out", tmp_path).stderr


@pytest.mark.slow
def test_the_script_for_slurm_makes_a_suite(tmp_path):
    (script,) = re.findall(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", COMMANDS.read_text(), re.DOTALL)
    (tmp_path / "suite.sh").write_text(script)
    places = tmp_path / "bin"
    places.mkdir()
    code = "from paper_tables.cli.suite import suite; from bench.cli.main import main; main.add_command(suite); main()"
    for name, text in (
        ("sbatch", SBATCH),
        ("bench", f'#!/bin/bash\nexec {shlex.quote(sys.executable)} -c {shlex.quote(code)} "$@"\n'),
    ):
        (places / name).write_text(text)
        (places / name).chmod(0o755)
    words = ["table1", "--only", "kld", "--only", "srkl", "--seeds", "10", "--no-times", *short()]
    done = subprocess.run(
        ["sbatch", "--array=1-2", "suite.sh", *words, "--out", "results"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{places}:{os.environ['PATH']}",
            "PYTHONPATH": str(COMMANDS.parents[1]),
            "OMP_NUM_THREADS": "1",
        },
        check=False,
    )
    told = [(tmp_path / f"task-{number}.txt").read_text() for number in (1, 2)]
    assert done.returncode == 0, told
    assert all("1 runs, 0 recorded, 1 to do" in text for text in told)
    assert {record.config.method.name for record in Store(tmp_path / "results").all()} == {"kld", "srkl"}
    assert len(list((tmp_path / "bench-cache").glob("init-student/*/manifest.json"))) == 1
