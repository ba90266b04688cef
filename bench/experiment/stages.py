"""The stages of a run, from value to value. What runs share is found in the artifact cache by its key, or made now."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import baselines.sft
from bench import __version__
from bench.config.fidelity import NO_REPEAT_NGRAM
from bench.config.sections import TrainingConfig
from bench.evaluation.evaluate import evaluate, is_whole, summarise
from bench.experiment.context import RunContext
from bench.experiment.identity import Side, model_fingerprint, model_path
from bench.experiment.pair import frozen, frozen_dtype, frozen_weights, load, untrained
from bench.experiment.pretraining import (
    about_pretraining,
    base_student,
    before_the_task,
    check_pretraining,
    pretrained_student,
)
from bench.experiment.workshop import Workshop
from bench.metrics.metric import score_texts
from bench.models.encoded import EncodedSplitBuilder
from bench.models.language_model import LanguageModel
from bench.models.sampling import Decoding
from bench.record.example_scores import Prediction
from bench.record.record import Scores, SetScores, TeacherResponses
from bench.system.artifacts import WORK
from bench.system.files import read_json, read_jsonl_gz, write_json, write_jsonl_gz
from bench.training.job import TrainingJob, ValidationSet
from bench.training.length import total_steps
from bench.training.phase_timer import NOT_TRAINING
from bench.training.trainer import Trainer
from distillm import SOURCES, OutputSource, SourceOptions, TokenSequence

RESPONSES_SECONDS = "seconds.json"
TEACHER_SEED = 0  # one teacher for all training seeds and methods


def teacher(context: RunContext, workshop: Workshop) -> str:
    """Folder or hub id of the teacher as distilled from."""
    if not context.config.models.trains_teacher:
        return model_path(context.config, "teacher")
    return str(fine_tuned(context, workshop, "teacher", context.config.teacher_training, TEACHER_SEED, "teacher"))


def init_student(context: RunContext, workshop: Workshop, seed: int | None = None) -> str:
    """Folder of the init student after its short supervised fine-tuning; by default that of the run's seed."""
    config = context.config
    seed = config.seed if seed is None else seed
    return str(fine_tuned(context, workshop, "student", config.init_training, seed, "init student"))


def fine_tuned(
    context: RunContext, workshop: Workshop, side: Side, training: TrainingConfig, seed: int, label: str
) -> Path:
    """Folder of a model after supervised fine-tuning on the task."""

    def build(folder: Path) -> None:
        if side == "teacher":
            check_pretraining(context, workshop)
        train_on = context.sequences["train"]
        steps = total_steps(training, len(train_on))
        job = TrainingJob(
            label=label,
            objective=baselines.sft.CrossEntropy(),
            output_source=OutputSource("dataset", SourceOptions(), total_steps=steps, batch_size=training.batch_size),
            student=base_student(context, workshop, seed) if side == "student" else untrained(context, side, seed),
            teacher=None,
            train=train_on,
            validation=_validation(context),
            config=training,
            max_response_length=context.limits.response,
            seed=seed,
            precision=context.config.precision,
            work=folder / WORK,
            on_step=workshop.on_step,
            note=workshop.reporter.note,
            processes=workshop.processes,
        )
        state = Trainer(job).fit()
        if not workshop.processes.leads:
            return
        job.student.save(folder)
        write_json(folder / "training.json", {"validations": state.validations, "seconds": state.seconds})

    key = {**_trained_on(context, training, side), "seed": seed}
    if side == "student" and context.config.models.lora is not None and (base := pretrained_student(context, workshop)):
        key["base"] = str(base)
    return workshop.make(label.replace(" ", "-"), key, build)


def scores(context: RunContext, workshop: Workshop, path: str, label: str) -> Scores:
    """Test scores of a model that runs share."""
    config = context.config
    key = {
        **_shared_key(context),
        **frozen_weights(context),
        "model": model_fingerprint(path),
        "evaluation": config.evaluation.model_dump(mode="json"),
        **({} if config.score_on == "test" else {"score_on": config.score_on}),
        "no_repeat_ngram": config.fidelity.no_repeat_ngram,
        "metrics": [info.model_dump(exclude={"file"}) for info in context.metric_infos],
    }

    def build(folder: Path) -> None:
        found = summarise(predictions(context, workshop, frozen(context, path), folder / WORK), context.metrics)
        if workshop.processes.leads:
            write_json(folder / "scores.json", {name: one.model_dump(mode="json") for name, one in found.items()})

    read = read_json(workshop.make(f"{label}-scores", key, build) / "scores.json")
    return {name: SetScores.model_validate(one) for name, one in read.items()}


