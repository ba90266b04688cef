"""Training of models that one GPU cannot hold: each layer in equal parts on the processes of a run (FSDP2).

Of every layer each process keeps its part of the weights, their gradients and the optimiser's moments. A layer is put
together when a pass reaches it and taken apart after it (ZeRO stage 3, arXiv:1910.02054; FSDP, arXiv:2304.11277).
Embeddings and output layer stay whole on each process: the loss reads the output layer's weights outside of any pass.
Processes that make different numbers of passes, as in sampling and validation, hold all layers whole for that long.
"""

from __future__ import annotations

import copy
import gc
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from safetensors.torch import load_model as load_weights
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, share_comm_ctx
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from bench.models.cut import layer_lists
from bench.system.errors import BenchError
from bench.system.processes import Processes


class ShardedLayers:
    """The layers of one network, shared out among the processes of a run.

    Args:
        network: its layers are replaced in place.
        processes: of the run.

    Raises:
        BenchError: the network's layers are in no list, or some of them may be left out of a pass at random.
    """

    def __init__(self, network: PreTrainedModel, processes: Processes) -> None:
        assert processes.group is not None
        self.device = network.device
        self.lists = [found for _, found in layer_lists(network)]
        check_shareable(network)
        # some families return views, of position biases, to which nothing is added in place
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module", category=UserWarning)
        mesh = DeviceMesh.from_group(processes.group, network.device.type)
        # layers share their configurations, with those that replace them too
        kept = {id(part.config): part.config for part in network.modules() if hasattr(part, "config")}
        self.plain = [[copy.deepcopy(layer, dict(kept)).to("meta") for layer in found] for found in self.lists]
        layers = [layer for found in self.lists for layer in found]
        self.layers = [fully_shard(layer, mesh=mesh, reshard_after_forward=True) for layer in layers]
        share_comm_ctx(self.layers)  # else each layer keeps buffers of its own
        for at, layer in enumerate(self.layers):
            # In the backward pass a layer by itself fetches the one that was used before it, and that may not be the
            # same on all processes: while layers are whole they make different numbers of passes. The first has none.
            layer.set_modules_to_backward_prefetch([self.layers[max(0, at - 1)]])
            layer.set_gradient_divide_factor(1.0)  # shares of a sum, not of a mean
            layer.set_force_sum_reduction_for_comms(True)
            if hasattr(layer, "set_reduce_scatter_unused_params"):  # from PyTorch 2.13 on; some may use an expert alone
                layer.set_reduce_scatter_unused_params(True)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Hold all layers whole, so that no pass waits for another process; their gradients are not for use here."""
        for layer in self.layers:
            layer.set_reshard_after_forward(False)
            layer.unshard()
        try:
            yield
        finally:
            for layer in self.layers:
                layer.reshard()
                layer.set_reshard_after_forward(True)

    def forget_passes(self) -> None:
        """Drop what was noted for a backward pass that does not come: the network is not trained."""
        for layer in self.layers:
            if hasattr(layer, "reset_iter_state"):  # from PyTorch 2.13 on; before, some bytes a pass stay
                layer.reset_iter_state()

    def undo(self) -> None:
        """Put plain layers in their place again, whose weights have yet to be loaded."""
        for found, plain in zip(self.lists, self.plain, strict=True):
            for at, layer in enumerate(list(found)):
                made = plain[at].to_empty(device=self.device)
                for name, buffer in layer.named_buffers():
                    made.get_buffer(name).copy_(buffer)
                found[at] = made.train(layer.training)
        self.layers.clear()
        gc.collect()  # hooks and layers hold each other


def check_shareable(network: PreTrainedModel) -> None:
    """Refuse a network whose layers cannot be shared out.

    Raises:
        BenchError: as `ShardedLayers`.
    """
    family = network.config.model_type
    if not layer_lists(network):
        raise BenchError(f"FSDP: {family} keeps its layers in no list to share out; leave out --use_fsdp")
    if any(getattr(part, "layerdrop", 0) for part in network.modules()):
        raise BenchError(
            f"FSDP: {family} leaves out layers at random (layerdrop), on each process others; leave out --use_fsdp, or "
            "set its rates to 0 in the model's config.json"
        )


@contextmanager
def all_whole(sharded: Iterable[ShardedLayers]) -> Iterator[None]:
    """Hold the layers of several networks whole; of none, nothing is done."""
    with ExitStack() as held:
        for one in sharded:
            held.enter_context(one.whole())
        yield


def own_part(tensor: Tensor) -> Tensor:
    """What this process has of a tensor that is shared out, else all of it; writes go through."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def collected_weights(network: PreTrainedModel, *, keep: bool) -> dict[str, Tensor]:
    """All weights of a network whose layers are shared out, each once, in the host's memory.

    Every process has to ask, and those that do not `keep` them get none.
    """
    made: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in network.state_dict().items():
        if isinstance(tensor, DTensor):
            whole = tensor.full_tensor()
        elif tensor.data_ptr() in places:  # tied
            continue
        else:
            places.add(tensor.data_ptr())
            whole = tensor
        if keep:
            made[name] = whole.cpu()
    return made


def shared_as(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor shared out as another one of its size is."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    there = tensor.to(like.device)
    return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def load_trained(network: PreTrainedModel, path: Path) -> None:
    """Read weights that a training had written, all or some of the network's, whether or not it is shared out."""
    if not any(isinstance(p, DTensor) for p in network.parameters()):
        load_weights(network, path, strict=False)
        return
    held = load_file(path)
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if name in held:
            own_part(parameter).copy_(own_part(shared_as(held[name], parameter)))


def clip_gradients(parameters: Sequence[nn.Parameter], most: float, processes: Processes) -> Tensor:
    """Scale gradients so that their norm over all parameters is at most `most`; returns the norm before."""
    given = [(p, p.grad) for p in parameters if p.grad is not None]
    parts = [own_part(grad) for p, grad in given if isinstance(p, DTensor)]
    if not parts:
        norm: Tensor = torch.nn.utils.clip_grad_norm_(parameters, most)
        return norm
    rest = [grad for p, grad in given if not isinstance(p, DTensor)]
    squared = torch.nn.utils.get_total_norm(parts).square()
    processes.add_up([squared])
    norm = (squared + torch.nn.utils.get_total_norm(rest).square()).sqrt()
    torch._foreach_mul_([*parts, *rest], torch.clamp(most / (norm + 1e-6), max=1.0))
    return norm


def as_many_passes(starts: Sequence[int], processes: Processes) -> list[int | None]:
    """Which micro-batches this process computes, in as many passes as the others: None where it has none left."""
    mine: list[int | None] = [*starts[processes.rank :: processes.size]]
    return mine + [None] * (math.ceil(len(starts) / processes.size) - len(mine))
