"""DistiLLM (arXiv:2402.03898) as a library: skew divergences, adaptive schedule, replay buffer, output sources."""

from distillm.divergences import DIVERGENCES, jsd, kld, rkld, skl, srkl, tvd
from distillm.method import BatchObjective, Context, Method, Objective, PlainText, Sampling, TokenSequence
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
    "Context",
    "Method",
    "Objective",
    "OutputSource",
    "PlainText",
    "ReplayBuffer",
    "Sampling",
    "SourceOptions",
    "TokenSequence",
    "jsd",
    "kld",
    "rkld",
    "skl",
    "srkl",
    "tvd",
]
