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
from distillm.schedule import AdaptiveSchedule, ConstantSchedule
from distillm.sources import SOURCES, OutputSource, SourceOptions

if TYPE_CHECKING:
    from distillm.divergences import DIVERGENCES, jsd, kld, rkld, skl, srkl, tvd
else:
    _COMPUTED_IN = dict.fromkeys(("DIVERGENCES", "jsd", "kld", "rkld", "skl", "srkl", "tvd"), "distillm.divergences")

    def __getattr__(name: str) -> object:
        if name not in _COMPUTED_IN:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_COMPUTED_IN[name]), name)


__all__ = [
    "DIVERGENCES",
    "METHODS",
    "SOURCES",
    "AdaptiveSchedule",
    "BatchObjective",
    "ConstantSchedule",
    "Divergence",
    "Method",
    "Objective",
    "OutputSource",
    "PlainText",
    "ReplayBuffer",
    "Sampling",
    "SourceOptions",
    "StepContext",
    "TokenSequence",
    "jsd",
    "kld",
    "rkld",
    "skl",
    "srkl",
    "tvd",
]
