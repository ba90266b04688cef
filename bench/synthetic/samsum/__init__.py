"""Dialogues with summaries in the shape of SAMSum."""

from bench.synthetic.samsum.records import generate

__all__ = ["generate"]
