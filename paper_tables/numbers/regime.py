"""Whether runs are in the paper's regime, by the criteria of docs/tiny-regime.md.

They look at SFT and KLD from the SFT init student and at no other method: a preset chosen by how others score would
favour some.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bench.analysis.timing import has_exclusive_timing
from bench.record.record import RunRecord
from paper_tables.paper.tables import TASK_LABELS

PRESET = "tiny"
"""The preset that the criteria are for: their points and seconds are those of its data and models."""
SFT_TURNS = 0.6
"""Criterion 1: SFT's validation loss is least before this share of training."""
LEAST_GAP = 6.0
"""Criterion 2, with SFT at half of the teacher's score: points between the two."""
GAIN = (1 / 10, 2 / 3)
"""Criterion 3: KLD's gain over SFT, as a share of that gap."""
SPREAD = 1 / 4
"""Criterion 5: between SFT's highest and lowest seed, as a share of the gap."""
LONGEST = 120.0
"""Seconds that a method takes which generates every batch."""


@dataclass(frozen=True)
class Regime:
    """What SFT and KLD did on a task with a model pair; scores are means over seeds, on the test set.

    Attributes:
        task, models: of the runs.
        comparison: their comparison key.
        seeds: those that both methods have.
        teacher, init_student, sft, kld: scores.
        least_loss_at: where in training SFT's validation loss is least, as a share of it, the latest of the seeds'.
        spread: between SFT's highest and lowest seed.
        seconds: the longest training of a method that generates every batch, of runs that had the machine to
            themselves; None without one.
    """

    task: str
    models: str
    comparison: str
    seeds: int
    teacher: float
    init_student: float
    sft: float
    kld: float
    least_loss_at: float
    spread: float
    seconds: float | None

    @property
    def gap(self) -> float:
        """By how much the teacher is above SFT."""
        return self.teacher - self.sft

    def share(self, points: float) -> float:
        """Points as a share of the gap; not a number where there is none."""
        return points / self.gap if self.gap > 0 else math.nan

    @property
    def missed(self) -> dict[str, str]:
        """The criteria that do not hold, each with what was seen; records tell of all but the fourth."""
        gain, seconds = self.kld - self.sft, self.seconds
        checks = {
            "1": (
                self.least_loss_at < SFT_TURNS,
                f"SFT's validation loss is least at {self.least_loss_at:.0%} of training",
            ),
            "2": (
                self.sft >= self.teacher / 2 and self.gap >= LEAST_GAP,
                f"SFT reaches {self.sft:.1f} of the teacher's {self.teacher:.1f} points",
            ),
            "3": (
                GAIN[0] <= self.share(gain) <= GAIN[1],
                f"KLD on fixed data gains {gain:.1f} of {self.gap:.1f} points",
            ),
            "5": (
                self.seeds > 1 and self.share(self.spread) < SPREAD,
                f"SFT's seeds lie {self.spread:.1f} points apart, with {self.gap:.1f} to the teacher"
                if self.seeds > 1
                else "there is one seed",
            ),
            "time": (
                seconds is None or seconds <= LONGEST,
                f"a method that generates every batch takes {seconds or 0:.0f} s",
            ),
        }
        return {name: seen for name, (holds, seen) in checks.items() if not holds}

    @property
    def label(self) -> str:
        """Task and models."""
        return f"{self.task_label} ({self.models})"

    @property
    def task_label(self) -> str:
        """The task as tables name it."""
        return TASK_LABELS.get(self.task, self.task.capitalize())

    def __str__(self) -> str:
        if not self.missed:
            return f"{self.label} meets all criteria that records can tell."
        told = "; ".join(
            f"{'the limit of time' if name == 'time' else f'criterion {name}'}: {seen}"
            for name, seen in self.missed.items()
        )
        return f"{self.label} fails {told}."


