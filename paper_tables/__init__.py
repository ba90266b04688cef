"""The paper's tables, figures and claims, made from recorded runs.

Rooms, each importing only those before it: `paper` (what the paper shows and says), `numbers` (which runs count, and
what they come to), then `suite` (making the runs), `tables`, `claims` and `figures`, then `report` and `cli`.
"""
