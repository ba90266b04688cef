"""Metrics: what they are (`metric`), each in a file of its own, and finding one by name (`registry`)."""
