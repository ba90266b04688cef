"""A network's forward and backward pass as CUDA graphs: launched by the device, not kernel by kernel by the host.

For a small model or batch it takes the host longer to launch the kernels than the device to run them. A graph holds the
launches of one shape of inputs; one call replays it. What is captured ends at the hidden states that the output layer
reads. The loss, its gradient there and the optimiser's step stay as they are, for any objective.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bench.system.cuda_graphs import capture

Inputs = dict[str, Tensor]

_EAGER_PASSES = 2  # of a shape before it is captured: capturing takes about three of them, and a rare shape never pays
_MOST_GRAPHS = 64  # of a network: each keeps its hidden states and a few MB of launches


class CapturedPass:
    """From a network's inputs to its hidden states, (B, T, H), as a function that CUDA graphs stand for where it pays.

    The numbers are those of the function, its random draws included. Gradients, where they are recorded, are added to
    the parameters' `grad`, which must then stay the same tensors (`zero_grad(set_to_none=False)`). The result holds
    until the next call.

    Args:
        forward: the function; it may be called with any inputs.
        parameters: those to form gradients of, where gradients are recorded; empty where none are wanted.
        note: told if the network cannot be captured, and why.
        recorder: what captures.
    """

    def __init__(
        self,
        forward: Callable[[Inputs], Tensor],
        parameters: list[nn.Parameter],
        note: Callable[[str], None],
        recorder: CudaRecorder,
    ) -> None:
        self.forward, self.parameters, self.note, self.recorder = forward, parameters, note, recorder
        self.passes: Counter[Hashable] = Counter()
        self.graphs: dict[Hashable, _Graph] = {}
        self.possible = True

    def __call__(self, inputs: Inputs) -> Tensor:
        """Hidden states, with their gradient's way back if gradients are recorded and there are parameters."""
        device = next(iter(inputs.values())).device.type
        shapes = tuple((name, *values.shape) for name, values in inputs.items())
        key = (shapes, torch.is_autocast_enabled(device), torch.is_grad_enabled())
        self.passes[key] += 1
        if key not in self.graphs and self._is_worth_it(key):
            try:
                self.graphs[key] = _Graph(self.forward, self.parameters, self.recorder, inputs)
            except RuntimeError as error:
                self.possible = False
                why, _, _ = str(error).partition("\n")
                self.note(f"its passes are not captured as CUDA graphs: {why}")
        graph = self.graphs.get(key)
        return self.forward(inputs) if graph is None else graph(inputs)

    @property
    def adds_in_place(self) -> bool:
        """Whether some graph adds to gradients where they lie."""
        return any(graph.with_gradients for graph in self.graphs.values())

    def forget(self) -> None:
        """Free all graphs, and with them where they write: gradients may then be other tensors."""
        self.graphs.clear()
        self.passes.clear()

    def _is_worth_it(self, key: Hashable) -> bool:
        return self.possible and self.passes[key] > _EAGER_PASSES and len(self.graphs) < _MOST_GRAPHS


class _Graph:
    """The captured passes for one shape of inputs. Inputs, result and its gradient have fixed places."""

    def __init__(
        self,
        forward: Callable[[Inputs], Tensor],
        parameters: list[nn.Parameter],
        recorder: CudaRecorder,
        inputs: Inputs,
    ) -> None:
        self.forward, self.parameters = forward, parameters
        self.inputs = {name: values.clone() for name, values in inputs.items()}
        device = next(iter(inputs.values())).device
        self.anchor = torch.empty(0, device=device, requires_grad=True)  # makes autograd call for the way back
        self.with_gradients = bool(parameters) and torch.is_grad_enabled()
        with torch.random.fork_rng([device] if device.type == "cuda" else []):  # the draws belong to the first replay
            recorder.rehearse(self._rehearsal)
        self.replay_forward = recorder.record(self._forward)
        if self.with_gradients:
            self.replay_backward = recorder.record(self._backward)
        self.hidden: Tensor = self.hidden.detach()  # and what was saved for the way back is free for the next graph

    def __call__(self, inputs: Inputs) -> Tensor:
        """See `CapturedPass`."""
        for name, values in inputs.items():
            self.inputs[name].copy_(values)
        if self.with_gradients:
            hidden: Tensor = _Replay.apply(self.anchor, self)  # type: ignore[no-untyped-call]
            return hidden
        self.replay_forward()
        return self.hidden

    def _forward(self) -> None:
        device = self.anchor.device.type
        # a weight that was cast before the capture would not be cast again when it has changed
        with torch.autocast(device, enabled=torch.is_autocast_enabled(device), cache_enabled=False):
            self.hidden = self.forward(self.inputs)

    def _gradients(self) -> tuple[Tensor | None, ...]:
        with torch.autocast(self.anchor.device.type, enabled=False):  # backward is not called under autocast
            return torch.autograd.grad(self.hidden, self.parameters, self.gradient, allow_unused=True)

    def _backward(self) -> None:
        self._add(self._gradients())

    def _add(self, gradients: tuple[Tensor | None, ...]) -> None:
        pairs = [
            (p.grad, g) for p, g in zip(self.parameters, gradients, strict=True) if not (p.grad is None or g is None)
        ]
        torch._foreach_add_([total for total, _ in pairs], [gradient for _, gradient in pairs])

    def _rehearsal(self) -> None:
        self._forward()
        if self.with_gradients:
            self.gradient = torch.zeros_like(self.hidden)
            gradients = self._gradients()  # zeros
            for p, gradient in zip(self.parameters, gradients, strict=True):
                if p.grad is None and gradient is not None:
                    p.grad = torch.zeros_like(p)
            self._add(gradients)


class _Replay(torch.autograd.Function):
    """The captured passes as autograd sees them: from nothing to hidden states, and a gradient that goes nowhere."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, graph: _Graph) -> Tensor:
        ctx.graph = graph
        with torch.enable_grad():  # what stands for a graph on a CPU computes here
            graph.replay_forward()
        return graph.hidden.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        ctx.graph.gradient.copy_(gradients[0])
        ctx.graph.replay_backward()
        return None, None


class CudaRecorder:
    """Turns work on fixed tensors of a CUDA device into a call that does it again.

    All captures share their memory, which none needs while another is replayed.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.pool = torch.cuda.graph_pool_handle()

    def rehearse(self, work: Callable[[], None]) -> None:
        """Do the work once, as a capture would.

        Raises:
            RuntimeError: it waits for the device. That cannot be captured, and trying would leave torch unusable.
        """
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream), _refusing_to_wait():
            work()
        torch.cuda.current_stream().wait_stream(self.stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Run the work's Python once without computing anything; returns what computes it."""
        return capture(work, self.pool, self.stream)


@contextmanager
def _refusing_to_wait() -> Iterator[None]:
    """Raise RuntimeError where the host would wait for the device.

    transformers looks at masks' values unless it knows that it is captured; it is told so.
    """
    before, ask = torch.cuda.get_sync_debug_mode(), torch.cuda.is_current_stream_capturing
    torch.cuda.set_sync_debug_mode("error")
    torch.cuda.is_current_stream_capturing = lambda: True
    try:
        yield
    finally:
        torch.cuda.is_current_stream_capturing = ask
        torch.cuda.set_sync_debug_mode(before)
