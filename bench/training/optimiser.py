"""The optimiser of a training: AdamW, what a step of it takes, and what a checkpoint keeps of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from bench.config.sections import TrainingConfig
from bench.system.errors import BenchError
from bench.training.job import TrainingJob
from bench.training.sharded import clip_gradients, shared_as


class Optimiser:
    """AdamW over the weights that a training changes; after a figure that is not finite it changes none any more.

    Args:
        job: of the training.
        sharded: some weights are shared out among processes, others are not. No kernel takes both: they are stepped
            one by one.

    Raises:
        BenchError: bitsandbytes, which has the 8-bit one, is missing or has no kernels for the device.

    Attributes:
        adamw: what takes the steps.
    """

    def __init__(self, job: TrainingJob, *, sharded: bool) -> None:
        self.network, self.config, self.processes = job.student.network, job.config, job.processes
        device = job.student.device
        groups = _parameter_groups(self.network, self.config.weight_decay)
        self.adamw = _adamw(groups, self.config, device, sharded=sharded)
        self.failed = torch.zeros((), device=device)  # 1 after a step whose figures are not finite

    @property
    def skips_by_itself(self) -> bool:
        """Whether a step with `found_inf` set to 1 changes nothing, so that the host need not look first."""
        return isinstance(self.adamw, torch.optim.AdamW) and bool(self.adamw.defaults["fused"])

    def set_learning_rate(self, rate: float) -> None:
        """Take the next steps at this rate."""
        for group in self.adamw.param_groups:
            group["lr"] = rate

    def update(self, losses: dict[str, Tensor], *, keep_gradients: bool = False) -> dict[str, Tensor]:
        """Clip the gradient and take a step; returns the losses and the norm before clipping, on the device.

        After a loss or norm that is inf or nan no step changes the weights any more.

        Args:
            losses: of the batch by name, of several processes each one's share of them.
            keep_gradients: as zeros, for captured passes, which add to them where they lie.
        """
        losses = self._add_up(losses)
        norm = clip_gradients(list(self.network.parameters()), self.config.max_grad_norm, self.processes)
        measured = losses | {"gradient_norm": norm}
        finite = torch.stack(list(measured.values())).isfinite().all()
        self.failed = torch.maximum(self.failed, (~finite).float())
        if self.skips_by_itself:
            # The fused kernel takes no step where this is 1: the host may look later, when the next step is queued.
            self.adamw.found_inf = self.failed  # type: ignore[attr-defined]
            self.adamw.step()
        elif not self.failed:
            self.adamw.step()
        # elsewhere a weight that the next batch does not reach must have no gradient, or AdamW lets it decay
        self.adamw.zero_grad(set_to_none=not keep_gradients)
        return measured

    def _add_up(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch's losses and gradients from the processes' shares of them.

        Sums of float32 are rounded by their order, so that two processes equal one but for rounding; among each other
        they stay equal to the bit. A weight that no process has a gradient for keeps none.
        """
        if self.processes.size == 1:
            return losses
        # what is shared out was summed in the backward pass
        trained = [p for p in self.network.parameters() if p.requires_grad and not isinstance(p, DTensor)]
        reached = torch.tensor([p.grad is not None for p in trained], dtype=torch.int32)  # on the host: nobody waits
        self.processes.add_up([reached])
        for parameter, processes in zip(trained, reached.tolist(), strict=True):
            if processes and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        summed = torch.stack(list(losses.values()))
        self.processes.add_up([summed, *(p.grad for p in trained if p.grad is not None)])
        return dict(zip(losses, summed, strict=True))

    def tensors(self, *, keep: bool = True) -> dict[str, Tensor]:
        """The state as tensors of their own, by index of the parameter and name; whole numbers as int64.

        Of what is shared out all is collected, so that every process has to ask; it is left in the host's memory, or on
        processes that do not `keep` it nowhere.
        """
        made: dict[str, Tensor] = {}
        places: set[int] = set()
        # not `state_dict`, in which bitsandbytes hides what is in 8 bits
        for index, parameter in enumerate(self._parameters()):
            for key, value in self.adamw.state.get(parameter, {}).items():
                tensor = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.int64)
                if isinstance(tensor, DTensor):
                    whole = tensor.full_tensor()
                    tensor = whole.cpu() if keep else tensor
                if not keep:
                    continue
                # parameters share the table that 8-bit numbers stand for
                made[f"{index}.{key}"] = tensor.clone() if tensor.data_ptr() in places else tensor
                places.add(tensor.data_ptr())
        return made

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `tensors` gave."""
        moments = self.adamw.state_dict()
        moments["state"] = {}
        parameters = self._parameters()
        for name, tensor in tensors.items():
            index, key = name.split(".")
            whole_number = tensor.ndim == 0 and tensor.dtype == torch.int64
            moments["state"].setdefault(int(index), {})[key] = (
                int(tensor) if whole_number else shared_as(tensor, parameters[int(index)])
            )
        self.adamw.load_state_dict(moments)

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [parameter for group in self.adamw.param_groups for parameter in group["params"]]


def _parameter_groups(network: PreTrainedModel, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices only, not on biases and normalisation weights."""
    trained = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _adamw(
    groups: list[dict[str, Any]], config: TrainingConfig, device: torch.device, *, sharded: bool
) -> torch.optim.Optimizer:
    """AdamW in one kernel, or with its moments in 8 bits (arXiv:2110.02861)."""
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


def _no_kernels(device: torch.device, error: Exception) -> BenchError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return BenchError(
        f"optimizer=adamw-8bit: bitsandbytes has no kernels for this {device.type} device ({reason}): take a CUDA "
        "device, or optimizer=adamw"
    )
