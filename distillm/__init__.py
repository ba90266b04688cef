"""DistiLLM (arXiv:2402.03898) as a library: skew divergences, adaptive schedule, replay buffer, output sources."""

from distillm.divergences import DIVERGENCES, jsd, kld, rkld, skl, srkl, tvd
from distillm.fused import Projection, token_losses
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
    "Projection",
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
    "token_losses",
    "tvd",
]
