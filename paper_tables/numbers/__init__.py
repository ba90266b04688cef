"""What recorded runs come to: which of them a table takes, its cells, judges' scores, and probes of the models."""
