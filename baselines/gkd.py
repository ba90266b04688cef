"""GKD: generalised Jensen-Shannon divergence on student responses with probability lambda, else the references."""

from __future__ import annotations

from baselines.jsd import JSD
from distillm import Method

METHOD = Method(
    "gkd",
    JSD,
    "mixed",
    "sft",
    "Agarwal et al. 2024, arXiv:2306.13649",
    "generalised Jensen-Shannon divergence; half the batches are the student's own responses",
    deviations=(
        "fresh responses every time; the DistiLLM authors' code draws them from its replay buffer. lambda is "
        "sgo.probability, beta is method.beta (0.1 = the authors' student weight 0.9)"
    ),
    source_options={"probability": 0.5},
)
