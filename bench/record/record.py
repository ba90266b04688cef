"""A finished run as one typed value: written once by the run, read by everything else.

`RunRecord.model_json_schema()` is the schema of `record.json`, whose last line is a checksum beside it;
`bench.record.read` reads files, those of earlier schemas included.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from bench.config.comparable import scoring_fields
from bench.config.sections import Config
from bench.metrics.metric import Metric
from bench.metrics.registry import find_metric
from bench.system.manifest import Environment, PeakMemory, Plain
from bench.system.names import LongName
from bench.system.strict import later

SCHEMA = 2
"""Of the files written now; `bench.record.migrations` brings older ones up to it."""


class MetricInfo(Plain):
    """A metric of a run.

    Attributes:
        name: its name in scores and predictions.
        label: its name in tables.
        signature: what exactly it computes.
        file: `path/to/file.py:NAME` of a user's own metric; None where its name is enough to find it.
    """

    name: str
    label: str
    signature: str
    file: str | None = None

    def find(self) -> Metric:
        """The metric itself, to score sums of counts with.

        Raises:
            BenchError: it is not known here.
        """
        return find_metric(self.file or self.name)


class Score(Plain):
    """One metric on one evaluation set.

    Attributes:
        mean: over decoding seeds.
        sd_over_decoding_seeds: sample standard deviation; None with one seed.
        by_decoding_seed: the score of each.
    """

    mean: float
    sd_over_decoding_seeds: float | None
    by_decoding_seed: dict[int, float]


class SetScores(Plain):
    """Scores on one evaluation set by metric, and what the responses were like over all decoding seeds.

    Attributes:
        examples: how many the set has.
        mean_tokens: mean length of a response in tokens.
        share_ended: share of responses that ended with EOS.
        metrics: by the metric's name, the one that selects checkpoints first.
        texts: SHA-256 over all responses (`bench.record.example_scores.texts_hash`); None in records of versions that
            did not keep it.
    """

    examples: int
    mean_tokens: float
    share_ended: float
    metrics: dict[str, Score] = Field(min_length=1)
    texts: str | None = None

    @property
    def primary(self) -> Score:
        """The score by the metric that selects checkpoints."""
        return next(iter(self.metrics.values()))


Scores = dict[str, SetScores]
"""By evaluation set, as tables name it."""


def mean_of_sets(scores: Mapping[str, SetScores]) -> float:
    """The plain mean of the primary metric over evaluation sets."""
    return statistics.fmean(one.primary.mean for one in scores.values())


class TeacherResponses(Plain):
    """The teacher's answers to the training prompts: mean length in tokens, and the share it ended with EOS."""

    mean_length: float
    ended: float


class Unwritten(Plain):
    """What a tokenizer cannot write, by split; splits where it can write everything are left out.

    Attributes:
        tokens: unknown tokens in prompts and responses.
        references: of scored sets, examples whose reference a metric sees changed after encoding and decoding.
    """

    tokens: dict[str, int] = Field(default_factory=dict)
    references: dict[str, int] = Field(default_factory=dict)


class DataInfo(Plain):
    """The data of a run.

    Attributes:
        source: where it came from, in words.
        fingerprint: SHA-256 over all examples.
        examples: how many, by split.
        overlap: distinct prompts shared by two splits ("train+test").
        teacher_responses: None where none were trained on.
        unwritten: what the tokenizer lost; nothing in records of versions that did not look.
        notes: what a reader of the results should know.
        references: SHA-256 over the references of each evaluation set (`bench.data.references_hash`); nothing in
            records of versions that did not keep it.
    """

    source: str
    fingerprint: str
    examples: dict[str, int]
    overlap: dict[str, int]
    teacher_responses: TeacherResponses | None
    unwritten: Unwritten = Unwritten()
    notes: list[str]
    references: dict[str, str] = Field(default_factory=dict)


