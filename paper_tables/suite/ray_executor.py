"""A suite's runs on a Ray cluster: each is a task that starts `bench run` on a node that has what it needs.

Ray finds the node, and makes a run whose node died on another one, where it goes on from its last checkpoint. Runs that
are timed take a whole node. All nodes share the results folder and the artifact cache.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bench.cli.run import BUSY
from bench.system.artifacts import default_root
from bench.system.environment import this_machine
from bench.system.errors import BenchError
from bench.system.files import cannot_write
from paper_tables.suite.executors import STOP_SECONDS, Failure, RunEvent, last_lines, words_of
from paper_tables.suite.plan import PlannedRun, SuitePlan

if TYPE_CHECKING:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

A = TypeVar("A")
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass(frozen=True)
class Cluster:
    """What a cluster has.

    Attributes:
        nodes: CPUs and GPUs of each node that can take a run, by its id.
    """

    nodes: Mapping[str, tuple[int, int]]

    @property
    def gpus(self) -> int:
        """GPUs that a run takes: one, where there are any."""
        return int(any(gpus for _, gpus in self.nodes.values()))

    @property
    def cpus(self) -> int:
        """CPUs that a run takes: one, or a GPU's share of its node."""
        shares = [cpus // gpus for cpus, gpus in self.nodes.values() if gpus]
        return max(1, min(shares, default=1))

    @property
    def jobs(self) -> int:
        """Runs at a time."""
        return sum(gpus if self.gpus else cpus for cpus, gpus in self.nodes.values())

    @property
    def largest(self) -> str:
        """The node with the most GPUs, then CPUs. What takes all of it fits on no other kind: so runs are timed."""
        return max(self.nodes, key=lambda name: self.nodes[name][::-1])


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """A Ray cluster for the time of a suite.

    Args:
        address: as Ray takes it: "auto", HOST:PORT or ray://HOST:PORT.

    Raises:
        BenchError: Ray is not installed, no cluster answers, or it has no node for a run.
    """
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError as error:
        raise BenchError("--executor ray needs Ray: pip install 'distillm-bench[cluster]'") from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RayError, RuntimeError, ValueError) as error:
        told = next(iter(str(error).splitlines()), type(error).__name__)
        raise BenchError(
            f"--address {address}: no Ray cluster answers ({told}); start one: ray start --head"
        ) from error
    try:
        alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
        nodes = {name: (int(has.get("CPU", 0)), int(has.get("GPU", 0))) for name, has in alive.items()}
        cluster = Cluster({name: has for name, has in nodes.items() if has[0]})
        if not cluster.nodes:
            raise BenchError(f"--address {address}: the cluster has no node with a CPU for a run")
        yield cluster
    finally:
        ray.shutdown()


def kind_of_node(cluster: Cluster) -> tuple[str, str]:
    """Device and processor of the nodes that runs are timed on.

    Raises:
        BenchError: that node has no distillm-bench.
    """
    return _asked(cluster.largest, this_machine)


def run_on_ray(plan: SuitePlan, out: Path, cluster: Cluster) -> Generator[RunEvent, None, None]:
    """Make the runs left, telling of each start and end; to be used while `connected`.

    Args:
        plan: what to run.
        out: folder of the records, which all nodes share.
        cluster: what there is.

    Raises:
        BenchError: a node does not see the results folder or the artifact cache, or the cluster is lost.
        KeyboardInterrupt: after every run has been told to stop.
    """
    import ray
    from ray.exceptions import RayError

    out, cache = out.resolve(), default_root().resolve()
    board: Any = ray.remote(num_cpus=0)(_Board).options(scheduling_strategy=_on(_this_node())).remote()
    task = ray.remote(max_retries=-1)(_make)  # of tasks whose node or worker died
    runs = list(plan.to_do)
    pending: dict[Any, int] = {}
    begun_elsewhere: list[int] = []
    begun: set[int] = set()

    def begins() -> Iterator[RunEvent]:
        for number in ray.get(board.taken.remote()):
            begun.add(number)
            yield RunEvent(runs[number])

    def submit(number: int, *, wait: bool) -> None:
        run = runs[number]
        cpus, gpus = cluster.nodes[cluster.largest] if run.exclusive else (cluster.cpus, cluster.gpus)
        variables = {"BENCH_CACHE": str(cache), "OMP_NUM_THREADS": str(run.threads or cluster.cpus)}
        words = words_of(run, plan.preset, out, wait=wait)
        pending[task.options(num_cpus=cpus, num_gpus=gpus).remote(words, variables, str(Path.cwd()), board, number)] = (
            number
        )

    try:
        _check_shared(cluster, (out, cache))
        for number in range(len(runs)):
            submit(number, wait=False)
        while pending:
            yield from begins()
            done, _ = ray.wait(list(pending), num_returns=1, timeout=0.5)
            if done:
                yield from begins()
            for found in done:
                number, result = pending.pop(found), _result(found)
                if number not in begun:  # it could not even begin
                    yield RunEvent(runs[number])
                if result[0] == BUSY:
                    begun_elsewhere.append(number)
                yield _ended(runs[number], result)
            if not pending:
                for number in begun_elsewhere:
                    submit(number, wait=True)
                begun_elsewhere = []
    except RayError as error:
        told = next(iter(str(error).splitlines()), type(error).__name__)
        raise BenchError(f"the Ray cluster is lost ({told}); the same command goes on") from error
    finally:
        for found in pending:
            with suppress(Exception):  # whatever the cluster can still do
                ray.cancel(found)
        if pending:
            with suppress(Exception):
                ray.wait(list(pending), num_returns=len(pending), timeout=STOP_SECONDS)


