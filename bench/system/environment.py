"""What a run ran on and with: hardware, software, memory, energy. No host or user names."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from bench.system.errors import BenchError
from bench.system.manifest import Environment, Git, PeakMemory

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "datasets",
    "numpy",
    "sacrebleu",
    "rouge-score",
)

CODE = ("distillm", "baselines", "bench", "paper_tables")
"""The packages of this project."""


def pick_device(wanted: str) -> torch.device:
    """The device for `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        BenchError: the wanted device is not there.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return torch.device("cuda" if there["cuda"] else "mps" if there["mps"] else "cpu")
    if not there.get(wanted):
        found = ", ".join(name for name, present in there.items() if present)
        build = " (this PyTorch is built without CUDA)" if wanted == "cuda" and torch.version.cuda is None else ""
        raise BenchError(f"--device {wanted}: no such device here{build}; found: {found}")
    return torch.device(wanted)


READ_BY_LIBRARIES = (
    "ATEN_CPU_CAPABILITY",
    "MKL_CBWR",
    "MKL_DISABLE_FAST_MM",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "TORCH_LINEAR_FLATTEN_3D",
    "TORCH_MKLDNN_MATMUL_MIN_DIM",
    "TORCH_MKLDNN_MATMUL_MIN_SIZE",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUBLASLT_WORKSPACE_SIZE",
    "NCCL_ALGO",
    "NCCL_PROTO",
    "PYTORCH_MPS_FAST_MATH",
    "PYTORCH_TUNABLEOP_ENABLED",
    "TORCH_BLAS_PREFER_CUBLASLT",
    "TORCH_CUDNN_V8_API_DISABLED",
    "TORCH_LINALG_PREFER_CUSOLVER",
    "DISABLE_ADDMM_CUDA_LT",
    "USE_HUB_KERNELS",
)
"""Variables that choose kernels, if only their rounding, and that no call overrules: part of a run's identity."""


def choose_kernels(device: torch.device) -> None:
    """Set PyTorch's switches that change numbers, so that no variable and no calling program sets them otherwise.

    Products and convolutions of float32 are in float32, not in TF32. Attention keeps off cuDNN, which builds a plan for
    every new batch size and length: seconds, on Hopper.

    Raises:
        BenchError: the driver is told to compute in TF32 whatever a program says.
    """
    torch.set_default_dtype(torch.float32)
    torch.set_float32_matmul_precision("highest")
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = False
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)
        if os.environ.get("NVIDIA_TF32_OVERRIDE", "0") != "0":
            raise BenchError("NVIDIA_TF32_OVERRIDE makes float32 TF32 behind PyTorch's back: unset it, or set it to 0")


def kernel_variables() -> dict[str, str]:
    """Those of `READ_BY_LIBRARIES` that are set."""
    return {name: os.environ[name] for name in READ_BY_LIBRARIES if name in os.environ}


def autocast(device: torch.device, precision: Literal["fp32", "bf16"]) -> AbstractContextManager[None]:
    """What forward passes run under."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def attention_kernels(device: torch.device) -> tuple[str, ...] | None:
    """Those that PyTorch may choose from for attention; None on a device where there is one kind only."""
    if device.type != "cuda":
        return None
    kernels = {"flash": "flash", "memory-efficient": "mem_efficient", "math": "math", "cudnn": "cudnn"}
    return tuple(name for name, short in kernels.items() if getattr(torch.backends.cuda, f"{short}_sdp_enabled")())


def describe(device: torch.device) -> Environment:
    """Hardware and software as they stand now."""
    return Environment(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        cpu=_cpu_name(),
        cpu_cores=psutil.cpu_count(logical=True),
        threads=torch.get_num_threads(),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        device=device.type,
        device_name=_device_name(device),
        cuda=torch.version.cuda if device.type == "cuda" else None,
        packages={name: importlib.metadata.version(name) for name in PACKAGES},
        distillm_bench=importlib.metadata.version("distillm-bench"),
        git=git_state(),
        attention=attention_kernels(device),
        variables=kernel_variables(),
        # the machine's load average; `other_load`, measured during training, is what tables of times go by
        load_before=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    )


def this_machine() -> tuple[str, str]:
    """Device and processor that a run gets here, as its record will have them."""
    return _device_name(pick_device("auto")), _cpu_name()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def git_state() -> Git | None:
    """Commit of the checkout the code runs from, and whether its files were changed; None outside a checkout.

    A file that git does not know counts as a change where it may be code of this project: Python or YAML in one of
    its packages.
    """
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        # without optional locks: a run that is killed meanwhile would leave the index locked
        command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        code = [f":(glob){package}/**/*.{ending}" for package in CODE for ending in ("py", "yaml")]
        unknown = git("ls-files", "--others", "--exclude-standard", "--", *code)
        return Git(commit=git("rev-parse", "HEAD"), changed=bool(changed or unknown))
    except (OSError, subprocess.SubprocessError):
        return None


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of the device's peak memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> PeakMemory:
    """Peak memory in bytes: of the device since the last reset, and resident of this process since its start."""
    on_device = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    try:
        of_process = resident("VmHWM")
    except OSError:
        of_process = None
    return PeakMemory(device_bytes=on_device, process_bytes=of_process)


def resident(field: str, process: int | Literal["self"] = "self") -> int:
    """Bytes that a process has in memory (the field VmRSS of its status), or has had at most (VmHWM).

    Raises:
        OSError: the process is over, or the system does not tell.
    """
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    for line in lines:
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/{process}/status does not say {field}")


def largest(of_processes: list[PeakMemory]) -> PeakMemory:
    """What the process that needs most has to have."""
    return PeakMemory(
        device_bytes=max((one.device_bytes for one in of_processes if one.device_bytes is not None), default=None),
        process_bytes=max((one.process_bytes for one in of_processes if one.process_bytes is not None), default=None),
    )


class LoadMeter:
    """How many cores others keep busy, on average since the meter was made.

    The machine's busy time, interrupts and what a hypervisor withholds included, less that of this process and its
    children. It sees what the kernel shows: in a container usually the whole host. It sees no other user of a GPU.
    """

    def __init__(self) -> None:
        self._started, self._machine, self._own = time.perf_counter(), _busy_seconds(), _own_seconds()

    def used(self) -> float:
        """Seconds that this process kept cores busy."""
        return _own_seconds() - self._own

    def mean(self, of_run: float | None = None) -> float:
        """Cores kept busy by others; 0 for a machine that had nothing else to do.

        Args:
            of_run: what `used` came to, in all processes of the run together; None = in this one.
        """
        seconds = time.perf_counter() - self._started
        others = _busy_seconds() - self._machine - (self.used() if of_run is None else of_run)
        return max(0.0, round(others / seconds, 3)) if seconds else 0.0


def _busy_seconds() -> float:
    """Of all cores of the machine."""
    machine = psutil.cpu_times()
    kinds = ("user", "nice", "system", "irq", "softirq", "steal")  # not every platform has all
    return float(sum(getattr(machine, kind, 0.0) for kind in kinds))


def _own_seconds() -> float:
    this = psutil.Process()
    own = [this.cpu_times()]
    for child in this.children(recursive=True):
        try:
            own.append(child.cpu_times())
        except psutil.Error:  # it ended meanwhile; its parent's times hold its own
            continue
    return float(
        sum(t.user + t.system + getattr(t, "children_user", 0) + getattr(t, "children_system", 0) for t in own)
    )


class GpuWatch:
    """Who computes on a GPU beside this process, looked at every `WATCH_SECONDS` and at the end of the context.

    Args:
        device: on any but CUDA there is nothing to watch.

    Attributes:
        most: of them at once; None where nobody can say.
    """

    def __init__(self, device: torch.device) -> None:
        self.most: int | None = None
        self._uuid = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watch over the GPU")

    def __enter__(self) -> GpuWatch:
        if self._uuid is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._uuid is not None:
            self._over.set()
            self._thread.join()

    def _watch(self) -> None:
        assert self._uuid is not None
        while True:
            over = self._over.wait(WATCH_SECONDS)
            found = others_on_gpu(self._uuid)
            self.most = max((count for count in (self.most, found) if count is not None), default=None)
            if over:
                return


WATCH_SECONDS = 30.0


def others_on_gpu(uuid: str) -> int | None:
    """How many processes compute on a GPU beside this one, which does; None where the driver shows none at all.

    In a container the driver hides other processes, or numbers them otherwise: this one is counted, not looked for.
    """
    asked = ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader", f"--id=GPU-{uuid.removeprefix('GPU-')}"]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    shown = [line for line in answer.splitlines() if line.strip().isdecimal()]
    return len(shown) - 1 if shown else None


class EnergyMeter:
    """Energy of an NVIDIA device in joules, where nvidia-ml-py is installed and the device reports it."""

    def __init__(self, device: torch.device) -> None:
        self._read = _energy_reader(device)
        self._start = self._read() if self._read else None

    def joules(self) -> float | None:
        """Joules since the meter was made; None where nothing reports them."""
        if self._read is None or self._start is None:
            return None
        return float(self._read() - self._start) / 1000


def _energy_reader(device: torch.device) -> Any:
    if device.type != "cuda":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # no package, no permission or an old device: energy is simply not reported
        return None
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