_GENERATE = "transformers generate"
"""The only engine until version 0.2: records that name none were made with it."""


class Validation(Plain):
    """One validation: the step, cross-entropy on the references (nats per token), the metric where measured."""

    step: int
    loss: float
    metric: float | None = None


class StudentPretrainingInfo(Plain):
    """What language modelling on plain text made of the student, before it saw the task.

    Attributes:
        steps: optimiser steps.
        best_step: the step of the checkpoint that was kept.
        tokens, different_tokens: of text that were trained on, repeats counted and not counted.
        seconds: of training, validation and checkpoints left out.
        validations: loss on held-out text, the first before the training.
    """

    steps: int
    best_step: int
    tokens: int
    different_tokens: int
    seconds: float
    validations: list[Validation]


class ModelsInfo(Plain):
    """Sizes in parameters, what the teacher was, and how the student was pretrained.

    Attributes:
        trained_parameters: of the student, those that training changed; None in records of versions without LoRA.
        teacher: a checksum of its files, or its hub id and commit.
        student_pretraining: None where it was taken as it is.
        generation: what generated with teacher and student (`bench.models.generation`); tables do not mix engines.
        decoded_by: how this process sampled from the student, or from the model that was evaluated: "captured steps"
            (CUDA graphs), "plain steps" or "transformers generate". The responses are the same but for rounding. None
            in records of versions that did not say, and where another process had sampled all; then files do not have
            it.
    """

    student_parameters: int
    trained_parameters: int | None = None
    teacher_parameters: int
    teacher: str
    generation: dict[str, str] = Field(default_factory=lambda: dict.fromkeys(("teacher", "student"), _GENERATE))
    decoded_by: list[str] | None = later(None)
    student_pretraining: StudentPretrainingInfo | None = None


class TrainingInfo(Plain):
    """What the training did.

    Attributes:
        steps: optimiser steps.
        best_step: the step of the checkpoint that was evaluated.
        resumes: how often it went on from a checkpoint.
        tokens_trained, tokens_generated: response tokens.
    """

    steps: int
    best_step: int
    resumes: int
    tokens_trained: int
    tokens_generated: int


class StepTime(Plain):
    """How many steps of a kind a training took, and the median of their seconds."""

    count: int
    median: float


class TimeInfo(Plain):
    """Wall-clock in seconds.

    Attributes:
        phases: by phase of the training (`bench.training.phase_timer`).
        training_seconds: all phases but validation and checkpoint.
        steps_per_second, tokens_per_second: over `training_seconds`.
        stages: of the whole command by stage; nothing in records of versions that did not say. Teacher and init
            student take time in the run that makes them.
        steps: by what a step trained on ("dataset", "generate", "replay"), validation and checkpoints left out;
            nothing in records of versions that did not say, and of a run that was resumed.
        before: what the method needs before its training, whichever run made it: "student pretraining", "init student"
            and "teacher responses", as far as it uses them and their time is known.
        earlier: training seconds of the same run when it was made before, the last first (`bench run --fresh`).
    """

    phases: dict[str, float]
    training_seconds: float
    steps_per_second: float
    tokens_per_second: float
    stages: dict[str, float] = Field(default_factory=dict)
    steps: dict[str, StepTime] = Field(default_factory=dict)
    before: dict[str, float] = Field(default_factory=dict)
    earlier: list[float] = Field(default_factory=list)

    def share(self, phase: str) -> float:
        """A phase's share of the training time."""
        return self.phases.get(phase, 0.0) / self.training_seconds


CurvePoint = dict[str, int | float]  # step is a whole number in the file, too
"""Means over a window of steps: `step`, `loss`, `gradient_norm`, `phi`, ... A figure that did not occur is absent."""