def predictions(context: RunContext, workshop: Workshop, model: LanguageModel, parts: Path) -> list[Prediction]:
    """A model's responses on all evaluation sets, with their scores; `parts` outlives a killed process."""
    # the authors forbid repeated n-grams at test only
    ngram = NO_REPEAT_NGRAM if context.config.fidelity.no_repeat_ngram else 0
    with context.autocast():
        return evaluate(
            model,
            context.evaluation_sets,
            context.metrics,
            context.config.evaluation,
            context.decoding(ngram),
            parts,
            workshop.reporter.progress,
            workshop.reporter.note,
            workshop.processes,
        )


def teacher_responses(context: RunContext, workshop: Workshop, teacher_path: str) -> Path | None:
    """Folder of the teacher's responses to the training prompts; None where the output source asks for none."""
    if SOURCES[context.config.sgo.source].responses != "teacher":
        return None
    train_on, batch_size = context.sequences["train"], context.config.evaluation.batch_size
    decoding = Decoding(context.limits.response, beams=context.config.sgo.beams)
    key = {
        **_shared_key(context),
        **frozen_weights(context),
        "teacher": model_fingerprint(teacher_path),
        "beams": decoding.beams,
        "train_without_bos": context.config.fidelity.train_without_bos,
    }

    # as `sample` takes them; responses depend on who shares their batch, if only by rounding
    order = sorted(range(len(train_on)), key=lambda i: len(train_on[i].prompt))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    processes = workshop.processes

    def respond(missing: list[int], parts: list[Path]) -> None:
        model = frozen(context, teacher_path)
        model.tell_of_graphs(workshop.reporter.note)

        def sample(numbers: Sequence[int]) -> list[list[tuple[int, ...]]]:
            batched = ([train_on[i] for i in batches[number]] for number in numbers)
            with context.autocast():
                return [model.sample(batch, decoding, "teacher responses") for batch in batched]

        for start in range(0, len(missing), processes.size):
            at_once = missing[start : start + processes.size]
            workshop.reporter.progress(at_once[0] * batch_size, len(train_on), "responses")
            for number, sampled in zip(at_once, processes.spread(at_once, sample), strict=True):
                if processes.leads:
                    write_jsonl_gz(parts[number], ({"response": response} for response in sampled))

    def build(folder: Path) -> None:
        """Each batch is kept as it is done, so that a killed process goes on, and memory does not grow."""
        parts = [folder / WORK / f"responses-{batch_size}-{number:06d}.jsonl.gz" for number in range(len(batches))]
        missing = [
            number
            for number, (part, batch) in enumerate(zip(parts, batches, strict=True))
            if processes.leads and not is_whole(part, len(batch), workshop.reporter.note)
        ]
        missing, began = processes.tell(missing), time.perf_counter()
        if missing:
            respond(missing, parts)
        if not processes.leads:
            return
        if len(missing) == len(parts):  # else the seconds of a killed process are lost
            write_json(folder / RESPONSES_SECONDS, {"seconds": round(time.perf_counter() - began, 3)})
        rows = {
            i: row
            for part, batch in zip(parts, batches, strict=True)
            for i, row in zip(batch, read_jsonl_gz(part), strict=True)
        }
        write_jsonl_gz(folder / "responses.jsonl.gz", (rows[i] for i in range(len(train_on))))

    return workshop.make("teacher-responses", key, build)


def training_sequences(context: RunContext, responses: Path | None) -> Sequence[TokenSequence]:
    """What the run trains on: the references, or the teacher's responses where there are any."""
    train_on = context.sequences["train"]
    if responses is None:
        return train_on
    builder = EncodedSplitBuilder()
    for s, row in zip(train_on, read_jsonl_gz(responses / "responses.jsonl.gz"), strict=True):
        builder.add(s.id, array("i", s.prompt), array("i", row["response"]))
    return builder.finish()


def before_training(
    context: RunContext, workshop: Workshop, init_student: str, responses: Path | None
) -> dict[str, float]:
    """Seconds of what the run's method needs before its training (`TimeInfo.before`), whichever run made it."""
    seconds = {}
    pretraining = about_pretraining(context, workshop)
    if pretraining is not None:
        seconds["student pretraining"] = pretraining.seconds
    if context.config.init == "sft":
        phases = read_json(Path(init_student) / "training.json")["seconds"]
        seconds["init student"] = round(sum(s for phase, s in phases.items() if phase not in NOT_TRAINING), 3)
    if responses is not None and (responses / RESPONSES_SECONDS).exists():
        seconds["teacher responses"] = read_json(responses / RESPONSES_SECONDS)["seconds"]
    return seconds