def _result(reference: Any) -> tuple[int, tuple[str, ...], float]:
    """Exit code, last lines and seconds of a run."""
    import ray
    from ray.exceptions import RayTaskError

    try:
        found: tuple[int, tuple[str, ...], float] = ray.get(reference)
    except RayTaskError as error:  # of the task itself, such as a Python without this package
        return 1, tuple(str(error.cause or error).splitlines()[-1:]), 0.0
    return found


def _ended(run: PlannedRun, result: tuple[int, tuple[str, ...], float]) -> RunEvent:
    code, lines, seconds = result
    if code == BUSY:
        return RunEvent(run, elsewhere="begun")
    return RunEvent(run, seconds, Failure(run, code, lines) if code else None)


class _Board:
    """Where tasks say that they begin: Ray tells only of their ends."""

    def __init__(self) -> None:
        self.new: list[int] = []

    def begin(self, number: int) -> None:
        self.new.append(number)

    def taken(self) -> list[int]:
        new, self.new = self.new, []
        return new


def _make(
    words: Sequence[str], variables: Mapping[str, str], cwd: str, board: Any, number: int
) -> tuple[int, tuple[str, ...], float]:
    """On a node: make a run; returns its exit code, last lines and seconds."""
    import ray

    ray.get(board.begin.remote(number))
    began = time.monotonic()
    with tempfile.TemporaryFile() as log:
        popen = subprocess.Popen(
            [sys.executable, "-m", "bench.cli.main", *words],
            env={**os.environ, **variables},
            cwd=cwd if Path(cwd).is_dir() else None,  # which relative paths of presets and data are relative to
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            preexec_fn=partial(_die_with, os.getpid()),
        )
        try:
            while popen.poll() is None:  # Ray's way to cancel interrupts Python, not a system call
                time.sleep(0.2)
        finally:
            if popen.poll() is None:
                popen.terminate()
                try:
                    popen.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    popen.kill()
        return popen.returncode, last_lines(log), time.monotonic() - began


_LIBC = ctypes.CDLL(None)


def _die_with(parent: int) -> None:
    """Where a worker is killed, its run ends as by SIGTERM, and another node can go on with it (Linux)."""
    with suppress(AttributeError):
        _LIBC.prctl(_DIE_WITH_PARENT, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


def _check_shared(cluster: Cluster, folders: Sequence[Path]) -> None:
    """Refuse folders that a node does not share with this machine.

    Raises:
        BenchError: names folder and node, or the node without distillm-bench.
    """
    for folder in folders:
        mark = folder / f".shared-{uuid.uuid4().hex}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            mark.touch()
        except OSError as error:
            raise cannot_write(folder, error) from error
        try:
            for node in cluster.nodes:
                if not _asked(node, _is_there, str(mark)):
                    raise BenchError(
                        f"node {node[:8]} of the Ray cluster does not see {folder}: give a folder that all nodes share "
                        "(--out for records, BENCH_CACHE for teachers and init students)"
                    )
        finally:
            mark.unlink()


def _asked(node: str, question: Callable[..., A], *words: str) -> A:
    """What a function says on a node."""
    import ray
    from ray.exceptions import RayTaskError

    task = ray.remote(num_cpus=0)(question)
    try:
        answer: A = ray.get(task.options(scheduling_strategy=_on(node)).remote(*words))
    except RayTaskError as error:
        raise BenchError(
            f"node {node[:8]} of the Ray cluster cannot run distillm-bench ({error.cause or 'see its logs'}): install "
            "the same version there, in the Python that Ray runs with"
        ) from error
    return answer


def _is_there(path: str) -> bool:
    return Path(path).exists()


def _on(node: str) -> NodeAffinitySchedulingStrategy:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def _this_node() -> str:
    import ray

    found: str = ray.get_runtime_context().get_node_id()
    return found
