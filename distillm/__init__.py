"""DistiLLM (arXiv:2402.03898) as a library: skew divergences, adaptive schedule, replay buffer, output sources.

The divergences are imported at their first use: they bring PyTorch, which takes seconds, and whoever lists methods or
checks a method's options computes nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from distillm.interface import (
    BatchObjective,
    Divergence,
    Method,
    Objective,
    PlainText,
    Sampling,
    StepContext,
    TokenSequence,
)
from distillm.methods import METHODS
from distillm.replay import ReplayBuffer
from distillm.schedule import AdaptiveSchedule
from distillm.sources import SOURCES, OutputSource, SourceOptions

if TYPE_CHECKING:
    from distillm import divergences, fused
    from distillm.divergences import DIVERGENCES, jsd, kld, rkld, skl, srkl, tvd
    from distillm.fused import Projection, token_losses
else:
    _COMPUTED_IN = {
        "distillm.divergences": ("DIVERGENCES", "jsd", "kld", "rkld", "skl", "srkl", "tvd"),
        "distillm.fused": ("Projection", "token_losses"),
    }

    def __getattr__(name: str) -> object:
        for module, names in _COMPUTED_IN.items():
            if name in names:
                return getattr(import_module(module), name)
            if module == f"{__name__}.{name}":
                return import_module(module)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "DIVERGENCES",
    "METHODS",
    "SOURCES",
    "AdaptiveSchedule",
    "BatchObjective",
    "Divergence",
    "Method",
    "Objective",
    "OutputSource",
    "PlainText",
    "Projection",
    "ReplayBuffer",
    "Sampling",
    "SourceOptions",
    "StepContext",
    "TokenSequence",
    "divergences",
    "fused",
    "jsd",
    "kld",
    "rkld",
    "skl",
    "srkl",
    "token_losses",
    "tvd",
]
