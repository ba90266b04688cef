"""A run of several processes: the numbers of one, refusals on all of them, and no process that outlives another."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from transformers import MarianConfig, MarianMTModel

from bench.record.record import RunRecord
from bench.record.store import Store
from bench.system import processes
from bench.system.artifacts import locked
from bench.system.errors import BenchError
from bench.system.files import read_jsonl_gz
from bench.training.sharded import check_shareable
from tests.conftest import invoke, short

# a batch that two processes cannot share evenly, a buffer in use, a best model that changes
OPTIONS = short(
    training__steps=6,
    training__batch_size=5,
    training__select_by="metric",
    training__checkpoint_seconds=1e-9,
    init_training__steps=4,
    data__max_train=32,
    data__max_response_length=16,
    sgo__initial_phi=0.8,
    sgo__capacity=16,
    sgo__rollouts=16,
    evaluation__seeds="[10,20]",
)
ALL = "import sys; from bench.cli.main import main\nfor words in eval(sys.argv[1]): main(words, standalone_mode=False)"
"""Several commands, one after the other."""


OFTEN = "from bench.training import checkpoint; checkpoint.MOST_OF_TIME = 1e9; from bench.cli.main import main; main()"
"""A command that saves after every step."""


def command(out: Path, method: str = "distillm", *more: str) -> list[str]:
    return ["run", "--method", method, "--task", "samsum", "--out", str(out), "--quiet", *OPTIONS, *more]


def variables(rank: int, port: int, size: int = 2) -> dict[str, str]:
    """What torchrun sets."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1"} | {name: str(value) for name, value in place.items()}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
"""What `accelerate launch --use_fsdp --fsdp_version 2` sets beside, of what anybody reads."""

UNEQUAL_CLOCKS = """
import os
from bench.training import checkpoint
checkpoint.Pace.is_due = lambda self, *, validating: validating == (os.environ["RANK"] == "0")
from bench.cli.main import main; main()
"""
"""A command whose processes would save at different steps, each by its own clock."""


def start(cache: Path, *words: str, size: int = 2, more: dict[str, str] | None = None) -> list[subprocess.Popen[str]]:
    """Python with some words, in processes of one run."""
    common = {**os.environ, "BENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1", **(more or {})}
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=common | variables(rank, port, size),
        )
        for rank in range(size)
    ]


def ends(started: list[subprocess.Popen[str]], seconds: float = 240) -> list[tuple[int, str]]:
    """Exit code and messages of each."""
    told = [one.communicate(timeout=seconds)[1] for one in started]
    return [(one.returncode, text) for one, text in zip(started, told, strict=True)]


def made(out: Path, method: str) -> tuple[RunRecord, list[dict[str, object]]]:
    (record,) = [record for record in Store(out).all() if record.config.method.name == method]
    return record, read_jsonl_gz(out / "runs" / record.run_id / "predictions.jsonl.gz")