def about_responses(
    context: RunContext, workshop: Workshop, responses: Sequence[TokenSequence]
) -> TeacherResponses | None:
    """Mean length of the teacher's responses and the share it ended, a low one noted; None where none are used."""
    if SOURCES[context.config.sgo.source].responses != "teacher":
        return None
    ended = sum(s.response[-1] == context.tokenizer.eos_id for s in responses) / len(responses)
    if ended < 0.5:
        workshop.reporter.note(
            f"the teacher ended {ended:.0%} of its responses within data.max_response_length="
            f"{context.limits.response} tokens; the rest are trained on as cut, and students of them run on"
        )
    return TeacherResponses(mean_length=sum(len(s.response) for s in responses) / len(responses), ended=ended)


def output_source(context: RunContext, examples: int) -> OutputSource:
    """The run's output source, before its first step; that its options fit was seen when they were resolved."""
    sgo, training = context.config.sgo, context.config.training
    return OutputSource(
        sgo.source,
        SourceOptions(**sgo.options),
        total_steps=total_steps(training, examples),
        batch_size=training.batch_size,
        replays_fresh=context.config.fidelity.replayed_on_policy,
    )


def distillation(
    context: RunContext,
    workshop: Workshop,
    teacher_path: str,
    init_path: str,
    train_on: Sequence[TokenSequence],
    work: Path,
) -> TrainingJob:
    """The run's own training: the method's objective on its output source, from the init student."""
    config = context.config
    objective = context.method.objective(**config.method.options)
    auxiliary = context.auxiliary_loss
    teacher_model = None
    if objective.needs_teacher or (auxiliary is not None and auxiliary.objective.needs_teacher):
        teacher_model = frozen(context, teacher_path)
    student = _init_student(context, workshop, init_path)
    return TrainingJob(
        label=config.method.name,
        objective=objective,
        output_source=output_source(context, len(train_on)),
        student=student,
        teacher=teacher_model,
        train=train_on,
        validation=_validation(context),
        config=config.training,
        max_response_length=context.limits.response,
        seed=config.seed,
        precision=config.precision,
        work=work,
        on_step=workshop.on_step,
        note=workshop.reporter.note,
        processes=workshop.processes,
        auxiliary_loss=auxiliary,
        fidelity=config.fidelity,
    )


def _init_student(context: RunContext, workshop: Workshop, path: str) -> LanguageModel:
    """What the run's training begins from; adapters that an SFT has trained are trained further."""
    if context.config.init != "sft":
        return base_student(context, workshop, context.config.seed)
    if context.config.models.lora is None:
        return load(context, path)
    dtype = frozen_dtype(context)
    return LanguageModel.load_adapted(path, context.tokenizer, context.device, dtype, context.common)


def _validation(context: RunContext) -> ValidationSet:
    references = [example.references for example in context.data.splits["validation"]]
    return ValidationSet(
        sequences=context.sequences["validation"],
        score=lambda texts: score_texts(context.metrics[0], texts, references),
        decoding=context.decoding(),
        batch_size=context.config.evaluation.batch_size,
    )


def _trained_on(context: RunContext, training: TrainingConfig, side: Side) -> dict[str, Any]:
    """What determines a model trained here, beside its seed."""
    config = context.config
    pair = config.models.model_dump(mode="json")
    # adapters name the folder of their base, and are of no use once it has moved
    lora = {"lora": pair["lora"] | {"save": "adapter"}, "base": model_path(config, side)} if config.models.lora else {}
    return {
        **_shared_key(context),
        "what": pair[side],
        "architecture": pair[f"{side}_config"],
        **lora,
        "identity": context.run_key["models"][side],
        **(before_the_task(context) if side == "student" else {}),
        "kind": config.models.kind,
        "training": training.model_dump(mode="json"),
        "decoding": config.evaluation.model_dump(mode="json"),
        "train_without_bos": config.fidelity.train_without_bos,
    }


def _shared_key(context: RunContext) -> dict[str, Any]:
    """What determines everything that is made here, from the context alone."""
    return {
        "tokenizer": context.tokenizer.fingerprint,
        **context.added_key,
        "data": context.data_fingerprint,
        "limits": [context.limits.prompt, context.limits.response],
        "precision": context.config.precision,
        "device": context.device.type,
        "version": __version__,
    }
