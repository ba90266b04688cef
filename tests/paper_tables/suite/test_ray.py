"""A suite on a Ray cluster: two real nodes on this machine, one of which is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from bench.record.store import Store
from paper_tables.suite.ray_executor import Cluster
from tests.conftest import short

CODE = "from paper_tables.cli.suite import suite; from bench.cli.main import main; main.add_command(suite); main()"


def test_what_a_run_takes_follows_from_the_nodes():
    cpus = Cluster({"a": (4, 0), "b": (4, 0), "c": (16, 0)})
    assert (cpus.cpus, cpus.gpus, cpus.jobs, cpus.largest) == (1, 0, 24, "c")
    gpus = Cluster({"head": (8, 0), "a": (32, 4), "b": (16, 8)})
    assert (gpus.cpus, gpus.gpus, gpus.jobs, gpus.largest) == (2, 1, 12, "b")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--address", "auto"], "no Ray cluster answers"),
        (["--minutes", "5"], "--minutes goes with --executor local only"),
    ],
)
def test_what_cannot_be_is_told(command, tmp_path, monkeypatch, more, told):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    result = command("suite", "table1", "--executor", "ray", "--out", tmp_path, *more)
    assert (result.exit_code, told in " ".join(result.stderr.split())) == (2, True), result.output


@pytest.mark.slow
def test_the_runs_of_a_node_that_is_killed_go_on_elsewhere(tmp_path):
    from ray.cluster_utils import Cluster as Nodes

    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = nodes.add_node(num_cpus=1)
        slow = short(training__steps=300, training__checkpoint_seconds=0.2)
        words = ["suite", "table1", "--only", "kld", "--only", "srkl", "--only", "rkld", "--seeds", "10", "--no-times"]
        words += ["--executor", "ray"]
        suite = subprocess.Popen(
            [sys.executable, "-c", CODE, *words, *slow, "--out", "results", "--address", nodes.address],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "BENCH_CACHE": str(tmp_path / "cache")},
        )
        deadline = time.monotonic() + 180
        while len(list(tmp_path.glob("results/runs/*/work/step-*"))) < 2 and time.monotonic() < deadline:
            assert suite.poll() is None, suite.communicate()
            time.sleep(0.05)
        nodes.remove_node(second, allow_graceful=False)
        stdout, stderr = suite.communicate(timeout=240)
    finally:
        nodes.shutdown()
    assert suite.returncode == 0, stderr
    assert "all 3 runs are recorded" in stdout
    records = list(Store(tmp_path / "results").all())
    assert {record.config.method.name for record in records} == {"kld", "rkld", "srkl"}
    assert [record.training.resumes for record in records].count(0) == 2, "one was gone on with"
    assert not list((tmp_path / "results").rglob(".shared-*"))
