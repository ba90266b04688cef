"""The processes of one run, as `torchrun` and `accelerate launch` start them.

Every process does the same in the same order and holds the whole state of a training; each computes its part of what
takes time, and the parts are put together. The one of rank 0 leads: it alone takes locks, decides what there is to do,
and writes. No process waits for a lock that another one of them holds while that one waits for it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import psutil

from bench.system.artifacts import Busy
from bench.system.errors import BenchError, first_line

if TYPE_CHECKING:  # commands that read must not wait for PyTorch
    import torch
    from torch.distributed import ProcessGroup

A = TypeVar("A")
B = TypeVar("B")

RENDEZVOUS_SECONDS = 50.0  # for all processes to be there
_GRACE_SECONDS = 10.0  # for a process to end by itself, and with its own message, after another has ended
STOPPED_SECONDS = 40  # that a process may be stopped, as by SIGSTOP, while others run
_LONGEST = timedelta(days=7)  # that one waits for another which lives: the leader may have to wait for a lock

_LAUNCHER = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_OTHER_KINDS = ("DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG")
_WITHOUT = "start it without `torchrun` or `accelerate launch`, or unset WORLD_SIZE"


@dataclass(frozen=True)
class Processes:
    """The processes of a run, as one of them sees them.

    Each method is called by all of them, in the same order; a run of one process passes through.

    Attributes:
        rank: which one this is, from 0.
        size: how many there are.
        group: what they talk through; None before they have met.
        sharded: whether each has a part of the models that are in training (FSDP2), not all of them.

    Raises:
        BenchError: from any method, where another process has ended.
    """

    rank: int = 0
    size: int = 1
    group: ProcessGroup | None = None
    sharded: bool = False

    @property
    def leads(self) -> bool:
        """Whether this one takes locks, decides and writes."""
        return self.rank == 0

    def gather(self, value: A) -> list[A]:
        """Every process's value, by rank; none goes on before all are here."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[A] = [value] * self.size
        with _ended_in_words():
            dist.all_gather_object(values, value, group=self.group)
        return values

    def wait(self) -> None:
        """Wait until all are here."""
        self.gather(None)

    def tell(self, value: A) -> A:
        """The leader's value."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        values = [value]
        with _ended_in_words():
            dist.broadcast_object_list(values, src=0, group=self.group)
        return values[0]

    def spread(self, items: Sequence[A], work: Callable[[Sequence[A]], Sequence[B]]) -> list[B]:
        """What `work` makes of each item, in their order; each process does every `size`-th, some maybe none."""
        if self.size == 1:
            return list(work(items))
        mine = [items[i] for i in range(self.rank, len(items), self.size)]
        parts = self.gather(list(work(mine)) if mine else [])
        return [parts[i % self.size][i // self.size] for i in range(len(items))]

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Put the sum over processes in the place of each tensor, the same bits everywhere."""
        if self.size == 1:
            return
        import torch.distributed as dist

        with _ended_in_words():
            for pending in [dist.all_reduce(one, group=self.group, async_op=True) for one in tensors]:
                assert pending is not None
                pending.wait()

    def check_same(self, value: object, what: str) -> None:
        """Refuse to go on where processes differ.

        Raises:
            BenchError: naming what differs.
        """
        values = self.gather(value)
        if any(other != values[0] for other in values):
            raise BenchError(f"the processes of this run differ in {what}: {', '.join(map(str, values))}")


ALONE = Processes()


def launched() -> Processes:
    """This process among those that a launcher started, by the variables it set; they have not met yet.

    Raises:
        BenchError: the variables do not fit together, or ask for what a run cannot do.
    """
    size = _number("WORLD_SIZE")
    if size <= 1:
        for name in ("OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"):
            if _number(name) > 1:
                raise BenchError(f"{name}={os.environ[name]}: MPI does not start the processes of a run; take torchrun")
        return ALONE
    if missing := [name for name in _LAUNCHER if not os.environ.get(name)]:
        raise BenchError(
            f"WORLD_SIZE={size}, but {', '.join(missing)} is not set: start several processes with `torchrun "
            "--nproc-per-node N` or `accelerate launch`, or unset WORLD_SIZE"
        )
    rank, here = _number("RANK"), _number("LOCAL_WORLD_SIZE")
    if here != size:
        raise BenchError(
            f"the processes of a run have to be on one machine, and {here} of {size} are on this one: start each "
            "machine's processes on their own, with runs of their own"
        )
    if not 0 <= rank < size:
        raise BenchError(f"RANK={rank} is not below WORLD_SIZE={size}")
    for kind in _OTHER_KINDS:
        if _is_set(f"ACCELERATE_USE_{kind}"):
            raise BenchError(
                f"ACCELERATE_USE_{kind}: each process of a run holds the whole model (data parallel), or with FSDP its "
                "part of it; take torchrun, or `accelerate launch` with --multi_gpu or --use_fsdp"
            )
    return Processes(rank, size, sharded=_sharded())


