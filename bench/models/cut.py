"""A model with some of its layers: what a smaller student is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from bench.system.errors import BenchError

_DEPTHS = ("num_hidden_layers", "num_layers", "n_layer", "encoder_layers", "decoder_layers", "num_decoder_layers")
_BY_LAYER = ("layer_types", "mlp_layer_types")  # lists in a configuration with an entry for each layer


def kept_layers(depth: int, layers: int | Sequence[int]) -> list[int]:
    """Which of so many layers stay, counted from 0: every n-th from the first, or those that are named.

    Raises:
        BenchError: a named layer is not there, stands twice or out of order, or none is named.
    """
    if isinstance(layers, int):
        if layers < 1:
            raise BenchError(f"models.student_layers={layers}: every n-th layer is kept, so n is 1 or more")
        return list(range(0, depth, layers))
    wanted = list(layers)
    if not wanted or wanted != sorted(set(wanted)) or not 0 <= wanted[0] <= wanted[-1] < depth:
        raise BenchError(
            f"models.student_layers={wanted}: expected layers from 0 to {depth - 1}, ascending, each once, or a "
            "number n for every n-th"
        )
    return wanted


def check_layers(config: PretrainedConfig, layers: int | Sequence[int]) -> None:
    """Refuse layers that a model of a configuration has not.

    Raises:
        BenchError: as `kept_layers`.
    """
    for depth in depths(config).values():
        if kept_layers(depth, layers)[0] != 0 and hasattr(config, "relative_attention_num_buckets"):
            raise BenchError(
                f"models.student_layers={layers}: the first layer of {config.model_type} holds the relative "
                "positions of all, so it has to stay: begin with 0"
            )


def layer_lists(network: PreTrainedModel) -> list[tuple[str, nn.ModuleList]]:
    """A model's lists of layers with their names: of its decoder, of its encoder. Empty where it has no such list."""
    found = set(depths(network.config).values())
    return [
        (name, part)
        for name, part in network.named_modules()
        if isinstance(part, nn.ModuleList) and len(part) in found and not any(c.isdigit() for c in name.split("."))
    ]


def keep_layers(network: PreTrainedModel, layers: int | Sequence[int]) -> None:
    """Leave out a model's other layers, of encoder and decoder alike; embeddings and output layer stay.

    Raises:
        BenchError: as `kept_layers`, or the model has no list of layers as long as its configuration says.
    """
    lists = layer_lists(network)
    if not lists:
        raise BenchError(f"models.student_layers: {network.config.model_type} keeps its layers in no list to cut")
    for name, part in lists:
        parent, _, last = name.rpartition(".")
        kept = nn.ModuleList(part[i] for i in kept_layers(len(part), layers))
        for place, layer in enumerate(kept):
            for module in layer.modules():
                if hasattr(module, "layer_idx"):  # where its keys and values are cached
                    setattr(module, "layer_idx", place)  # noqa: B010  a module's fields are tensors to mypy
        setattr(network.get_submodule(parent), last, kept)
    configs = {id(part.config): part.config for part in network.modules() if isinstance(part, PreTrainedModel)}
    for config in configs.values():
        keep_in_config(config, lambda depth: kept_layers(depth, layers))


def keep_in_config(config: PretrainedConfig, kept: Callable[[int], Sequence[int]]) -> None:
    """Leave out layers of a configuration, which is changed.

    Args:
        config: of a network; the network itself is left as it is.
        kept: of so many layers, those that stay.
    """
    for name in _BY_LAYER:
        of_each = getattr(config, name, None)
        if isinstance(of_each, list):
            setattr(config, name, [of_each[i] for i in kept(len(of_each))])
    for name, depth in depths(config).items():
        setattr(config, name, len(kept(depth)))


def depths(config: PretrainedConfig) -> dict[str, int]:
    """How many layers a configuration says there are, by the name it has for it."""
    given = config.to_dict()
    return {name: given[name] for name in _DEPTHS if isinstance(given.get(name), int)}
