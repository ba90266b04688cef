"""Successive halving over methods: all train for a few steps, the better ones go on, the last two train whole.

A training is the ordinary run of its method, paused after a validation and taken up again (Jamieson & Talwalkar 2016,
arXiv:1502.07943). At each rung its best checkpoint so far answers the validation set, as `bench run` has the test set
answered; that score decides, and nothing else. The test set is answered once, by those that were trained whole, when
the choice is made.

What a rung found is an artifact of the cache, and a paused training has its checkpoint, so that the same call goes on.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.config.sections import Config
from bench.evaluation.evaluate import EvaluationSet, evaluate, summarise
from bench.experiment import stages
from bench.experiment.context import RunContext, prepare
from bench.experiment.run import Outcome, run, told_in_words
from bench.experiment.workshop import Workshop
from bench.record.example_scores import ExampleArray, example_arrays
from bench.record.store import WORK, Store
from bench.system.artifacts import Busy
from bench.system.errors import BenchError, CannotWrite
from bench.system.files import read_gz, read_json, remove, write_json, write_jsonl_gz
from bench.system.progress import Reporter
from bench.training.length import total_steps
from bench.training.trainer import Trainer
from distillm import Method

FINALISTS = 2
"""So many are trained whole: of one alone nothing could be said to be close."""
DATA, TEACHER, INIT, TRAINING = "data", "teacher", "init student", "training"
RungPlan = list[tuple[int, int]]
"""The steps of each rung, and how many methods come to it."""
MODELS_SCORED = 3
"""Teacher, init student and student answer the test sets at the end."""
SLACK = 1.1
"""Times the seconds that a training is expected to take: methods with student outputs become slower as phi rises."""


class TimeUp(BenchError):
    """The time limit is reached."""


@dataclass(frozen=True)
class Trial:
    """A method after some of its steps.

    Attributes:
        run_id: of its run.
        step: steps trained.
        total: steps of the whole training.
        score: of its best checkpoint so far on the validation set, by the metric that selects checkpoints.
        step_seconds: seconds of a step so far, validations and checkpoints counted.
        answering_seconds: what answering the validation set took.
        other_seconds: what all but training took: data, models, answers.
        larger: examples of all test sets over those of the validation set.
        phi: probability of training on student outputs at the last step; None where the method has none.
        folder: of the responses.
    """

    run_id: str
    step: int
    total: int
    score: float
    step_seconds: float
    answering_seconds: float
    other_seconds: float
    larger: float
    phi: float | None
    folder: Path

    def examples(self, metric: str) -> ExampleArray:
        """What each validation example scored by a metric."""
        return example_arrays(read_gz(self.folder / "predictions.jsonl.gz"), metric)["validation"]


@dataclass(frozen=True)
class Rung:
    """Methods after as many steps; `kept` goes on (at the last rung: was chosen), the best first."""

    step: int
    trials: Mapping[str, Trial]
    kept: tuple[str, ...]


@dataclass
class Halving:
    """A suite of successive halving.

    Attributes:
        contenders: by method, configuration and method; all else is the same.
        store: where the finished runs go.
        place: folder of the paused trainings.
        minutes: when it has to be over, from `began` on.
        began: by `time.monotonic`.
        console: where progress is shown.
        failed: methods that cannot run or whose training broke down, and why.
        untried: methods that there was no time for.
        cut: steps that fewer went on from than planned, for want of time.
    """

    contenders: Mapping[str, tuple[Config, Method]]
    store: Store
    place: Path
    minutes: float
    began: float
    console: Console
    quiet: bool = False
    failed: dict[str, str] = field(default_factory=dict)
    untried: tuple[str, ...] = ()
    cut: list[int] = field(default_factory=list)

    @property
    def taken(self) -> float:
        """Minutes that this call has taken."""
        return (time.monotonic() - self.began) / 60

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return 60 * (self.minutes - self.taken)

    def run(self) -> tuple[list[Rung], dict[str, Outcome]]:
        """All rungs, and the finished runs of the last one's methods, the chosen one first.

        Methods are tried in an order that the seed draws, so that those without time to be tried are nobody's choice;
        the first rung takes at most half of the time, and leaves enough to train its best whole.

        Raises:
            TimeUp: the time is over; the same call goes on.
            BenchError: bad input, or too little time for one training.
        """
        rungs: list[Rung] = []
        config, _ = next(iter(self.contenders.values()))
        alive = tuple(random.Random(config.seed).sample(sorted(self.contenders), len(self.contenders)))
        plan = self._plan()
        half = self.left / 2
        for number, (step, _) in enumerate(plan):
            trials: dict[str, Trial] = {}
            for name in alive:
                if number == 0 and trials and self._enough(trials, plan, half):
                    break
                try:
                    title = f"{name} to step {step} of {plan[-1][0]}, rung {number + 1} of {len(plan)}"
                    trials[name] = self._tried(title, *self.contenders[name], step)
                except (TimeUp, Busy, CannotWrite):  # which say nothing of the method
                    raise
                except BenchError as error:  # one that diverges, does not fit into memory, or is the user's and wrong
                    self.failed[name] = str(error)
            if number == 0:
                self.untried = tuple(name for name in alive if name not in trials and name not in self.failed)
            if not trials:
                raise BenchError(f"no method could be trained: {'; '.join(self.failed.values())}")
            kept = self._kept(trials, plan[number:])
            rungs.append(Rung(step, trials, kept))
            for name in set(trials) - set(kept):
                remove(self.place / trials[name].run_id)
            alive = kept
        return rungs, {name: self._finished(name, rungs[-1].trials[name]) for name in alive}

    def _plan(self) -> RungPlan:
        """The rungs; teacher and init student are there afterwards."""
        config, method = next(iter(self.contenders.values()))
        workshop = self._workshop(f"what all methods of {config.task} share")
        reporter = workshop.reporter
        with reporter.session([DATA, TEACHER, INIT]), told_in_words(reporter, config):
            with reporter.stage(DATA):
                context = prepare(config, method, workshop.cache, progress=reporter.progress)
            with reporter.stage(TEACHER):
                stages.teacher(context, workshop)
            with reporter.stage(INIT):
                stages.init_student(context, workshop)
        total = total_steps(config.training, len(context.sequences["train"]))
        return rungs_of(len(self.contenders), total, config.training.validations)

    def _enough(self, trials: Mapping[str, Trial], plan: RungPlan, half: float) -> bool:
        """Whether there is no time to try one more method at the first rung."""
        return self.left < half or self._needs(ranked(trials)[:1], trials, plan, one_more=True) > self.left

    def _kept(self, trials: Mapping[str, Trial], plan: RungPlan) -> tuple[str, ...]:
        """The best that the plan lets go on, or as many of them as can be trained on in the time that is left.

        Raises:
            BenchError: not one can.
        """
        order = ranked(trials)
        if len(plan) == 1:
            return tuple(order)
        wanted = min(len(order), plan[1][1])
        for count in range(wanted, 0, -1):
            if self._needs(order[:count], trials, plan) <= self.left:
                if count < wanted:
                    self.cut.append(plan[0][0])
                return tuple(order[:count])
        best, more = order[0], self._needs(order[:1], trials, plan) / 60
        raise BenchError(
            f"--minutes {self.minutes:g} is too little: training {best} whole takes about {more:.1f} minutes more. "
            f"Give --minutes {math.ceil(self.taken + more)} or more (what is done is kept), or a shorter training: "
            "--set training.steps=N"
        )

    def _needs(
        self, order: Sequence[str], trials: Mapping[str, Trial], plan: RungPlan, *, one_more: bool = False
    ) -> float:
        """Seconds that the rungs after a plan's first take, and the test sets, by what was seen so far, with `SLACK`.

        Half at most goes on from each later rung, so that these are the least seconds that a choice of `order` takes.

        `one_more` adds those of one more method at the first.
        """
        first, *later = plan
        seconds = max(t.step_seconds * t.step + t.other_seconds for t in trials.values()) if one_more else 0.0
        alive, before = [trials[name] for name in order], first[0]
        for number, (step, count) in enumerate(later):
            alive = alive[: min(count, math.ceil(len(alive) / 2)) if number else count]
            seconds += sum(t.step_seconds * (step - before) + t.other_seconds for t in alive)
            before = step
        return SLACK * (seconds + sum(MODELS_SCORED * t.answering_seconds * t.larger + t.other_seconds for t in alive))

    def _workshop(self, title: str) -> Workshop:
        """A workshop of its own for each training, since its notes go into its record."""
        reporter = _Timed(self.console, quiet=self.quiet, title=title)
        reporter.left = lambda: self.left
        return Workshop.of(reporter)

    def _tried(self, title: str, config: Config, method: Method, until: int) -> Trial:
        began, workshop = time.monotonic(), self._workshop(title)
        reporter = workshop.reporter
        with reporter.session([TRAINING]), told_in_words(reporter, config), reporter.stage(TRAINING):
            context = prepare(config, method, workshop.cache, progress=reporter.progress)
            key = {"run": dict(context.run_key), "until": until}
            build = partial(_train, context, workshop, self.place / context.run_id, until, began)
            folder = workshop.cache.get("rung", key, build)
            return Trial(folder=folder, **read_json(folder / "trial.json"))

    def _finished(self, name: str, trial: Trial) -> Outcome:
        """The run of a training that is over: its test scores and its record."""
        workshop = self._workshop(f"{name}: the test sets")
        paused, own = (folder / trial.run_id / WORK for folder in (self.place, self.store.runs))
        if paused.is_dir() and not own.exists() and self.store.finished(trial.run_id) is None:
            own.parent.mkdir(parents=True, exist_ok=True)
            paused.rename(own)
        outcome = run(*self.contenders[name], self.store, workshop)
        remove(paused.parent)
        return outcome


class _Timed(Reporter):
    """A reporter that ends what it shows the progress of when the time is up."""

    left: Callable[[], float]

    def progress(self, done: int, total: int, figures: str = "") -> None:
        if self.left() < 0:
            raise TimeUp("the time is up; the same command goes on from the last checkpoint")
        super().progress(done, total, figures)


def rungs_of(methods: int, total: int, validations: int) -> RungPlan:
    """Steps at which a training of so many steps is paused, and how many methods come to each.

    Steps are the first validations from total / 2^k on, with as many halvings k as leave the finalists. The same share
    goes on from each; where trainings are validated too seldom for that many rungs, it is less than half.
    """
    validations = min(validations, total)
    validated = [round(total * i / validations) for i in range(1, validations + 1)]
    halvings = max(0, math.ceil(math.log2(methods / FINALISTS)))
    steps = {next(step for step in validated if step >= total // 2**k) for k in range(halvings + 1)}
    share = min(1.0, FINALISTS / methods) ** (1 / max(1, len(steps) - 1))
    return [(step, math.ceil(round(methods * share**i, 6))) for i, step in enumerate(sorted(steps))]


def ranked(trials: Mapping[str, Trial]) -> list[str]:
    """Their methods, the best first."""
    return sorted(trials, key=lambda name: -trials[name].score)


def _train(context: RunContext, workshop: Workshop, place: Path, until: int, began: float, folder: Path) -> None:
    """Train up to a step, from where an earlier rung left off, and have the validation set answered."""
    teacher = stages.teacher(context, workshop)
    train_on = stages.training_sequences(context, stages.teacher_responses(context, workshop, teacher))
    init = stages.init_student(context, workshop)
    job = stages.distillation(context, workshop, teacher, init, train_on, place / WORK)
    ready = time.monotonic()
    state = Trainer(job).fit(until)
    if state.step != until:  # what lies there is of a later rung, whose artifact is gone
        remove(place)
        job = stages.distillation(context, workshop, teacher, init, train_on, place / WORK)
        state = Trainer(job).fit(until)
    trained = time.monotonic()
    examples = context.data.splits["validation"]
    asked = [EvaluationSet("validation", tuple(examples), context.sequences["validation"])]
    evaluation, progress = context.config.evaluation, workshop.reporter.progress
    with context.autocast():
        rows = evaluate(
            job.student, asked, context.metrics, evaluation, context.decoding(), folder / WORK / "answers", progress
        )
    answered = time.monotonic()
    write_jsonl_gz(folder / "predictions.jsonl.gz", rows)
    found: dict[str, Any] = {
        "run_id": context.run_id,
        "step": until,
        "total": state.total_steps,
        "score": summarise(rows, context.metrics)["validation"].primary.mean,
        "step_seconds": sum(state.seconds.values()) / until,
        "answering_seconds": answered - trained,
        "other_seconds": ready - began + answered - trained,
        "larger": sum(len(one.examples) for one in context.evaluation_sets) / len(examples),
        "phi": None if job.output_source.rule.phi not in ("constant", "adaptive") else job.output_source.phi,
    }
    write_json(folder / "trial.json", found)
