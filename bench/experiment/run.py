"""A run from configuration to record: data -> teacher -> init student -> training -> test sets -> record."""

from __future__ import annotations

import dataclasses
import datetime
import gc
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from bench.config.comparable import comparison_fields
from bench.config.sections import Config
from bench.evaluation.evaluate import summarise
from bench.experiment import stages
from bench.experiment.context import RunContext, prepare
from bench.experiment.identity import model_fingerprint
from bench.experiment.pretraining import about_pretraining
from bench.experiment.tracking import check_tracking, tracked
from bench.experiment.workshop import Workshop
from bench.models.language_model import LanguageModel
from bench.models.loading import parameter_count
from bench.record.example_scores import Prediction
from bench.record.record import ModelsInfo, RunRecord, StepTime, TimeInfo, TrainingInfo, Validation
from bench.record.store import FAILURE, LOCK, PREDICTIONS, RECORD, WORK, Store
from bench.system.artifacts import MANIFEST, Busy, locked
from bench.system.environment import (
    EnergyMeter,
    GpuWatch,
    LoadMeter,
    describe,
    largest,
    peak_memory,
    pick_device,
    reset_peak_memory,
)
from bench.system.errors import BenchError, first_line, out_of_memory
from bench.system.extensions import blamed
from bench.system.files import WRITE_ERRORS, cannot_write, publish, remove, remove_leftovers, seal, write_json
from bench.system.hashing import digest
from bench.system.manifest import PeakMemory
from bench.system.paths import check_file, check_folder
from bench.system.processes import Processes, joined, launched
from bench.system.progress import Reporter
from bench.training.job import NonFiniteLoss, TrainingJob
from bench.training.state import TrainerState
from bench.training.trainer import Trainer
from distillm import Method

STUDENT = "student"
STAGES = ("data", "teacher", "init student", "training", "evaluation")

_SMALLER = {
    "data": ("data.max_train=N",),
    "teacher": ("evaluation.batch_size=8", "precision=bf16"),
    "init student": ("init_training.micro_batch_size=1", "evaluation.batch_size=8", "precision=bf16"),
    "training": ("training.micro_batch_size=1", "data.max_prompt_length=N", "precision=bf16"),
    "evaluation": ("evaluation.batch_size=8",),
}
"""What makes a stage need less memory, where no plan can be made."""


@dataclass(frozen=True)
class Outcome:
    """A run's record, its folder, and whether it was recorded before."""

    record: RunRecord
    folder: Path
    cached: bool


def run(
    config: Config, method: Method, store: Store, workshop: Workshop, *, fresh: bool = False, wait: bool = True
) -> Outcome:
    """Make a run, or go on where it was left, or give back what is recorded.

    Several processes that a launcher started make it together, and each gives back the record.

    Args:
        config: from `bench.config.resolve`.
        method: the method it names.
        store: where the record goes.
        workshop: where teachers and init students are shared, and who is told of progress.
        fresh: begin again whatever is there.
        wait: until another process that makes the same run has ended.

    Raises:
        Busy: another process makes the same run, and `wait` is off.
        BenchError: bad input, or files cannot be written.
    """
    if launched().sharded:
        _check_shareable(config)
    with joined(pick_device(config.device)) as processes:
        if not processes.leads:
            workshop.reporter.quiet = True
        return _run(config, method, store, workshop._replace(processes=processes), fresh=fresh, wait=wait)


def _check_shareable(config: Config) -> None:
    """Refuse what cannot be trained in parts (FSDP).

    Raises:
        BenchError: what it is, and what to take.
    """
    trainings = (config.teacher_training, config.init_training, config.training, config.student_pretraining)
    if any(training is not None and training.optimizer != "adamw" for training in trainings):
        raise BenchError("FSDP: the moments of optimizer=adamw-8bit cannot be shared out; take optimizer=adamw")
    if config.models.lora is not None:
        raise BenchError(
            "FSDP: adapters (models.lora) are small and their base is frozen: leave out --use_fsdp, or set "
            "models.lora=null to train all weights"
        )


