"""A run from configuration to record: data -> teacher -> init student -> training -> test sets -> record."""

from __future__ import annotations

import datetime
import shutil
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import PreTrainedModel

import baselines.sft
from bench import __version__
from bench.config.comparable import comparison_fields
from bench.config.fidelity import NO_REPEAT_NGRAM
from bench.config.sections import TrainingConfig
from bench.evaluation.evaluate import EvaluationSet, evaluate, summarise
from bench.experiment.context import Setting
from bench.metrics.metric import score_texts
from bench.models import loading as models
from bench.models.generation import Decoding, sample_all
from bench.record.example_scores import Prediction
from bench.record.record import (
    DataInfo,
    ModelsInfo,
    RunRecord,
    Scores,
    SetScores,
    TeacherResponses,
    TimeInfo,
    TrainingInfo,
    Validation,
)
from bench.record.store import FAILURE, WORK, Store
from bench.system.artifacts import WORK as ARTIFACT_WORK
from bench.system.artifacts import locked
from bench.system.environment import EnergyMeter, LoadMeter, describe, peak_memory, reset_peak_memory
from bench.system.errors import BenchError
from bench.system.files import (
    WRITE_ERRORS,
    cannot_write,
    read_json,
    read_jsonl_gz,
    write_json,
    write_jsonl_gz,
)
from bench.system.hashing import digest
from bench.training.auxiliary_loss import LanguageModelling, encode_plain_text, load_plain_text
from bench.training.checkpoint import Progress
from bench.training.trainer import AuxiliaryLoss, Job, NonFiniteLoss, total_steps, train
from distillm import SOURCES, Objective, OutputSource, SourceOptions, TokenSequence

STAGES = ("data", "teacher", "init student", "training", "evaluation")
TEACHER_SEED = 0  # one teacher for all training seeds and methods


@dataclass(frozen=True)
class Outcome:
    """What `run` gives back: the record, where it is, and whether it was there already."""

    record: RunRecord
    path: Path
    cached: bool


