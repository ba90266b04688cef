"""Checking what is published: runs against their texts, derived files against runs, runs by making them again."""
