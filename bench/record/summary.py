"""What a list shows of a run, read in a fraction of the time that the whole record takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.record.read import Unreadable, read_record, record_bytes
from bench.record.record import GENERATE, CurvePoint, RunRecord, mean_of_sets
from bench.system.files import unsealed


@dataclass(frozen=True)
class RunSummary:
    """Of one run.

    Attributes:
        score: the plain mean of the metric that stands in tables over evaluation sets.
        label: that metric's name in tables.
        seconds: of training.
        config: the resolved configuration, as it stands in the file.
        about: what else may tell it from a run of the same configuration: version, data, teacher, generation, device.
    """

    run_id: str
    started: str
    score: float
    label: str
    seconds: float
    config: Mapping[str, Any]
    about: Mapping[str, str]


def read_summary(path: Path) -> RunSummary:
    """The summary of the record in a file of any schema.

    All of the file has to be JSON; of a record's fields, those that are shown have to be right.

    Raises:
        Unreadable: as `read_record`.
    """
    try:
        part = _Part.model_validate_json(unsealed(record_bytes(path)))
        _Config.model_validate(part.config)
        return RunSummary(
            run_id=part.run_id,
            started=part.started,
            score=fmean(part.means()),
            label=part.label,
            seconds=part.time.training_seconds,
            config=part.config,
            about=_about(part),
        )
    except (ValidationError, _OtherShape):
        record = read_record(path)  # which knows the reason
    if not record.scores:
        raise Unreadable("not a record of bench run: scores: empty")
    return summary_of(record)


def summary_of(record: RunRecord) -> RunSummary:
    """The summary of a record."""
    return RunSummary(
        run_id=record.run_id,
        started=record.started,
        score=mean_of_sets(record.scores),
        label=record.metric.label,
        seconds=record.time.training_seconds,
        config=record.config.canonical(),
        about=_about(record),
    )


def _about(run: _Part | RunRecord) -> Mapping[str, str]:
    return {
        "version": run.environment.distillm_bench,
        "data": run.data.fingerprint[:8],
        "teacher": run.models.teacher[:8],
        "generation": "/".join(run.models.generation.values()),
        "device": run.environment.device,
    }


def read_curve(path: Path) -> list[CurvePoint]:
    """The curve of the record in a file of any schema, without the rest; empty where it cannot be read."""
    try:
        return _Curve.model_validate_json(record_bytes(path)).curve
    except (Unreadable, ValidationError):
        return []


class _OtherShape(Exception):
    """It is neither of the shapes below."""


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Curve(_Lenient):
    curve: list[CurvePoint]


class _Mean(_Lenient):
    mean: float


class _SetMeans(_Lenient):
    mean: float | None = None  # of schema 1, which had one metric
    metrics: dict[str, _Mean] = {}


class _Metric(_Lenient):
    name: str
    label: str | None = None  # None in schema 1, whose name was the label


class _Time(_Lenient):
    training_seconds: float


class _Environment(_Lenient):
    distillm_bench: str
    device: str


class _Data(_Lenient):
    fingerprint: str


class _Models(_Lenient):
    teacher: str
    generation: dict[str, str] = dict.fromkeys(("teacher", "student"), GENERATE)


class _Named(_Lenient):
    name: str


class _Source(_Lenient):
    source: str


class _Config(_Lenient):
    """What lists tell runs apart by first."""

    task: str
    preset: str
    seed: int
    method: _Named
    models: _Named
    sgo: _Source


class _Part(_Lenient):
    """The part of a record that a summary needs, of either schema."""

    run_id: str
    started: str
    config: dict[str, Any]
    metric: _Metric | None = None  # of schema 1
    metrics: list[_Metric] = []
    scores: dict[str, _SetMeans] = Field(min_length=1)
    time: _Time
    environment: _Environment
    data: _Data
    models: _Models
    checksum: None = None  # one that is left does not hold

    @property
    def label(self) -> str:
        """Raises _OtherShape without a metric."""
        first = self.metrics[0] if self.metrics else self.metric
        if first is None:
            raise _OtherShape
        return first.label or first.name

    def means(self) -> Iterator[float]:
        """The metric's mean on each evaluation set; raises _OtherShape where there is none."""
        for one in self.scores.values():
            first = next((metric.mean for metric in one.metrics.values()), one.mean)
            if first is None:
                raise _OtherShape
            yield first
