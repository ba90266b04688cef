"""What `bench tune` writes of a method into a preset: its budget, every trial with its score, and the best of them."""

from __future__ import annotations

from typing import Any

from pydantic import Field, JsonValue, model_validator

from bench.config.section import Section
from bench.config.sections import TuningConfig

LEARNING_RATE = "training.learning_rate"


class Trial(Section):
    """Settings that were tried."""

    values: dict[str, JsonValue] = Field(description="by dotted key")
    scores: list[float] = Field(description="on validation, one a training seed; empty where training diverged")
    runs: list[str] = Field(description="ids of the recorded runs")

    @property
    def mean(self) -> float:
        """Its score over training seeds; of one that diverged, less than any."""
        return sum(self.scores) / len(self.scores) if self.scores else float("-inf")


class TunedMethod(TuningConfig):
    """A method's entry in a tuned preset: what runs of it record, and what that rests on."""

    models: str = Field(description="the model pair of the trials")
    metric: str = Field(description="what was maximised")
    tried: list[Trial] = Field(min_length=1)
    seconds: float = Field(ge=0, description="all trials together took")
    made: str = Field(description="date of the last trial")
    commits: list[str] = Field(description="of the code that made the trials")
    settings: str = Field(description="hash of all that the trials of a task share")

    @model_validator(mode="after")
    def _best_is_chosen(self) -> TunedMethod:
        for key in self.space:
            if key != LEARNING_RATE and not key.startswith("method."):
                raise ValueError(f"space: {key} is no setting to tune: {LEARNING_RATE} and an option of the method are")
        if len(self.tried) != self.trials or any(one.values.keys() != self.space.keys() for one in self.tried):
            raise ValueError("tried: expected as many as trials, each with a value for every key of space")
        if best(self.tried).values != self.chosen:
            raise ValueError(f"chosen: the best of what was tried is {best(self.tried).values}")
        return self

    @property
    def told(self) -> dict[str, Any]:
        """What the configuration of a run holds of it."""
        return {name: getattr(self, name) for name in TuningConfig.model_fields}


def best(tried: list[Trial]) -> Trial:
    """The trial with the greatest score; of equals, the one that stands first."""
    return max(tried, key=lambda one: one.mean)
