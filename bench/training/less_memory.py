"""Training in less memory: a layer's activations are formed again for the backward pass instead of being kept."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from bench.system.errors import BenchError


def checkpoint_gradients(network: PreTrainedModel, *, dropout: bool) -> None:
    """Keep only what goes into each layer; gradients are the same but for rounding, dropout's draws included.

    transformers does so in training mode only, so a network that is trained without dropout is put into it with all of
    its rates at 0.

    Raises:
        BenchError: the family has no layers that can be checkpointed.
    """
    layers = [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not (layers and network.supports_gradient_checkpointing):
        raise BenchError(
            f"gradient_checkpointing: transformers offers it for no layer of {type(network).__name__}; turn it off and "
            "lower micro_batch_size instead"
        )
    network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if not dropout:
        _without_dropout(network)
        network.train()


def _without_dropout(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if "drop" in name and isinstance(value, float):  # rates that families pass to functions, layerdrop too
                setattr(module, name, 0.0)
