"""The configuration of a run: its sections, and how presets, model pairs, methods and options make one."""
