"""The paper's figures: drawn `from_runs`, or `from_models` after `model_probes`; `catalogue` names them all."""
