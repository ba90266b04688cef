"""ImitKD: forward KL on responses that the student has just generated."""

from __future__ import annotations

from baselines.kld import KLD
from distillm import Method, PlainText

METHOD = Method(
    "imitkd",
    KLD,
    "on-policy",
    "sft",
    "Lin et al. 2020, arXiv:2009.07253",
    "forward KL divergence on the student's own responses",
    deviations=(
        "fresh responses every step; the DistiLLM authors' code draws them from its replay buffer. The paper's decay "
        "of the data set's share, r^(i/I), is --sgo mixed --set sgo.final_data_share=r"
    ),
    source_options={"probability": 1.0},
    plain_text=PlainText(weight=1.0),
)