def _run(config: Config, method: Method, store: Store, workshop: Workshop, *, fresh: bool, wait: bool) -> Outcome:
    reporter, processes = workshop.reporter, workshop.processes
    with reporter.session(list(STAGES)), told_in_words(reporter, config):
        with reporter.stage("data"):
            for place in (store.runs, workshop.cache.root):
                # one that is there may hold all that is needed, for a user who may only read it
                check_folder(place, write=not place.is_dir())
            check_tracking(config)
            context = prepare(config, method, workshop.cache, progress=reporter.progress)
            for note in context.notes:
                reporter.note(note)
            processes.check_same(context.run_id, "the run to make")
            folder, before = store.folder(context.run_id), store.finished(context.run_id)
            if processes.leads and before is not None and not fresh:
                clean(folder)
                processes.tell(False)
                return Outcome(before, folder, cached=True)
            if processes.leads:
                make_folder(folder)
        if not processes.leads:
            return _help(context, workshop, store)
        with _busy_told(processes), locked(folder / LOCK, f"the run {context.run_id}", reporter.note, wait=wait):
            remove_leftovers(folder)
            recorded = store.finished(context.run_id)
            # one that another process made while this one waited is as fresh as its own would be
            if recorded is not None and recorded != before:
                _remove_work(folder)
                processes.tell(False)
                return Outcome(recorded, folder, cached=True)
            if recorded is None and (folder / RECORD).exists():
                reporter.note(f"{folder / RECORD} cannot be read; the run is made again")
            if fresh:
                _remove_work(folder)
            processes.tell(True)
            try:
                record, predictions = make(context, workshop, folder)
            except NonFiniteLoss as error:
                told = {"run_id": context.run_id, "error": str(error), **error.details, "key": dict(context.run_key)}
                write_json(folder / FAILURE, told)
                raise
            if recorded is not None:
                earlier = [recorded.time.training_seconds, *recorded.time.earlier]
                record = record.model_copy(update={"time": record.time.model_copy(update={"earlier": earlier})})
            store.write(record, predictions)
            processes.wait()  # the others read it, and have read what goes now
            _remove_work(folder)
            return Outcome(record, folder, cached=False)


def _help(context: RunContext, workshop: Workshop, store: Store) -> Outcome:
    """The run's part of a process that does not lead: it takes no lock and writes nothing."""
    folder, told = store.folder(context.run_id), workshop.processes.tell(False)
    if isinstance(told, BenchError):
        raise told
    if told:
        make(context, workshop, folder)
        workshop.processes.wait()
    record = store.finished(context.run_id)
    assert record is not None
    return Outcome(record, folder, cached=not told)


@contextmanager
def _busy_told(processes: Processes) -> Iterator[None]:
    """Let those that wait to help end as the leader does."""
    try:
        yield
    except Busy as error:
        processes.tell(error)
        raise


