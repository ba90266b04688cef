"""Values on their way between host and device, on CUDA without either waiting for the other."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def on_device(values: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor on a device, on CUDA copied while the host goes on."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class Arriving:
    """A tensor's values on their way to the host, which need not wait for them until it reads them."""

    def __init__(self, values: Tensor) -> None:
        self.values = values.to("cpu", non_blocking=values.is_cuda)  # to pinned memory, from CUDA
        self.there = torch.cuda.Event() if values.is_cuda else None  # type: ignore[no-untyped-call]
        if self.there is not None:
            self.there.record()

    def read(self) -> list[float]:
        """The values; waits until what made them is done."""
        if self.there is not None:
            self.there.synchronize()
        values: list[float] = self.values.tolist()
        return values
