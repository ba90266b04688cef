"""The libraries of the extra `perf`: measured beside ours where they are installed."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import warnings
from types import ModuleType

import torch

LIBRARIES = ("trl", "liger-kernel", "triton")
_ADVICE = "pip install 'distillm-bench[perf]'"


def versions() -> dict[str, str]:
    """Versions of those that are installed."""
    there: dict[str, str] = {}
    for name in LIBRARIES:
        try:
            there[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return there


def load(module: str, device: torch.device) -> ModuleType | str:
    """A module of TRL or Liger, or the reason why it cannot be measured here."""
    package = module.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        return f"{package} is not installed: {_ADVICE}"
    if package == "liger_kernel" and device.type != "cuda":
        return "Liger's kernels are Triton's and need a GPU"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TRL warns that what is experimental may change, and advises
            logging.getLogger("trl").setLevel(logging.ERROR)
            return importlib.import_module(module)
    except Exception as error:
        return f"{module} cannot be imported ({type(error).__name__}: {str(error).strip().partition(chr(10))[0]})"