@contextmanager
def told_in_words(reporter: Reporter, config: Config) -> Iterator[None]:
    """Turn what a user's own code raises, and a lack of memory, into words.

    Raises:
        BenchError: in place of either.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, too
        # what cannot be loaded says why in words of its own, such as that a folder holds no model
        raised = error.__cause__ if isinstance(error, BenchError) else error
        if raised is not None and out_of_memory(raised):
            stage = next((stage.name for stage in reporter.stages if stage.state == "failed"), "data")
            stage = stage if stage in STAGES else "evaluation"  # of `bench evaluate`, whose stages are models
            raise BenchError(
                f"out of memory in the stage {stage}: {first_line(raised)}\n"
                f"The same command goes on from what is on disk, once more memory is free. {_what_fits(config, stage)}"
            ) from error
        if isinstance(error, BenchError):
            raise
        raise blamed(error) or error from error


def _what_fits(config: Config, stage: str) -> str:
    """What would make a stage that ran out of memory fit, by the plan; else what makes any smaller."""
    pretraining = config.student_pretraining if stage == "init student" else None
    try:
        if launched().sharded or (pretraining is not None and pretraining.steps is None):
            raise LookupError  # which no plan covers
        from bench.experiment.planning.fit import remedy
        from bench.experiment.planning.plan import GIB, make_plan, memory_here, of_run_stage

        kind, memory = memory_here()
        plan = make_plan(config, kind)
        largest = max(of_run_stage(plan, stage), key=lambda one: one.peak)
        # what others take is not known to the plan: what it asks for has to fit into less than was not enough
        found = remedy(plan, largest, min(memory, largest.peak))
        if found is not None:
            return (
                f"By the plan it takes {largest.peak / GIB:.2f} of {memory / GIB:.1f} GiB; {found.peak / GIB:.2f} with "
                f"{' '.join(f'--set {setting}' for setting in found.settings)} (see `bench plan`)"
            )
    except Exception:  # there may be no memory for a plan either: without any, Python raises a SystemError, too
        pass
    first = ["student_pretraining"] * bool(pretraining)
    first += ["teacher_training"] * (stage == "teacher" and config.models.trains_teacher)
    options = (*(f"{section}.micro_batch_size=1" for section in first), *_SMALLER[stage])
    return f"To need less: {' or '.join(f'--set {option}' for option in options)}"


def make(context: RunContext, workshop: Workshop, folder: Path) -> tuple[RunRecord, list[Prediction]]:
    """All stages of a run, and its record."""
    reporter, processes = workshop.reporter, workshop.processes
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    environment = describe(context.device)
    with reporter.stage("teacher"):
        teacher = stages.teacher(context, workshop)
        teacher_scores = stages.scores(context, workshop, teacher, "teacher")
        responses = stages.teacher_responses(context, workshop, teacher)
        train_on = stages.training_sequences(context, responses)
        about_responses = stages.about_responses(context, workshop, train_on)
    with reporter.stage("init student"):
        init_student = stages.init_student(context, workshop)
        init_scores = stages.scores(context, workshop, init_student, "init-student")
    watched = tracked(
        *(context.config, context.run_id, context.device, folder.parents[1], reporter.note), leads=processes.leads
    )
    with watched as tracker:
        with reporter.stage("training"):
            job = stages.distillation(context, workshop, teacher, init_student, train_on, folder / WORK)
            job = dataclasses.replace(job, watch=tracker.log)
            state, used = _measured(job, context.device, processes)
        student = job.student
        sizes = student.parameters, student.trained_parameters
        del job  # and with it the teacher
        if processes.sharded:
            gc.collect()  # hooks and layers hold each other
        with reporter.stage("evaluation"):
            predictions = stages.predictions(context, workshop, student, folder / WORK / "evaluation")
            lora = context.config.models.lora
            if processes.leads:
                _save_student(student, folder / STUDENT, merge=lora is not None and lora.save == "merged")
        scores = summarise(predictions, context.metrics)
        tracker.log(
            state.step,
            {f"{name}_{m}": one.mean for name, of_set in scores.items() for m, one in of_set.metrics.items()},
        )
    record = RunRecord(
        run_id=context.run_id,
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - clock, 3),
        config=context.config,
        run_hash=digest(context.run_key),
        comparison_key=digest(comparison_fields(context.run_key)),
        comparison_fields=comparison_fields(context.run_key),
        metrics=context.metric_infos,
        scores=scores,
        teacher_scores=teacher_scores,
        init_scores=init_scores,
        data=context.data_info(reporter.notes, about_responses),
        models=ModelsInfo(
            student_parameters=sizes[0],
            trained_parameters=sizes[1],
            teacher_parameters=parameter_count(teacher, context.tokenizer.kind),
            teacher=model_fingerprint(teacher),
            generation=context.run_key["generation"],
            decoded_by=sorted(student.graphs.ways) or None,
            student_pretraining=about_pretraining(context, workshop),
        ),
        training=TrainingInfo(
            steps=state.step,
            best_step=state.best_step,
            resumes=state.resumes,
            tokens_trained=state.tokens_trained,
            tokens_generated=state.tokens_generated,
        ),
        time=_time(
            state,
            {stage.name: round(stage.seconds, 3) for stage in reporter.stages},
            stages.before_training(context, workshop, init_student, responses),
        ),
        memory=used.memory,
        energy_joules=used.joules,
        environment=environment.model_copy(update=used.environment),
        validations=[Validation.model_validate(row) for row in state.validations],
        curve=state.curve,
    )
    return record, predictions


@dataclass(frozen=True)
class _Used:
    """What a training took of the machine, over all its processes.

    Attributes:
        memory: the largest peaks.
        joules: the sum of those that are known; None where none is.
        environment: what it adds to the record's.
    """

    memory: PeakMemory
    joules: float | None
    environment: dict[str, object]


def _measured(job: TrainingJob, device: torch.device, processes: Processes) -> tuple[TrainerState, _Used]:
    """Train, and measure what it takes."""
    reset_peak_memory(device)
    energy, load = EnergyMeter(device), LoadMeter()
    with GpuWatch(device) as gpu:
        state = Trainer(job).fit()
    memory = largest(processes.gather(peak_memory(device)))
    joules = [one for one in processes.gather(energy.joules()) if one is not None]
    seen = [count for count in processes.gather(gpu.most) if count is not None]
    environment: dict[str, object] = {
        "other_load": load.mean(sum(processes.gather(load.used()))),
        "other_gpu_processes": max(seen) if len(seen) == processes.size else None,
        "processes": processes.size if processes.size > 1 else None,
        "sharded": processes.sharded or None,
    }
    return state, _Used(memory, sum(joules) if joules else None, environment)


def _save_student(student: LanguageModel, folder: Path, *, merge: bool) -> None:
    partial = folder.with_name(f".{folder.name}.part")
    try:
        remove(partial)
        student.save(partial, merge=merge)
        seal(partial / MANIFEST)
        publish(partial, folder)
    except WRITE_ERRORS as error:
        raise cannot_write(folder, error) from error


def _time(state: TrainerState, stages: dict[str, float], before: dict[str, float]) -> TimeInfo:
    seconds = state.training_seconds
    all_known = sum(map(len, state.step_seconds.values())) == state.step
    return TimeInfo(
        phases={name: round(value, 4) for name, value in state.seconds.items()},
        training_seconds=round(seconds, 4),
        steps_per_second=round(state.step / seconds, 3),
        tokens_per_second=round(state.tokens_trained / seconds, 1),
        stages=stages,
        steps={
            kind: StepTime(count=len(each), median=round(statistics.median(each), 6))
            for kind, each in state.step_seconds.items()
            if all_known
        },
        before=before,
    )


def clean(folder: Path) -> None:
    """Remove what a killed process left of a finished run, unless one makes it again; who may only read leaves it."""
    if (folder / WORK).is_dir() or any(folder.glob(".*.part")):
        with suppress(OSError, Timeout), FileLock(folder / LOCK, timeout=1.0):
            remove_leftovers(folder)
            remove(folder / WORK)


def _remove_work(folder: Path) -> None:
    try:
        remove(folder / WORK)
    except OSError as error:
        raise cannot_write(folder / WORK, error) from error


def make_folder(folder: Path) -> None:
    """Make the folder of a run, where everything that will be written has its place.

    Raises:
        BenchError: something else stands in the place of a file or folder, or it cannot be written.
    """
    for name in (WORK, STUDENT):
        check_folder(folder / name, write=True)
    for name in (RECORD, PREDICTIONS, FAILURE):
        check_file(folder / name, write=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
