"""Records of model probes: what figures 1, 2 and 3 and two claims take from the teacher and the init students.

`paper_tables.figures.model_probes` makes them. Each is one file, `OUT/model-probes/NAME-PRESET.json`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import Field, JsonValue

from bench.config.presets import recorded_name
from bench.system.errors import BenchError
from bench.system.files import read_sealed_json
from bench.system.manifest import Environment, Plain

Found = TypeVar("Found")


class NoisyOutput(Plain):
    """A response of the SFT student to a test prompt.

    Attributes:
        example: its id.
        teacher_loss, teacher_loss_on_reference: the teacher's cross-entropy on the response and on the reference, in
            nats per token.
        rouge_l: of the response, in percent.
        tokens: of the response.
        ended: with EOS, not at the limit.
    """

    example: str
    prompt: str
    reference: str
    output: str
    teacher_loss: float
    teacher_loss_on_reference: float
    rouge_l: float
    tokens: int
    ended: bool


class GenerationCost(Plain):
    """Median seconds of a training step on responses of a length in tokens, and of generating its batch."""

    length: int
    step_seconds: float
    generation_seconds: float


class CoefficientQuantiles(Plain):
    """Quantiles of a divergence's gradient coefficient over response tokens, at one skew; `bound` None at 0."""

    loss: str
    alpha: float
    bound: float | None
    smallest: float = Field(alias="q0")
    percentile_1: float = Field(alias="q0.01")
    percentile_5: float = Field(alias="q0.05")
    lower_quartile: float = Field(alias="q0.25")
    median: float = Field(alias="q0.5")
    upper_quartile: float = Field(alias="q0.75")
    percentile_95: float = Field(alias="q0.95")
    percentile_99: float = Field(alias="q0.99")
    largest: float = Field(alias="q1")


class MonteCarloError(Plain):
    """Error of a divergence estimated as the mean log-ratio at n tokens sampled from a known distribution.

    Attributes:
        seed: training seed of the init student.
        divergence: its mean over positions.
        exact, sampled: mean squared error, from the variance and from samples.
        normalised: `exact` over the squared divergence.
        bound: what the expected squared error cannot exceed; None at a skew of 0.
    """

    seed: int
    loss: str
    alpha: float
    n: int
    divergence: float
    exact: float
    sampled: float
    normalised: float
    bound: float | None


class PlugInError(Plain):
    """The same of the divergence of two empirical distributions of n tokens each; normalised is `sampled`."""

    seed: int
    loss: str
    alpha: float
    n: int
    divergence: float
    sampled: float
    normalised: float


class Coefficients(Plain):
    """How strongly each skewed divergence pulls at a token, and how well samples estimate it, by skew.

    Attributes:
        students: training seeds of the init students.
        positions: response tokens at which the distributions were taken.
        coefficients: over the positions of all students.
        errors, plug_in: one for each student.
    """

    students: list[int]
    positions: int
    coefficients: list[CoefficientQuantiles]
    errors: list[MonteCarloError]
    plug_in: list[PlugInError]


class ModelProbe(Plain, Generic[Found]):
    """A recorded probe with all that made it.

    Attributes:
        version: of what the probe measures.
        config: the configuration whose models were probed, as it was then.
        config_hash: of `config`.
        data: fingerprint of the data.
        seconds: that it took.
        found: what was measured.
    """

    name: str
    version: int
    config: dict[str, JsonValue]
    config_hash: str
    data: str
    environment: Environment
    seconds: float
    found: Found


@dataclass(frozen=True)
class ProbeKind(Generic[Found]):
    """A kind of probe.

    Attributes:
        name: of its files.
        figure: that shows it.
        version: raised whenever it measures something else; older records are made again.
        record: its type.
    """

    name: str
    figure: str
    version: int
    record: type[ModelProbe[Found]]

    def path(self, out: Path, preset: str) -> Path:
        """Where the probe of a preset is recorded in a results folder."""
        return out / "model-probes" / f"{self.name}-{recorded_name(preset)}.json"

    def read(self, out: Path, preset: str) -> ModelProbe[Found] | None:
        """The recorded probe of a preset; None where there is none of this version.

        Raises:
            BenchError: the file is damaged.
        """
        path = self.path(out, preset)
        if not path.is_file():
            return None
        try:
            plain = read_sealed_json(path)
            return self.record.model_validate(plain) if plain["version"] == self.version else None
        except (ValueError, KeyError, TypeError) as error:
            raise BenchError(f"{path}: damaged; probe again with: bench figures {self.figure} --fresh") from error


NOISY_OUTPUTS = ProbeKind("noisy-outputs", "1", 1, ModelProbe[list[NoisyOutput]])
GENERATION_COST = ProbeKind("cost", "2", 1, ModelProbe[list[GenerationCost]])
COEFFICIENTS = ProbeKind("coefficients", "3", 3, ModelProbe[Coefficients])
