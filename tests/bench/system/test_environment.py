"""What a record says about its machine, and the load of other processes."""

from __future__ import annotations

import getpass
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bench.config.resolve import resolve
from bench.experiment.context import prepare
from bench.record.record import RunRecord
from bench.system import environment
from bench.system.artifacts import ArtifactCache
from bench.system.environment import (
    EnergyMeter,
    GpuWatch,
    LoadMeter,
    choose_kernels,
    describe,
    others_on_gpu,
    peak_memory,
    pick_device,
)
from bench.system.errors import BenchError
from tests.conftest import record_of, short

CPU = torch.device("cpu")
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
    ("answer", "others"),
    [
        ("4711\n", 0),  # this process, under whatever number
        ("4711\n4712\n[N/A]\n", 1),
        ("", None),  # a container that shows none
        ("No devices were found\n", None),
    ],
)
def test_other_processes_on_a_gpu_are_counted_where_the_driver_shows_any(answer, others, tmp_path, monkeypatch):
    """With a real process in the place of the driver's tool, which is asked for one GPU."""
    tool = tmp_path / "nvidia-smi"
    (tmp_path / "answer").write_text(answer)
    tool.write_text(f'#!/bin/bash\n[[ "$*" == *--id=GPU-1234 ]] && /bin/cat "{tmp_path}/answer"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert others_on_gpu("1234") == others
    assert others_on_gpu("5678") is None, "the tool failed"
    watch = GpuWatch(CPU)
    watch._uuid = "1234"
    with watch:
        pass
    assert watch.most == others
    monkeypatch.setenv("PATH", str(tmp_path / "absent"))
    assert others_on_gpu("1234") is None
    with GpuWatch(CPU) as nobody:
        pass
    assert nobody.most is None


@pytest.fixture
def git(tmp_path):
    """Runs git in the test's folder."""

    def run(*arguments: str) -> None:
        who = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    return run


def test_the_state_of_a_checkout_is_read_without_touching_its_index(tmp_path, monkeypatch, git):
    """A run that is killed while git writes the index would leave it locked."""
    code = tmp_path / "bench" / "system" / "environment.py"
    code.parent.mkdir(parents=True)
    code.write_text("")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    os.utime(code, (1, 1))  # the index no longer knows the file's time, so that git would write it anew
    index = tmp_path / ".git" / "index"
    before = index.read_bytes()
    monkeypatch.setattr(environment, "__file__", str(code))
    assert environment.git_state().changed is False
    assert index.read_bytes() == before
    (tmp_path / ".git" / "index.lock").touch()  # nor does it wait for another's lock
    assert environment.git_state().changed is False
    (tmp_path / ".git" / "index.lock").unlink()
    git("status")
    assert index.read_bytes() != before


def test_untracked_code_is_a_change_of_the_checkout(tmp_path, monkeypatch, git):
    def write(path: str, text: str = "") -> Path:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        return tmp_path / path

    monkeypatch.setattr(environment, "__file__", str(write("bench/system/environment.py")))
    assert environment.git_state() is None
    write(".gitignore", "ignored.py\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    state = environment.git_state()
    assert state.changed is False
    assert len(state.commit) == 40
    for path in ("notes.py", "results/x.yaml", "bench/notes.txt", "bench/ignored.py"):
        write(path)
    assert environment.git_state().changed is False
    for path in ("bench/new.py", "baselines/mine.py", "bench/configs/methods/own.yaml"):
        made = write(path)
        assert environment.git_state().changed is True, path
        made.unlink()
    assert environment.git_state().changed is False
    write("bench/system/environment.py", "# changed\n")
    assert environment.git_state().changed is True


def test_devices_that_are_there():
    assert pick_device("cpu") == CPU
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert pick_device("auto").type == best


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_cuda_device_that_is_not_there():
    with pytest.raises(BenchError, match=r"--device cuda: no such device here.*found: .*cpu") as caught:
        pick_device("cuda")
    assert ("built without CUDA" in str(caught.value)) == (torch.version.cuda is None)


def test_the_description_is_plain_and_names_neither_host_nor_user():
    described = describe(CPU)
    text = described.model_dump_json()
    assert type(described).model_validate_json(text) == described
    words = set(re.findall(r"[\w.-]+", text))
    assert platform.node() not in words
    assert getpass.getuser() not in words
    assert described.device == "cpu"
    assert described.cpu not in ("", "unknown")
    assert described.cpu_cores >= 1
    assert 0.1 < described.memory_gib < 1e5
    assert described.packages["torch"].startswith(torch.__version__.partition("+")[0])
    git = described.git
    assert git is None or re.fullmatch(r"[0-9a-f]{40}", git.commit)


def test_memory_and_energy_without_an_accelerator():
    memory = peak_memory(CPU)
    assert memory.device_bytes is None
    assert memory.process_bytes is None or memory.process_bytes > 50 * 2**20  # PyTorch alone is more
    assert EnergyMeter(CPU).joules() is None


LAUNCHED = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_USE_FSDP": "true",
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_DYNAMO_BACKEND": "EAGER",
    "ACCELERATE_DOWNCAST_BF16": "true",
    "ACCELERATE_FP8_BACKEND": "TE",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    "XLA_USE_BF16": "1",
}


def test_no_variable_of_a_launcher_or_of_torch_changes_a_number(tmp_path, cache):
    options = ("run", "--method", "srkl", *short(training__steps=3, init_training__steps=2, data__max_test=2))
    plain = record_of(*options, "--out", str(tmp_path / "plain"))
    variables = {**os.environ, **LAUNCHED, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-m", "bench.cli.main", *options, "--out", str(tmp_path / "launched"), "--json"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    launched = RunRecord.model_validate_json(done.stdout)
    assert plain.run_id == launched.run_id
    assert plain.curve == launched.curve
    assert plain.validations == launched.validations
    assert plain.scores == launched.scores


def test_switches_of_torch_are_set_whatever_the_calling_program_set():
    torch.set_float32_matmul_precision("medium")
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    choose_kernels(CPU)
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_default_dtype() == torch.float32
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.allow_tf32


def test_tf32_by_the_driver_is_refused_on_a_gpu(monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    choose_kernels(CPU)
    with pytest.raises(BenchError, match="NVIDIA_TF32_OVERRIDE"):
        choose_kernels(torch.device("cuda"))


def test_variables_that_choose_kernels_are_recorded_and_make_another_run(monkeypatch, tmp_path, cache):
    config, method = resolve(preset="tiny", task="samsum", method="srkl", device="cpu")
    artifacts = ArtifactCache(tmp_path, lambda note: None)
    plain = prepare(config, method, artifacts)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    assert describe(CPU).variables == {"ATEN_CPU_CAPABILITY": "default"}
    other = prepare(config, method, artifacts)
    assert "environment" not in plain.run_key
    assert other.run_key["environment"] == {"ATEN_CPU_CAPABILITY": "default"}
    assert other.run_id != plain.run_id
