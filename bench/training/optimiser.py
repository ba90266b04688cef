"""The optimiser of a training, and what a step needs to know of it."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.tensor import DTensor

from bench.config.sections import TrainingConfig
from bench.system.errors import BenchError
from bench.training.sharded import collected, shared_as


def make_optimiser(
    groups: list[dict[str, Any]], config: TrainingConfig, device: torch.device, *, sharded: bool = False
) -> torch.optim.Optimizer:
    """AdamW in one kernel, or with its moments in 8 bits (arXiv:2110.02861).

    Args:
        groups: of parameters.
        config: of the training.
        device: of the parameters.
        sharded: some of them are shared out among processes, others are not. No kernel takes both: they are stepped
            one by one.

    Raises:
        BenchError: bitsandbytes, which has the 8-bit one, is missing or has no kernels for the device.
    """
    betas = (0.9, config.adam_beta2)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=not sharded, foreach=False)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise BenchError(
            "optimizer=adamw-8bit needs the package bitsandbytes: pip install 'distillm-bench[8bit]', or take "
            "optimizer=adamw"
        ) from error
    except (OSError, RuntimeError) as error:  # its library of kernels does not load
        raise _no_kernels(device, error) from error
    made: torch.optim.Optimizer = AdamW8bit(groups, lr=config.learning_rate, betas=betas)
    probe = torch.nn.Parameter(torch.zeros(4096, device=device))  # the fewest that it keeps in 8 bits
    probe.grad = torch.zeros_like(probe)
    try:
        AdamW8bit([probe]).step()
    except (AttributeError, NotImplementedError, OSError, RuntimeError, ValueError) as error:
        raise _no_kernels(device, error) from error
    return made


def skips_by_itself(optimiser: torch.optim.Optimizer) -> bool:
    """Whether a step with `found_inf` set to 1 changes nothing, so that the host need not look first."""
    return isinstance(optimiser, torch.optim.AdamW) and bool(optimiser.defaults["fused"])


def tensors_of(optimiser: torch.optim.Optimizer, *, keep: bool = True) -> dict[str, torch.Tensor]:
    """The optimiser's state as tensors of their own, by index of the parameter and name; whole numbers as int64.

    Of what is shared out all is collected, so that every process has to ask; it is left in the host's memory, or on
    processes that do not `keep` it nowhere.
    """
    made: dict[str, torch.Tensor] = {}
    places: set[int] = set()
    # not `state_dict`, in which bitsandbytes hides what is in 8 bits
    for index, parameter in enumerate(_parameters(optimiser)):
        for key, value in optimiser.state.get(parameter, {}).items():
            tensor = value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.int64)
            if isinstance(tensor, DTensor):
                whole = collected(tensor)
                tensor = whole.cpu() if keep else tensor
            if not keep:
                continue
            # parameters share the table that 8-bit numbers stand for
            made[f"{index}.{key}"] = tensor.clone() if tensor.data_ptr() in places else tensor
            places.add(tensor.data_ptr())
    return made


def load_tensors(optimiser: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Take back what `tensors_of` gave."""
    moments = optimiser.state_dict()
    moments["state"] = {}
    parameters = _parameters(optimiser)
    for name, tensor in tensors.items():
        index, key = name.split(".")
        whole_number = tensor.ndim == 0 and tensor.dtype == torch.int64
        moments["state"].setdefault(int(index), {})[key] = (
            int(tensor) if whole_number else shared_as(tensor, parameters[int(index)])
        )
    optimiser.load_state_dict(moments)


def _parameters(optimiser: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def _no_kernels(device: torch.device, error: Exception) -> BenchError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return BenchError(
        f"optimizer=adamw-8bit: bitsandbytes has no kernels for this {device.type} device ({reason}): take a CUDA "
        "device, or optimizer=adamw"
    )
