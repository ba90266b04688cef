"""The student before it sees the task: as it is loaded, or after language modelling on plain text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import baselines.sft
from bench import __version__
from bench.experiment.context import RunContext
from bench.experiment.pair import load, untrained, with_new_adapters
from bench.experiment.workshop import Workshop
from bench.models.encoded import lengths
from bench.models.language_model import LanguageModel
from bench.record.record import StudentPretrainingInfo, Validation
from bench.system.artifacts import WORK
from bench.system.files import read_json, write_json
from bench.training.job import TrainingJob, ValidationSet
from bench.training.length import total_steps
from bench.training.pretraining_text import pretraining_text
from bench.training.trainer import Trainer
from distillm import OutputSource, SourceOptions


def base_student(context: RunContext, workshop: Workshop, seed: int) -> LanguageModel:
    """The student before any training on the task: pretrained here where that is asked for, else untrained."""
    pretrained = pretrained_student(context, workshop)
    if pretrained is None:
        return untrained(context, "student", seed)
    if context.config.models.lora is not None:
        return with_new_adapters(context, str(pretrained), seed, "student adapter")
    return load(context, str(pretrained))


def pretrained_student(context: RunContext, workshop: Workshop) -> Path | None:
    """Folder of the student after language modelling on plain text; None where that is off.

    It is one for all methods, tasks and training seeds. `pretraining.json` in it says what the training was.
    """
    config, given = context.config, context.config.student_pretraining
    if given is None:
        return None

    def told(step: int, total: int, figures: dict[str, float]) -> None:
        workshop.reporter.progress(step, total, f"pretraining, loss {figures['loss']:.3f}")

    def build(folder: Path) -> None:
        text = pretraining_text(given, context.tokenizer, workshop.reporter.progress)
        steps = total_steps(given, len(text.train))
        job = TrainingJob(
            label="pretraining of the student",
            objective=baselines.sft.CrossEntropy(),
            output_source=OutputSource("dataset", SourceOptions(), total_steps=steps, batch_size=given.batch_size),
            student=untrained(context, "student", given.seed, whole=True),
            teacher=None,
            train=text.train,
            validation=ValidationSet(text.held_out, lambda _: 0.0, context.decoding(), config.evaluation.batch_size),
            config=given,
            max_response_length=context.limits.response,
            seed=given.seed,
            precision=config.precision,
            work=folder / WORK,
            on_step=told,
            note=workshop.reporter.note,
            processes=workshop.processes,
        )
        state = Trainer(job).fit()
        if not workshop.processes.leads:
            return
        job.student.save(folder)
        about = StudentPretrainingInfo(
            steps=state.step,
            best_step=state.best_step,
            tokens=state.tokens_trained,
            different_tokens=min(state.tokens_trained, sum(lengths(text.train))),
            seconds=round(state.training_seconds, 1),
            validations=[Validation.model_validate(row) for row in state.validations],
        )
        write_json(folder / "pretraining.json", about.model_dump(mode="json"))

    return workshop.make("pretrained-student", _pretraining_key(context), build)


def check_pretraining(context: RunContext, workshop: Workshop) -> None:
    """Read the text of the student's pretraining before the teacher is trained, whose time would be lost.

    Raises:
        BenchError: it cannot be read, or is too short.
    """
    given = context.config.student_pretraining
    if given is None or workshop.cache.place("pretrained-student", _pretraining_key(context)).is_dir():
        return
    pretraining_text(given, context.tokenizer, workshop.reporter.progress)


def _pretraining_key(context: RunContext) -> dict[str, object]:
    added = {name: value for name, value in context.added_key.items() if name in ("entries", "environment")}
    return {
        "what": context.config.models.student,
        "architecture": context.config.models.student_config,
        "identity": context.run_key["models"]["student"],
        **before_the_task(context),
        "kind": context.config.models.kind,
        "tokenizer": context.tokenizer.fingerprint,
        **added,
        "precision": context.config.precision,
        "device": context.device.type,
        "version": __version__,
    }


def about_pretraining(context: RunContext, workshop: Workshop) -> StudentPretrainingInfo | None:
    """What the student's pretraining was; None where it is off."""
    folder = pretrained_student(context, workshop)
    return None if folder is None else StudentPretrainingInfo.model_validate(read_json(folder / "pretraining.json"))


def before_the_task(context: RunContext) -> dict[str, Any]:
    """What is done to the student before it sees the task; nothing where it is taken as it is."""
    given, layers = context.config.student_pretraining, context.config.models.student_layers
    done: dict[str, Any] = {} if layers is None else {"layers": layers}
    if given is not None:
        settings = given.model_dump(mode="json", exclude={"file", "checkpoint_seconds"})
        done["pretraining"] = {**settings, "text": context.run_key["student_pretraining_text"]}
    return done