def _sharded() -> bool:
    """Whether the launcher was asked for FSDP."""
    if not _is_set("ACCELERATE_USE_FSDP"):
        return False
    if _number("FSDP_VERSION") != 2:
        raise BenchError("FSDP of version 1 is not supported: accelerate launch --use_fsdp --fsdp_version 2")
    if _is_set("FSDP_OFFLOAD_PARAMS"):
        raise BenchError("FSDP here leaves nothing in the host's memory: leave out --fsdp_offload_params")
    # with it transformers would load zeros on all processes but the first, for a launcher that spreads them afterwards
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    return True


def _is_set(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("1", "true", "yes")


def check_one_process(what: str) -> None:
    """Refuse what takes one process only.

    Raises:
        BenchError: a launcher started several.
    """
    if (size := launched().size) > 1:
        raise BenchError(f"{what} takes one process, and WORLD_SIZE={size}: {_WITHOUT}")


def _number(name: str) -> int:
    text = os.environ.get(name) or "0"
    try:
        return int(text)
    except ValueError:
        raise BenchError(f"{name}={text}: expected a whole number; unset it to use one process") from None


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """The processes that were launched, once all are there; from then on none outlives another that died.

    Args:
        device: what the run computes on; of CUDA each process takes the GPU of its rank.

    Raises:
        BenchError: they cannot use the device, or do not meet within `RENDEZVOUS_SECONDS`.
    """
    place = launched()
    if place.size == 1:
        yield ALONE
        return
    import torch
    import torch.distributed as dist

    if device.type not in ("cpu", "cuda"):
        raise BenchError(f"--device {device.type} takes one process, and WORLD_SIZE={place.size}: {_WITHOUT}")
    if device.type == "cuda":
        if (found := torch.cuda.device_count()) < place.size:
            raise BenchError(f"{place.size} processes need a GPU each, and {found} can be seen here: start {found}")
        torch.cuda.set_device(place.rank)
    try:
        backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
        dist.init_process_group(
            backend, rank=place.rank, world_size=place.size, timeout=timedelta(seconds=RENDEZVOUS_SECONDS)
        )
        made = replace(place, group=dist.new_group(timeout=_LONGEST))
    except (RuntimeError, ValueError) as error:
        raise BenchError(f"the {place.size} processes of this run did not meet: {first_line(error)}") from error
    watch = _Watch(made.gather(os.getpid()))
    watch.start()
    try:
        yield made
    except RuntimeError as error:  # from a pass of layers that are shared out, in which processes wait for each other
        if not made.sharded or not (dead := watch.dead_soon()):
            raise
        raise BenchError(f"process {dead[0]} {_ENDED} ({first_line(error)})") from error
    except Busy:  # told to all: each ends now
        dist.destroy_process_group()  # else its threads may abort a process that is ending
        raise
    finally:
        watch.over.set()
    made.wait()  # nobody's watch sees another one end that is done
    dist.destroy_process_group()


class _Watch(threading.Thread):
    """Ends this process after another one of the run has died, or was stopped for long: that one is killed.

    A process that waits for a dead one may wait for ever: what it waits in knows nothing of processes. One that is
    stopped might hold the run's lock for ever.
    """

    def __init__(self, ids: list[int]) -> None:
        super().__init__(daemon=True, name="watch over the processes of the run")
        self.over = threading.Event()
        self.others = {rank: _process(pid) for rank, pid in enumerate(ids) if pid != os.getpid()}

    def dead(self) -> list[int]:
        """Ranks of those that have ended."""
        return [rank for rank, other in self.others.items() if not _lives(other)]

    def dead_soon(self) -> list[int]:
        """The same, of those too that are just ending: their connections go first."""
        for _ in range(30):
            if dead := self.dead():
                return dead
            time.sleep(0.1)
        return []

    def run(self) -> None:
        seen_stopped = Counter[int]()  # looks, not time: where all are stopped, none looks
        while not self.over.wait(1.0):
            for rank, other in self.others.items():
                seen_stopped[rank] = seen_stopped[rank] + 1 if other is not None and _is_stopped(other) else 0
                if other is not None and seen_stopped[rank] > STOPPED_SECONDS:
                    with suppress(psutil.Error):
                        other.kill()
            if (dead := self.dead()) and not self.over.wait(_GRACE_SECONDS):
                sys.stderr.write(f"error: process {dead[0]} {_ENDED}\n")
                sys.stderr.flush()
                os._exit(2)  # the main thread may be waiting inside a library


_ENDED = "of this run has ended; the same command goes on from the last checkpoint"


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None


def _lives(process: psutil.Process | None) -> bool:
    try:
        return process is not None and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _is_stopped(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False


@contextmanager
def _ended_in_words() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise BenchError(f"another process {_ENDED} ({first_line(error)})") from error
