"""Where a training stands, as plain values: what goes into checkpoints, curves and the record."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.training.phase_timer import NOT_TRAINING
from distillm.sources import SourcedBatch

POINTS = 200  # of the training curve, however long the training


@dataclass
class TrainerState:
    """What a training has done so far, as plain values.

    Attributes:
        validations: a row per validation: step, loss (nats per response token), metric where measured.
        curve: means over windows of steps: loss, gradient norm, learning rate, phi, source shares, ...
        seconds: by phase of the training (`PhaseTimer`).
        step_seconds: of each step by what it trained on ("dataset", "generate", "replay"); of the process that ended
            the training alone, so that no checkpoint has them.
        tokens_trained, tokens_generated: response tokens.
        best_step: the validation whose weights are kept.
        resumes: how often the training went on from a checkpoint; wall-clock then misses what was lost.
    """

    total_steps: int
    step: int = 0
    validations: list[dict[str, float]] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)
    window: list[dict[str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    step_seconds: dict[str, list[float]] = field(default_factory=dict)
    tokens_trained: int = 0
    tokens_generated: int = 0
    best_step: int = 0
    resumes: int = 0

    def log(self, figures: dict[str, float], sourced: SourcedBatch, buffer_size: int, eos_id: int) -> None:
        """Add a step to the curve."""
        row = dict(figures, buffer=buffer_size)
        for decision in ("dataset", "generate", "replay"):
            row[f"share_{decision}"] = float(sourced.decision == decision)
        if sourced.decision != "dataset":
            responses = [s.response for s in sourced.batch if s.sampled_at_step is not None]
            row["sgo_length"] = sum(map(len, responses)) / len(responses)
            row["sgo_ended"] = sum(r[-1] == eos_id for r in responses) / len(responses)
            row["sgo_age"] = sum(sourced.ages) / len(sourced.ages)
        self.window.append(row)
        if self.at_point(self.step):
            keys = {key: None for row in self.window for key in row}  # in order, each once
            means = {key: [row[key] for row in self.window if key in row] for key in keys}
            self.curve.append({"step": self.step} | {key: sum(v) / len(v) for key, v in means.items()})
            self.window = []

    def at_point(self, step: int) -> bool:
        """Whether a point of the curve is drawn after this step."""
        return step % max(1, self.total_steps // POINTS) == 0 or step == self.total_steps

    @property
    def training_seconds(self) -> float:
        """All that training costs: everything but validation and checkpoints."""
        return sum(value for name, value in self.seconds.items() if name not in NOT_TRAINING)

    def is_best(self, by: str) -> bool:
        """Whether the last validation is the best so far (the first of equals); remembers it if so."""
        sign = 1.0 if by == "metric" else -1.0
        last = self.validations[-1]
        earlier = [sign * row[by] for row in self.validations[1:-1]]  # the first is that before training
        if earlier and sign * last[by] <= max(earlier):
            return False
        self.best_step = int(last["step"])
        return True