def check_equal(several: Path, alone: Path, method: str, resumed: bool = False) -> None:
    """Decisions and texts to the letter, figures to rounding; one process has written the record."""
    (ours, texts), (theirs, their_texts) = made(several, method), made(alone, method)
    assert (ours.environment.processes, theirs.environment.processes) == (2, None)
    assert bool(ours.training.resumes) == resumed
    for name in ("run_id", "scores", "init_scores", "teacher_scores"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert texts == their_texts
    for name in ("best_step", "tokens_trained", "tokens_generated"):
        assert getattr(ours.training, name) == getattr(theirs.training, name), name
    assert ours.data.teacher_responses == theirs.data.teacher_responses
    for our_point, their_point in zip(ours.curve, theirs.curve, strict=True):
        assert our_point.keys() == their_point.keys()
        for name, value in their_point.items():
            # Adam turns rounding into steps where a gradient is none but for rounding, and small norms show it
            close = {"loss": 1e-5, "gradient_norm": 1e-2, "student_entropy": 1e-4, "teacher_loss_on_sgo": 1e-4}
            close |= {"plain_text_loss": 1e-5}
            assert our_point[name] == pytest.approx(value, rel=close.get(name, 0), abs=0), (name, our_point["step"])
    for our_row, their_row in zip(ours.validations, theirs.validations, strict=True):
        assert our_row.model_dump(exclude_none=True) == pytest.approx(their_row.model_dump(exclude_none=True), rel=1e-5)
    left = (several / "runs" / ours.run_id).rglob("*")
    assert not [path for path in left if path.suffix == ".part" or path.name == "work"]


def test_two_processes_make_the_run_of_one(tmp_path, cache):
    """Each starts from artifacts that one process made, and takes a part of every batch."""
    assert invoke(*command(tmp_path / "alone")).exit_code == 0
    started = start(cache, "-m", "bench.cli.main", *command(tmp_path / "two"))
    assert [code for code, _ in ends(started)] == [0, 0]
    check_equal(tmp_path / "two", tmp_path / "alone", "distillm")


def test_two_processes_that_share_out_the_layers_make_the_run_of_one(tmp_path, cache):
    assert invoke(*command(tmp_path / "alone")).exit_code == 0
    started = start(cache, "-c", UNEQUAL_CLOCKS, *command(tmp_path / "two"), more=FSDP)
    for code, told in ends(started):
        assert code == 0, told
    check_equal(tmp_path / "two", tmp_path / "alone", "distillm")
    assert made(tmp_path / "two", "distillm")[0].environment.sharded


HELD = """
import os
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from bench.system.processes import joined
from bench.training.sharded import ShardedLayers, own_part

sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "vocab_size": 16}
network = LlamaForCausalLM(LlamaConfig(num_hidden_layers=8, **sizes))
whole = sum(p.numel() for p in network.parameters())
ids = torch.arange(16).view(1, 16)
with joined(torch.device("cpu")) as processes:
    layers = ShardedLayers(network, processes)
    optimiser = torch.optim.AdamW(network.parameters(), foreach=False)
    network(ids).logits.square().mean().backward()
    optimiser.step()
    moments = [value for entry in optimiser.state.values() for value in entry.values() if value.ndim]
    held = [*network.parameters(), *(p.grad for p in network.parameters()), *moments]
    print("held", sum(own_part(tensor).numel() for tensor in held) / (4 * whole))
    with layers.whole(), torch.no_grad():
        for _ in range(1 + processes.rank):  # no pass waits for the other process
            network(ids)
    print("again", sum(own_part(p).numel() for p in network.parameters()) / whole)
"""


def test_each_process_holds_half_of_weights_gradients_and_moments(tmp_path):
    started = start(tmp_path, "-c", HELD, more=FSDP)
    told = [one.communicate(timeout=120) for one in started]
    assert [one.returncode for one in started] == [0, 0], told
    for text, _ in told:
        shares = [float(line.split()[1]) for line in text.splitlines()]
        assert len(shares) == 2
        assert all(0.5 <= share < 0.51 for share in shares)  # embeddings and output layer are whole


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "more"),
    [
        # two micro-batches for two processes, then one for one of them
        ("srkl", ["--set", "training.micro_batch_size=2", "--set", "training.gradient_checkpointing=true"]),
        ("minillm", ["--set", "training.batch_size=4"]),  # the teacher samples along
        ("seqkd", ["--set", "plain_text.weight=1"]),
    ],
)
def test_layers_are_shared_out_for_every_kind_of_training(tmp_path, cache, method, more):
    """Of a causal model, its own teacher and init student included."""
    words = [*command(tmp_path / "two", method, *more), "--task", "dolly", "--set", "models.teacher=scratch"]
    # a rate at which rounding does not grow
    small = [*words, *short(teacher_training__steps=6, teacher_training__validations=2, training__learning_rate=1e-4)]
    for code, told in ends(start(tmp_path / "cache", "-m", "bench.cli.main", *small, more=FSDP)):
        assert code == 0, told
    alone = [str(tmp_path / "alone") if word == str(tmp_path / "two") else word for word in small]
    assert invoke(*alone).exit_code == 0
    check_equal(tmp_path / "two", tmp_path / "alone", method)


