"""Dialogues with summaries in the shape of SAMSum."""