CURVE_LABELS = {
    "loss": "the method's loss (per token)",
    "plain_text_loss": "plain-text loss (nats per token)",
    "gradient_norm": "gradient norm",
    "student_entropy": "student's entropy (nats)",
    "share_generate": "share of steps on fresh SGOs",
    "share_replay": "share of steps on older SGOs",
    "sgo_age": "age of SGOs (steps)",
    "sgo_length": "length of SGOs (tokens)",
    "sgo_ended": "share of SGOs ended by EOS",
    "teacher_loss_on_sgo": "teacher's loss on SGOs (nats per token)",
    "phi": "φ, probability of training on SGOs",
}
"""The figures of a curve in words, with their units."""


EVALUATE = "evaluate"
"""What records of models that were not trained here have as the name of their method."""


class RunRecord(Plain):
    """Everything that is recorded of a run.

    Attributes:
        schema_version: `schema` in the file.
        run_id: readable, and unique to all that determines the run's numbers.
        started: UTC, ISO 8601.
        seconds: wall-clock of the whole command.
        config: the resolved configuration; `bench run --config` takes it back.
        run_hash: of all that determines the run's numbers.
        comparison_key: hash of `comparison_fields`; runs that share it may stand in one table.
        comparison_fields: all that must be equal for that.
        metrics: the task's, the one that selects checkpoints first.
        evaluated: name in tables of a model that was scored as it is and not trained here (`bench evaluate`); it
            stands for teacher and student alike, and training has no steps. None for a run.
        scores: the student's.
        teacher_scores, init_scores: of the teacher and of the init student; empty where `evaluated` is set.
        energy_joules: of an NVIDIA device during training; None where nothing reports it.
        validations: of the training, the first before it.
        packed: a copy made by `bench pack`, with thinner curves and without the student.
    """

    schema_version: int = Field(default=SCHEMA, alias="schema")
    run_id: LongName
    started: str
    seconds: float
    config: Config
    run_hash: str
    comparison_key: str
    comparison_fields: dict[str, Any]
    metrics: list[MetricInfo] = Field(min_length=1)
    evaluated: LongName | None = None
    scores: Scores = Field(min_length=1)
    teacher_scores: Scores
    init_scores: Scores
    data: DataInfo
    models: ModelsInfo
    training: TrainingInfo
    time: TimeInfo
    memory: PeakMemory
    energy_joules: float | None
    environment: Environment
    validations: list[Validation]
    curve: list[CurvePoint]
    packed: bool = False

    @field_validator("scores", "teacher_scores", "init_scores")
    @classmethod
    def _of_every_set_by_the_first_metric(cls, scores: Scores, info: ValidationInfo) -> Scores:
        if info.data.get("evaluated") is not None and info.field_name != "scores":
            return scores
        for metric in info.data.get("metrics", [])[:1]:
            for name in info.data.get("scores", scores):
                if name not in scores or metric.name not in scores[name].metrics:
                    raise ValueError(f"{name} has no score by {metric.name!r}")
        return scores

    @property
    def metric(self) -> MetricInfo:
        """The metric that selects checkpoints and stands in tables."""
        return self.metrics[0]

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.config.task

    @property
    def seed(self) -> int:
        """Training seed."""
        return self.config.seed

    @property
    def seconds_before(self) -> float | None:
        """What the method needs before its training; None where the record does not say all of it.

        It was made once, by the run that came first, beside whatever else ran then.
        """
        needed = ["init student"] if self.config.init == "sft" else []
        if self.data.teacher_responses is not None:
            needed.append("teacher responses")
        return sum(self.time.before.values()) if all(name in self.time.before for name in needed) else None

    @property
    def scored(self) -> dict[str, Any]:
        """How it was scored: what scores must share where one is of a model that was not trained here."""
        side = "student" if self.evaluated is None else "teacher"  # the side that an evaluation loads its model as
        engine = {"generation": self.models.generation[side]}
        return scoring_fields(self.comparison_fields) | engine

    def plain(self) -> dict[str, Any]:
        """As plain values, as they stand in `record.json`."""
        return self.model_dump(mode="json", by_alias=True)
