"""Capturing work as a CUDA graph, so that neither Python's collector nor a failure does harm."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch


class NotCaptured(RuntimeError):
    """Work could not be captured as a graph; everything else goes on as before."""


def capture(work: Callable[[], None], pool: Any, stream: torch.cuda.Stream | None = None) -> Callable[[], None]:
    """Record the launches of some work, which is not done yet; returns what does it.

    Args:
        work: reads and writes fixed memory, and has run before on the device.
        pool: of memory that graphs share, from `torch.cuda.graph_pool_handle()`.
        stream: to capture on; None = one that torch keeps for it.

    Raises:
        NotCaptured: the work cannot be captured.
    """
    graph = torch.cuda.CUDAGraph()
    collecting = gc.isenabled()
    gc.disable()  # freeing what belongs to another stream or graph would end the capture
    try:
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            work()
    except RuntimeError as error:
        _end_capture_mode()
        raise NotCaptured(str(error)) from error
    finally:
        if collecting:
            gc.enable()
    replay: Callable[[], None] = graph.replay
    return replay


def _end_capture_mode() -> None:
    """After a capture that failed, torch's random generator still takes itself for captured and refuses to draw.

    Beginning and ending another capture ends that.
    """
    something = torch.zeros(1, device="cuda")
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        something.add_(1)
