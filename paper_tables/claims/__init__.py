"""The paper's claims held against recorded runs: comparisons with intervals, verdicts, and how they are printed."""
