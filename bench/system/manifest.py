"""What a record says of the machine: plain typed values, readable without PyTorch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Plain(BaseModel):
    """Base of what stands in records: typed, immutable, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Git(Plain):
    """The checkout the code ran from."""

    commit: str
    changed: bool


class Environment(Plain):
    """Hardware and software of a run. No host or user names.

    Attributes:
        threads: CPU threads of PyTorch.
        memory_gib: of the machine.
        packages: versions by name.
        git: None outside a checkout.
        attention: kernels that PyTorch may choose from for attention; None where there is no choice.
        variables: of the process's environment, those that choose kernels.
        load_before: the machine's load average at the start.
        other_load: cores that others kept busy during training; None where that was not measured.
        other_gpu_processes: the most that computed on a GPU of the run during training, beside it; None where it had
            none, or where nobody could say.
        processes: that made the run together, `threads` of each; None = one.
        sharded: whether each of them held a part of the models that were in training (FSDP); None = it held all.
    """

    python: str
    platform: str
    cpu: str
    cpu_cores: int | None
    threads: int
    memory_gib: float
    device: str
    device_name: str
    cuda: str | None
    packages: dict[str, str]
    distillm_bench: str
    git: Git | None
    attention: tuple[str, ...] | None = None
    variables: dict[str, str] = Field(default_factory=dict)
    load_before: float | None = None
    other_load: float | None = None
    other_gpu_processes: int | None = None
    processes: int | None = None
    sharded: bool | None = None

    @property
    def hardware(self) -> str:
        """Device, processor and CPU threads in words, such as "cpu (AMD EPYC, 1 thread)"."""
        several = f"{self.processes} processes {'with FSDP ' if self.sharded else ''}of " if self.processes else ""
        return f"{self.device_name} ({self.cpu}, {several}{self.threads} thread{'' if self.threads == 1 else 's'})"


class PeakMemory(Plain):
    """Peak memory in bytes: of the device during training, and resident of the process since its start."""

    device_bytes: int | None
    process_bytes: int | None

    @property
    def peak(self) -> int | None:
        """The device's, or on a CPU the process's."""
        return self.device_bytes or self.process_bytes