class Experiment(Setting):
    """What is done with a setting: making the teacher and the init student, training, evaluating, recording."""

    def raw_model(self, side: str, *seed: int | str) -> PreTrainedModel:
        """Teacher or student before any training here."""
        pair = self.config.models
        name = self.place(side)
        architecture = pair.teacher_config if side == "teacher" else pair.student_config
        if name == "scratch":
            if architecture is None:
                raise BenchError(f"models.{side}=scratch needs an architecture: models.{side}_config")
            return models.new_model(pair.kind, architecture, self.codec, *seed, f"{side} weights").to(self.device)
        return models.load_model(name, pair.kind).to(self.device)

    def fine_tuned(self, side: str, training: TrainingConfig, seed: int, label: str) -> Path:
        """Folder of a model after supervised fine-tuning on the task, from the cache or made now."""

        def build(folder: Path) -> None:
            model = self.raw_model(side, seed)
            train_on = self.sequences["train"]
            steps = total_steps(training, len(train_on))
            source = OutputSource("dataset", SourceOptions(), total_steps=steps, batch_size=training.batch_size)
            progress = self._train(label, model, None, training, seed, folder / ARTIFACT_WORK, _SFT, source, train_on)
            models.save_model(model, self.codec, folder)
            write_json(folder / "training.json", {"validations": progress.validations, "seconds": progress.seconds})

        return self.cache.get(label.replace(" ", "-"), self.shared_key(training, side) | {"seed": seed}, build)

    def teacher_folder(self) -> str:
        """Folder or name of the teacher as distilled from."""
        pair = self.config.models
        if pair.teacher == "shipped":
            return self.place("teacher")
        if pair.teacher != "scratch" and not pair.finetune_teacher:
            return pair.teacher
        return str(self.fine_tuned("teacher", self.config.teacher_training, TEACHER_SEED, "teacher"))

    def scores_of(self, folder: str, label: str) -> Scores:
        """Test scores of a shared model, from the cache or measured now."""
        key = {
            "model": self.identity(folder),
            "data": self.fingerprint,
            **self.prompt_key,
            "limits": [self.limits.prompt, self.limits.response],
            "evaluation": self.config.evaluation.model_dump(mode="json"),
            "no_repeat_ngram": self.config.fidelity.no_repeat_ngram,
            "metrics": [info.model_dump() for info in self.metric_infos],
            "precision": self.config.precision,
            "device": self.device.type,
            "version": __version__,
        }

        def build(target: Path) -> None:
            model = models.load_model(folder, self.config.models.kind).to(self.device)
            scores = summarise(self._evaluate(model, target / ARTIFACT_WORK), self.metrics)
            write_json(target / "scores.json", {name: one.model_dump(mode="json") for name, one in scores.items()})

        found = read_json(self.cache.get(f"{label}-scores", key, build) / "scores.json")
        return {name: SetScores.model_validate(one) for name, one in found.items()}

    def output_source(self) -> OutputSource:
        """The run's output source, before its first step.

        Raises:
            BenchError: its options do not fit the training.
        """
        sgo, training = self.config.sgo, self.config.training
        try:
            return OutputSource(
                sgo.source,
                SourceOptions(**sgo.options),
                total_steps=total_steps(training, len(self.sequences["train"])),
                batch_size=training.batch_size,
                replays_fresh=self.config.fidelity.replayed_on_policy,
            )
        except ValueError as error:
            raise BenchError(f"sgo: {error}") from error

    def teacher_responses(self, teacher_folder: str) -> list[TokenSequence]:
        """The training prompts answered by the teacher: sampled once, kept in the cache."""
        train_on, batch_size = self.sequences["train"], self.config.evaluation.batch_size
        decoding = Decoding(self.limits.response, beams=self.config.sgo.beams)
        key = {
            "teacher": self.identity(teacher_folder),
            "data": self.fingerprint,
            **self.prompt_key,
            "limits": [self.limits.prompt, self.limits.response],
            "batch_size": batch_size,
            "beams": decoding.beams,
            "train_without_bos": self.config.fidelity.train_without_bos,
            "precision": self.config.precision,
            "device": self.device.type,
            "version": __version__,
        }

        def build(folder: Path) -> None:
            teacher = models.load_model(teacher_folder, self.config.models.kind).to(self.device)
            with self.accelerator.autocast():
                sampled = sample_all(
                    teacher,
                    train_on,
                    self.codec,
                    decoding,
                    batch_size,
                    "teacher responses",
                    progress=lambda done: self.reporter.progress(done, len(train_on), "responses"),
                )
            write_jsonl_gz(folder / "responses.jsonl.gz", ({"response": response} for response in sampled))

        rows = read_jsonl_gz(self.cache.get("teacher-responses", key, build) / "responses.jsonl.gz")
        return [s.with_response(tuple(row["response"]), None) for s, row in zip(train_on, rows, strict=True)]

    def _about_responses(self, responses: list[TokenSequence]) -> TeacherResponses:
        """Mean length in tokens of the teacher's responses, and the share it ended; a low share is noted."""
        ended = sum(s.response[-1] == self.codec.eos_id for s in responses) / len(responses)
        if ended < 0.5:
            self.reporter.note(
                f"the teacher ended {ended:.0%} of its responses within data.max_response_length="
                f"{self.limits.response} tokens; the rest are trained on as cut, and students of them run on"
            )
        return TeacherResponses(mean_length=sum(len(s.response) for s in responses) / len(responses), ended=ended)

    def _evaluate(self, model: PreTrainedModel, parts: Path) -> list[Prediction]:
        sets = [
            EvaluationSet(self.data.labels.get(name, name), examples, self.sequences[name])
            for name, examples in self.data.splits.items()
            if name not in ("train", "validation")
        ]
        with self.accelerator.autocast():
            return evaluate(
                model,
                sets,
                self.codec,
                self.metrics,
                self.config.evaluation,
                self._decoding(test=True),
                parts,
                self.reporter.progress,
            )

    def _decoding(self, *, test: bool) -> Decoding:
        """How responses are sampled for scores; the authors forbid repeated n-grams at test only."""
        evaluation = self.config.evaluation
        ngram = NO_REPEAT_NGRAM if test and self.config.fidelity.no_repeat_ngram else 0
        return Decoding(
            self.limits.response,
            evaluation.temperature,
            evaluation.top_p,
            evaluation.top_k,
            no_repeat_ngram=ngram,
        )

    @cached_property
    def auxiliary_loss(self) -> AuxiliaryLoss | None:
        """The method's loss on plain text; None where it is off."""
        given = self.config.plain_text
        if given.weight == 0:
            if self.method.plain_text.weight:
                self.reporter.note(f"{self.method.name}: trained without its plain-text loss (plain_text.weight=0)")
            return None
        texts = encode_plain_text(load_plain_text(given.file), self.codec, given.max_length)
        return AuxiliaryLoss(LanguageModelling(given.kl_share), given.weight, texts, given.batch_size)

    def _train(
        self,
        label: str,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        training: TrainingConfig,
        seed: int,
        work: Path,
        objective: Objective,
        source: OutputSource,
        train_on: list[TokenSequence],
        plain_text: AuxiliaryLoss | None = None,
    ) -> Progress:
        return train(
            Job(
                label=label,
                objective=objective,
                source=source,
                student=student,
                teacher=teacher,
                codec=self.codec,
                train=train_on,
                validation=self.sequences["validation"],
                score=lambda texts: score_texts(
                    self.metrics[0], texts, [e.references for e in self.data.splits["validation"]]
                ),
                config=training,
                decoding=self._decoding(test=False),
                evaluation_batch=self.config.evaluation.batch_size,
                max_response_length=self.limits.response,
                seed=seed,
                accelerator=self.accelerator,
                work=work,
                plain_text=plain_text,
                fidelity=self.config.fidelity,
                watch=lambda done, total, figures: self.reporter.progress(done, total, _figures(figures)),
            )
        )

    def run(self, store: Store, *, fresh: bool = False) -> Outcome:
        """Make the run, or go on where it was left, or give back what is recorded.

        Raises:
            BenchError: bad input, or files cannot be written.
        """
        with self.reporter.session(list(STAGES)):
            with self.reporter.stage("data"):
                folder = self._open(store)
                for note in self.data.notes:
                    self.reporter.note(note)
            with locked(folder / "lock", f"the run {self.run_id}", self.reporter.note):
                done = store.finished(self.run_id)
                if done is not None and not fresh:
                    return Outcome(done, folder, cached=True)
                if fresh:
                    shutil.rmtree(folder / WORK, ignore_errors=True)
                try:
                    record, predictions = self._make(folder)
                except NonFiniteLoss as error:
                    told = {"run_id": self.run_id, "error": str(error), **error.details, "key": self.run_key}
                    write_json(folder / FAILURE, told)
                    raise
                store.write(record, predictions)
                shutil.rmtree(folder / WORK, ignore_errors=True)
                return Outcome(record, folder, cached=False)

    def _open(self, store: Store) -> Path:
        """Check everything that can be checked before any work, then make the run's folder."""
        self.codec  # noqa: B018  a pair that does not fit is refused before anything is written
        self.sequences  # noqa: B018
        self.output_source()
        self._note_ignored()
        self.auxiliary_loss  # noqa: B018
        folder = store.folder(self.run_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(folder, error) from error
        return folder

    def _note_ignored(self) -> None:
        """Say which options of the output source were set and have no effect with it."""
        source, usual = self.config.sgo.source, asdict(SourceOptions()) | dict(self.method.source_options)
        read = SOURCES[source].reads | ({"capacity"} if self.config.fidelity.replayed_on_policy else set())
        for name, value in self.config.sgo.options.items():
            if name not in read and value != usual[name]:
                readers = ", ".join(other for other, rule in SOURCES.items() if name in rule.reads)
                self.reporter.note(f"sgo.{name}={value} has no effect: {source} does not read it ({readers} would)")

    def _make(self, folder: Path) -> tuple[RunRecord, list[Prediction]]:
        config, reporter = self.config, self.reporter
        started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
        environment = describe(self.device)
        with reporter.stage("teacher"):
            teacher_folder = self.teacher_folder()
            teacher_scores = self.scores_of(teacher_folder, "teacher")
            by_teacher = SOURCES[config.sgo.source].responses == "teacher"
            train_on = self.teacher_responses(teacher_folder) if by_teacher else self.sequences["train"]
            answered = self._about_responses(train_on) if by_teacher else None
        with reporter.stage("init student"):
            init_folder = str(self.fine_tuned("student", config.init_training, config.seed, "init student"))
            init_scores = self.scores_of(init_folder, "init-student")

        objective = self.method.objective(**config.method.options)
        teacher = None
        plain_text = self.auxiliary_loss
        if objective.needs_teacher or (plain_text is not None and plain_text.objective.needs_teacher):
            dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
            teacher = models.load_model(teacher_folder, config.models.kind, dtype).to(self.device).eval()
        student = (
            models.load_model(init_folder, config.models.kind).to(self.device)
            if config.init == "sft"
            else self.raw_model("student", config.seed)
        )
        if teacher is not None:
            models.check_output_sizes(teacher, student)
        reset_peak_memory(self.device)
        meter, load = EnergyMeter(self.device), LoadMeter()
        with reporter.stage("training"):
            progress = self._train(
                config.method.name,
                student,
                teacher,
                config.training,
                config.seed,
                folder / WORK,
                objective,
                self.output_source(),
                train_on,
                plain_text,
            )
            memory, joules = peak_memory(self.device), meter.joules()
            environment = environment.model_copy(update={"other_load": load.mean()})
        del teacher
        with reporter.stage("evaluation"):
            rows = self._evaluate(student, folder / WORK / "evaluation")
            try:
                models.save_model(student, self.codec, folder / "student")
            except WRITE_ERRORS as error:
                raise cannot_write(folder / "student", error) from error
        training_seconds = progress.training_seconds
        record = RunRecord(
            run_id=self.run_id,
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - clock, 3),
            config=config.model_copy(update={"device": self.device.type}),
            run_hash=digest(self.run_key),
            comparison_key=digest(comparison_fields(self.run_key)),
            comparison_fields=comparison_fields(self.run_key),
            metrics=self.metric_infos,
            scores=summarise(rows, self.metrics),
            teacher_scores=teacher_scores,
            init_scores=init_scores,
            data=DataInfo(
                source=self.data.source,
                fingerprint=self.fingerprint,
                examples={name: len(examples) for name, examples in self.data.splits.items()},
                overlap=self.data.overlap,
                teacher_responses=answered,
                notes=reporter.notes,
            ),
            models=ModelsInfo(
                student_parameters=models.parameters(student),
                teacher_parameters=models.parameter_count(teacher_folder, config.models.kind),
                teacher=self.identity(teacher_folder),
            ),
            training=TrainingInfo(
                steps=progress.step,
                best_step=progress.best_step,
                resumes=progress.resumes,
                tokens_trained=progress.tokens_trained,
                tokens_generated=progress.tokens_generated,
            ),
            time=TimeInfo(
                phases={name: round(value, 4) for name, value in progress.seconds.items()},
                training_seconds=round(training_seconds, 4),
                steps_per_second=round(progress.step / training_seconds, 3),
                tokens_per_second=round(progress.tokens_trained / training_seconds, 1),
            ),
            memory=memory,
            energy_joules=joules,
            environment=environment,
            validations=[Validation.model_validate(row) for row in progress.validations],
            curve=progress.curve,
        )
        return record, rows


_SFT = baselines.sft.CrossEntropy()


def _figures(figures: dict[str, float]) -> str:
    shown = {key: f"{value:.3f}" if isinstance(value, float) else value for key, value in figures.items()}
    return ", ".join(f"{key} {value}" for key, value in shown.items())