@pytest.mark.slow
def test_every_kind_of_output_source_is_shared(tmp_path, cache):
    """Data set, on-policy, roll-outs, the teacher's responses; teacher, init students and scores made by two, too."""
    methods = {
        "srkl": ["--set", "training.micro_batch_size=2"],
        "imitkd": ["--init", "sft"],
        "minillm": ["--set", "training.batch_size=4"],
        "seqkd": ["--set", "evaluation.batch_size=12"],
    }
    words = [command(tmp_path / "two", method, *more) for method, more in methods.items()]
    again = command(tmp_path / "two", "srkl", *methods["srkl"])  # recorded
    # what fails fails in all of them
    steep = ["--set", "training.learning_rate=1e38", "--set", "training.max_grad_norm=1e38"]
    broken = command(tmp_path / "two", "srkl", *steep)
    started = start(tmp_path / "cache", "-c", ALL, repr([*words, again, broken]))
    for code, told in ends(started):
        assert (code, "is not finite at step" in told) == (2, True), told
    assert len(list((tmp_path / "two").rglob("failure.json"))) == 1
    for method, more in methods.items():
        assert invoke(*command(tmp_path / "alone", method, *more)).exit_code == 0
        check_equal(tmp_path / "two", tmp_path / "alone", method)


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "sharded"])
def test_a_killed_process_ends_the_others_and_the_same_command_goes_on(tmp_path, cache, sharded):
    """What processes with parts of the layers have saved, those that hold them whole can go on with as well."""
    out = tmp_path / "two"
    # a rate at which rounding does not grow to decisions
    slowly = ["--set", "training.steps=40", "--set", "training.learning_rate=1e-4"]
    words = command(out, "distillm", *slowly)
    assert invoke(*command(tmp_path / "alone", "distillm", *slowly)).exit_code == 0
    steps = 0
    for killed in ([1], [0]):
        started = start(cache, "-c", OFTEN, *words, more=FSDP if sharded else None)
        deadline = time.monotonic() + 120
        while (now := last_step(out)) <= steps and time.monotonic() < deadline:
            assert all(one.poll() is None for one in started), ends(started)
            time.sleep(0.02)
        steps = now
        for rank in killed:
            started[rank].kill()
        begun = time.monotonic()
        codes = ends(started, 60)
        assert time.monotonic() - begun < 60
        for rank, (code, told) in enumerate(codes):
            assert code == (-9 if rank in killed else 2), told
            assert rank in killed or "the same command goes on" in told
            assert "Traceback" not in told
    assert last_step(out) >= steps > 0
    assert [code for code, _ in ends(start(cache, "-m", "bench.cli.main", *words))] == [0, 0]
    check_equal(out, tmp_path / "alone", "distillm", resumed=True)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_stopped_for_long_is_killed_and_the_other_ends(tmp_path, cache, rank):
    impatient = f"from bench.system import processes; processes.STOPPED_SECONDS = 3; {OFTEN}"
    started = start(cache, "-c", impatient, *command(tmp_path, "distillm", "--set", "training.steps=10000"))
    deadline = time.monotonic() + 120
    while last_step(tmp_path) == 0 and time.monotonic() < deadline:
        assert all(one.poll() is None for one in started), ends(started)
        time.sleep(0.02)
    started[rank].send_signal(signal.SIGSTOP)
    codes = ends(started, 60)
    assert codes[rank][0] == -signal.SIGKILL
    assert (codes[1 - rank][0], "of this run has ended; the same command goes on" in codes[1 - rank][1]) == (2, True), (
        codes
    )


def last_step(out: Path) -> int:
    return max((int(path.name[5:]) for path in out.glob("runs/*/work/step-*")), default=0)


