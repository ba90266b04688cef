"""The invented world that the English data tell of: one fixed set of facts (what an animal eats, where a city lies).

A seed changes which prompts are drawn, never the facts, so that a model can learn them from one draw and be asked in
another.
"""
