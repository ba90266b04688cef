"""How fast the engine is, beside the plain formulation, `generate`, TRL and Liger: what `bench perf` measures."""