@pytest.mark.slow
def test_those_of_torchrun_meet_and_all_end_where_the_run_is_busy(tmp_path, cache):
    words = command(tmp_path, "srkl")
    assert invoke(*words).exit_code == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "bench.cli.main"]
    environment = {**os.environ, "BENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    lock = tmp_path / "runs" / made(tmp_path, "srkl")[0].run_id / "lock"
    with locked(lock, "the run", print):
        command_line = [*torchrun, *words, "--fresh", "--no-wait"]
        done = subprocess.run(command_line, capture_output=True, text=True, check=False, env=environment, timeout=240)
    assert done.returncode == 1
    assert re.search(r"exitcode +: 75 ", done.stderr), done.stderr
    assert "another process is making the run" in done.stderr
    assert "Traceback (most recent call last)" not in done.stderr.partition("torch/distributed/elastic")[0]


@pytest.mark.slow
def test_the_launcher_of_accelerate_shares_out_the_layers(tmp_path, cache):
    """The variables that it sets are the ones that are read."""
    rate = ["--set", "training.learning_rate=1e-4"]
    assert invoke(*command(tmp_path / "alone", "distillm", *rate)).exit_code == 0
    options = ["--use_fsdp", "--fsdp_version", "2", "--num_processes", "2", "--num_machines", "1"]
    options += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(free_port())]
    launch = [sys.executable, "-m", "accelerate.commands.launch", *options, "-m", "bench.cli.main"]
    environment = {**os.environ, "BENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    words = [*launch, *command(tmp_path / "two", "distillm", *rate)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    check_equal(tmp_path / "two", tmp_path / "alone", "distillm")
    assert made(tmp_path / "two", "distillm")[0].environment.sharded


REFUSED = {
    "RANK, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT is not set": {"WORLD_SIZE": "2"},
    "expected a whole number": {"WORLD_SIZE": "two"},
    "on one machine, and 2 of 4": {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"},
    "RANK=2 is not below": {"RANK": "2"},
    "FSDP of version 1 is not supported": {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"},
    "leave out --fsdp_offload_params": {**FSDP, "FSDP_OFFLOAD_PARAMS": "true"},
    "ACCELERATE_USE_DEEPSPEED": {"ACCELERATE_USE_DEEPSPEED": "true"},
    "MPI does not start": {"WORLD_SIZE": "", "OMPI_COMM_WORLD_SIZE": "2"},
}


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_is_refused_on_every_process_before_any_wait(message, rank, tmp_path, monkeypatch):
    changed = REFUSED[message]
    usual = {} if changed == {"WORLD_SIZE": "2"} else variables(rank, 1)
    for name, value in (usual | changed).items():
        monkeypatch.setenv(name, value)
    result = invoke(*command(tmp_path / "out"))
    assert (result.exit_code, message in result.stderr.replace("\n", " ")) == (2, True), result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("models.lora={rank: 4}", "leave out --use_fsdp"),
        ("training.optimizer=adamw-8bit", "take optimizer=adamw"),
    ],
)
def test_what_cannot_be_trained_in_parts_is_refused_before_any_wait(setting, message, tmp_path, monkeypatch):
    for name, value in (variables(1, 1) | FSDP).items():
        monkeypatch.setenv(name, value)
    result = invoke(*command(tmp_path / "out", "srkl", "--set", setting))
    assert (result.exit_code, message in result.stderr.replace("\n", " ")) == (2, True), result.stderr


def test_layers_that_are_left_out_at_random_are_not_shared_out():
    sizes = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "vocab_size": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    check_shareable(MarianMTModel(MarianConfig(pad_token_id=0, **sizes, **heads)))
    with pytest.raises(BenchError, match="marian leaves out layers at random"):
        check_shareable(MarianMTModel(MarianConfig(pad_token_id=0, decoder_layerdrop=0.1, **sizes, **heads)))


@pytest.mark.parametrize("words", [["list", "methods"], ["evaluate", "--model", "shipped"], ["suite"], ["perf"]])
def test_commands_of_one_process_say_so(words, monkeypatch):
    for name, value in variables(1, 1).items():
        monkeypatch.setenv(name, value)
    result = invoke(*words)
    assert result.exit_code == 2
    assert f"bench {words[0]} takes one process, and WORLD_SIZE=2" in result.stderr


def test_a_device_that_cannot_be_shared_is_refused(monkeypatch):
    for name, value in variables(0, 1).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BenchError, match="--device mps takes one process"), processes.joined(torch.device("mps")):
        pass
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(BenchError, match="2 processes need a GPU each, and 1 can be seen"),
        processes.joined(torch.device("cuda")),
    ):
        pass


def test_processes_that_do_not_come_are_not_waited_for(monkeypatch):
    monkeypatch.setattr(processes, "RENDEZVOUS_SECONDS", 0.5)
    for name, value in variables(0, free_port()).items():
        monkeypatch.setenv(name, value)
    begun = time.monotonic()
    with (
        pytest.raises(BenchError, match="the 2 processes of this run did not meet"),
        processes.joined(torch.device("cpu")),
    ):
        pass
    assert time.monotonic() - begun < 20


def test_a_process_that_was_killed_and_not_waited_for_counts_as_dead():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    seen = processes._process(child.pid)
    assert processes._lives(seen)
    child.kill()
    deadline = time.monotonic() + 10
    while processes._lives(seen) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not processes._lives(seen)
    assert psutil.pid_exists(child.pid)
    child.wait()
    assert not processes._lives(processes._process(child.pid))


WATCHING = """
import os, subprocess, sys, time
from bench.system import processes

processes._GRACE_SECONDS = 0.1
other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
processes._Watch([os.getpid(), other.pid]).start()
time.sleep(1.5)
print("watching", flush=True)
other.kill()
time.sleep(60)
"""


def test_a_process_that_is_busy_elsewhere_ends_after_another_died():
    done = subprocess.run([sys.executable, "-c", WATCHING], capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stdout) == (2, "watching\n")
    assert "process 1 of this run has ended; the same command goes on from the last checkpoint" in done.stderr


def test_shares_come_back_in_their_order_however_many_there_are():
    """Of three processes with five, two and no items; what the others send is made here."""

    class Three(processes.Processes):
        def gather(self, value):
            return [made[rank] if rank != self.rank else value for rank in range(3)]

    for count in (5, 2, 0):
        made = [[10 * i for i in range(rank, count, 3)] for rank in range(3)]
        for rank in range(3):
            spread = Three(rank, 3).spread(range(count), lambda part: [10 * i for i in part])
            assert spread == [10 * i for i in range(count)]
