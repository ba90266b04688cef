"""The methods that the paper compares: their names in tables, and where each takes its responses from."""

from __future__ import annotations

LOSSES = ("kld", "rkld", "jsd", "skl", "srkl")
SKEWED_LOSSES = ("skl", "srkl")
METHOD_LABELS = {
    "kld": "KLD",
    "rkld": "RKLD",
    "jsd": "JSD",
    "skl": "SKL",
    "srkl": "SRKL",
    "sft": "SFT",
    "tvd": "TVD",
    "seqkd": "SeqKD",
    "imitkd": "ImitKD",
    "gkd": "GKD",
    "minillm": "MiniLLM",
    "distillm": "DistiLLM",
    "distillm-skl": "DistiLLM (SKL)",
}
OUTPUT_SOURCES = {
    **dict.fromkeys(("sft", "kld", "rkld", "jsd", "tvd", "skl", "srkl"), "dataset"),
    "seqkd": "teacher",
    "imitkd": "on-policy",
    "gkd": "mixed",
    "minillm": "roll-outs",
    "distillm": "adaptive-off-policy",
    "distillm-skl": "adaptive-off-policy",
}
"""Each method's output source in its paper. Written out, because a table stays what it is if a default changes."""
