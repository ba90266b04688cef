"""Defects of the authors' code that change which tokens of a student-generated output count in the loss."""

from __future__ import annotations

from bench.config.fidelity import Fidelity
from distillm import TokenSequence


def counted_tokens(batch: list[TokenSequence], fidelity: Fidelity, pad_id: int, eos_id: int) -> list[list[bool]] | None:
    """Which response tokens count, per sequence; None where all do, as is correct.

    For the sources of the authors' own training loop. MiniLLM's roll-outs have a sampler and a loss of their own, which
    lose neither, and DistiLLM-2's pairs came later: neither is to be asked about here.
    """
    drop_eos = fidelity.sgo_eos and pad_id == eos_id
    if not (fidelity.sgo_first_token or drop_eos) or all(s.sampled_at_step is None for s in batch):
        return None
    return [
        [
            s.sampled_at_step is None or not ((fidelity.sgo_first_token and i == 0) or (drop_eos and token == pad_id))
            for i, token in enumerate(s.response)
        ]
        for s in batch
    ]
