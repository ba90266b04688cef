"""Any model's scores on a task's test sets, as a record of its own: nothing is trained."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Unpack

from bench.config.comparable import scoring_fields
from bench.config.resolve import Overrides, parse_assignment, resolve
from bench.config.sections import Config, MethodConfig
from bench.data import find_task
from bench.evaluation.evaluate import summarise
from bench.experiment import stages
from bench.experiment.context import RunContext, prepare
from bench.experiment.identity import SCRATCH, TEACHER, model_fingerprint, model_path
from bench.experiment.pair import frozen
from bench.experiment.run import Outcome, clean, make_folder, told_in_words
from bench.experiment.workshop import Workshop
from bench.models import smollm2
from bench.models.loading import load_architecture, load_tokenizer
from bench.record.example_scores import Prediction
from bench.record.record import EVALUATE, ModelsInfo, RunRecord, TimeInfo, TrainingInfo
from bench.record.store import LOCK, WORK, Store
from bench.synthetic import shipped_teacher
from bench.system.artifacts import locked
from bench.system.environment import describe, peak_memory, reset_peak_memory
from bench.system.errors import BenchError
from bench.system.files import remove, remove_leftovers
from bench.system.hashing import digest
from bench.system.names import checked_name
from distillm import Method


def configuration(
    model: str, label: str | None, *, preset: str, task: str, **overrides: Unpack[Overrides]
) -> tuple[Config, Method]:
    """The configuration that a model is scored under: data, lengths and decoding of a preset's runs.

    Args:
        model: a local folder, a hub id, `shipped` or `smollm2`; its tokenizer is its own.
        label: its name in tables; None = the last part of its folder or id.
        preset, task: as for `bench.config.resolve`.
        overrides: the same; of models, only the kind and the tokenizer can be assigned.

    Raises:
        BenchError: there is no such model, another one is set beside it, or as `resolve`.
    """
    if model in (SCRATCH, TEACHER):
        raise BenchError(f"{model}: that is no model; give a folder, a hub id, shipped or {smollm2.NAME}")
    assignments = tuple(overrides.get("assignments", ()))
    for assignment in assignments:
        (section, *rest), _ = parse_assignment(assignment)
        if section == "models" and rest not in (["kind"], ["tokenizer"]):
            raise BenchError(
                f"--set {assignment}: the model that is scored is the one given as MODEL, here {model}; of models, "
                "only models.tokenizer and models.kind can be set"
            )
    overrides["assignments"] = (
        f"models.kind={_kind(model, task)}",
        "student_pretraining=null",
        "plain_text.hub=null",
        "plain_text.hub_config=null",
        *assignments,
    )
    config, method = resolve(preset=preset, task=task, method="sft", teacher=model, student=TEACHER, **overrides)
    name = checked_name(label, "--label") if label else config.models.name.removesuffix(f"-to-{TEACHER}")
    return config.model_copy(update={"models": config.models.model_copy(update={"name": name})}), method


def _kind(model: str, task: str) -> str:
    """Which kind of model it is; a tokenizer is looked for at once."""
    if model == smollm2.NAME:
        smollm2.folder()  # refuses where its package is missing
        return "causal"
    path = str(shipped_teacher(find_task(task).name)) if model == "shipped" else model
    architecture = load_architecture(path)
    load_tokenizer(path)
    return "seq2seq" if architecture.is_encoder_decoder else "causal"


def evaluate_model(config: Config, method: Method, store: Store, workshop: Workshop, *, fresh: bool = False) -> Outcome:
    """Score the model of a `configuration`, or go on where that was left, or give back what is recorded.

    It belongs into a stage of the reporter that has the model's name.

    Raises:
        BenchError: bad input, out of memory, or files cannot be written.
    """
    reporter = workshop.reporter
    with told_in_words(reporter, config), reporter.stage(config.models.name):
        noted = len(reporter.notes)
        context = prepare(config, method, workshop.cache, progress=reporter.progress)
        for note in context.notes:
            reporter.note(note)
        key = _key(context)
        run_id = f"{config.task}-{EVALUATE}-{config.models.name}-{digest(key)[:10]}"
        folder, before = store.folder(run_id), store.finished(run_id)
        if before is not None and not fresh:
            clean(folder)
            return Outcome(before, folder, cached=True)
        make_folder(folder)
        with locked(folder / LOCK, f"the evaluation {run_id}", reporter.note):
            remove_leftovers(folder)
            recorded = store.finished(run_id)
            if recorded is not None and recorded != before:  # by a process that this one waited for
                remove(folder / WORK)
                return Outcome(recorded, folder, cached=True)
            if fresh:
                remove(folder / WORK)
            record, predictions = _make(context, workshop, key, run_id, folder, reporter.notes[noted:])
            store.write(record, predictions)
            remove(folder / WORK)
        return Outcome(record, folder, cached=False)


def _key(context: RunContext) -> dict[str, object]:
    """All that determines the scores."""
    config = context.run_key["config"]
    sections = ("preset", "task", "device", "precision", "data", "models", "evaluation", "fidelity")
    return {**context.run_key, "method": EVALUATE, "config": {name: config[name] for name in sections}}


def _make(
    context: RunContext, workshop: Workshop, key: dict[str, object], run_id: str, folder: Path, notes: list[str]
) -> tuple[RunRecord, list[Prediction]]:
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    path = model_path(context.config, "teacher")
    reset_peak_memory(context.device)
    model = frozen(context, path)
    predictions = stages.predictions(context, workshop, model, folder / WORK / "evaluation")
    fields = scoring_fields(context.run_key)
    record = RunRecord(
        run_id=run_id,
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - clock, 3),
        config=context.config.model_copy(update={"method": MethodConfig(name=EVALUATE, file=None, file_sha256=None)}),
        run_hash=digest(key),
        comparison_key=digest(fields),
        comparison_fields=fields,
        metrics=context.metric_infos,
        evaluated=context.config.models.name,
        scores=summarise(predictions, context.metrics),
        teacher_scores={},
        init_scores={},
        data=context.data_info(notes),
        models=ModelsInfo(
            student_parameters=model.parameters,
            teacher_parameters=model.parameters,
            teacher=model_fingerprint(path),
            generation=context.run_key["generation"],
            decoded_by=sorted(model.graphs.ways) or None,
        ),
        training=TrainingInfo(steps=0, best_step=0, resumes=0, tokens_trained=0, tokens_generated=0),
        time=TimeInfo(phases={}, training_seconds=0.0, steps_per_second=0.0, tokens_per_second=0.0),
        memory=peak_memory(context.device),
        energy_joules=None,
        environment=describe(context.device),
        validations=[],
        curve=[],
    )
    return record, predictions
