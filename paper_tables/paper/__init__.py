"""What the paper shows and claims, as data: tables, ablations, claims, published values. Nothing here reads a run."""