def regimes(records: Iterable[RunRecord]) -> Iterator[Regime]:
    """One for each comparison key of some runs that has SFT and KLD with the same training seeds."""
    found: dict[tuple[str, str], dict[int, RunRecord]] = {}
    longest: dict[str, float] = {}
    for record in records:
        config, key = record.config, record.comparison_key
        if config.sgo.source == "on-policy" and has_exclusive_timing(record):
            longest[key] = max(longest.get(key, 0.0), record.time.training_seconds)
        asked = (config.sgo.source, config.init) == ("dataset", "sft") and config.method.name in ("sft", "kld")
        if asked and "test" in record.scores and record.validations:
            found.setdefault((key, config.method.name), {})[config.seed] = record
    for key in dict.fromkeys(key for key, _ in found):
        sft, kld = found.get((key, "sft"), {}), found.get((key, "kld"), {})
        if seeds := sorted(set(sft) & set(kld)):
            yield _regime([sft[s] for s in seeds], [kld[s] for s in seeds], longest.get(key))


def more_steps(records: Iterable[RunRecord], others: Iterable[RunRecord], setting: str) -> Iterator[str]:
    """What more steps do to SFT, in a sentence for each task and model pair: a score may rise while the loss does.

    Args:
        records: the runs whose regime is asked for.
        others: runs with another setting, those with more steps among them.
        setting: its name.
    """
    own, longer = _sft_by_seed(records), _sft_by_seed(others)
    for place in dict.fromkeys(place for place, _ in own):
        pairs = {
            seed: (one, longer[where, seed])
            for (where, seed), one in own.items()
            if (where, seed) in longer
            if where == place
        }
        if not pairs or not all(one.training.steps < other.training.steps for one, other in pairs.values()):
            continue
        seeds = sorted(pairs)
        gains = [_score(pairs[seed][1]) - _score(pairs[seed][0]) for seed in seeds]
        first = pairs[seeds[0]]
        losses = [pairs[seed][1].validations for seed in seeds]
        start, end = (statistics.mean(its[i].loss for its in losses) for i in (0, -1))
        task = TASK_LABELS.get(first[0].task, first[0].task.capitalize())
        told = (
            f"{task} ({first[0].config.models.name}), {setting}: with {first[1].training.steps:,} steps in place of "
            f"{first[0].training.steps:,} SFT's score changes by {', '.join(f'{gain:+.2f}' for gain in gains)} (seeds "
            f"{', '.join(map(str, seeds))}), while its validation loss goes from {start:.2f} to {end:.2f}"
        )
        if min(gains) > 0 and end > start:
            told += ": it overfits in loss, and in score it has not converged at the preset's steps"
        yield f"{told}."


def _sft_by_seed(records: Iterable[RunRecord]) -> dict[tuple[tuple[str, str], int], RunRecord]:
    """SFT's runs by task and models, and by training seed."""
    return {
        ((record.task, record.config.models.name), record.seed): record
        for record in records
        if (record.config.method.name, record.config.sgo.source, record.config.init) == ("sft", "dataset", "sft")
        and "test" in record.scores
        and record.validations
    }


def _score(record: RunRecord) -> float:
    return record.scores["test"].primary.mean


def _regime(sft: list[RunRecord], kld: list[RunRecord], longest: float | None) -> Regime:
    scores = [_score(record) for record in sft]
    return Regime(
        task=sft[0].task,
        models=sft[0].config.models.name,
        comparison=sft[0].comparison_key,
        seeds=len(sft),
        teacher=sft[0].teacher_scores["test"].primary.mean,
        init_student=statistics.mean(record.init_scores["test"].primary.mean for record in sft),
        sft=statistics.mean(scores),
        kld=statistics.mean(map(_score, kld)),
        least_loss_at=max(_least_loss_at(record) for record in sft),
        spread=max(scores) - min(scores),
        seconds=longest,
    )


def _least_loss_at(record: RunRecord) -> float:
    """Where in training the validation loss is least, as a share of its steps."""
    least = min(record.validations, key=lambda one: one.loss)
    return least.step / record.validations[-1].step
