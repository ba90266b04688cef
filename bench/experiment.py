"""A run from configuration to record: data -> teacher -> init student -> training -> test sets -> record."""

from __future__ import annotations

import datetime
import shutil
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from transformers import PreTrainedModel

import baselines.sft
from bench import __version__, models
from bench.artifacts import WORK as ARTIFACT_WORK
from bench.artifacts import ArtifactCache, locked
from bench.checkpoint import Progress
from bench.config import Config, TrainingConfig, comparison_fields, digest
from bench.display import Reporter
from bench.embedded import shipped_student, shipped_teacher
from bench.encoding import Codec, Limits, train_tokenizer
from bench.environment import EnergyMeter, describe, peak_memory, pick_device, reset_peak_memory
from bench.errors import BenchError
from bench.evaluation import EvaluationSet, Metric, evaluate, summarise
from bench.files import (
    WRITE_ERRORS,
    cannot_write,
    read_json,
    read_jsonl_gz,
    sha256_of,
    write_json,
    write_jsonl_gz,
)
from bench.generation import Decoding, sample_all
from bench.store import FAILURE, SCHEMA, WORK, Record, Store
from bench.tasks import TASKS, TaskData, load_task
from bench.training import Job, NonFiniteLoss, total_steps, train
from distillm import SOURCES, Method, Objective, OutputSource, Sequence, SourceOptions

STAGES = ("data", "teacher", "init student", "training", "evaluation")
# what determines a model's outputs; cards and logs beside it do not
_MODEL_FILES = ("config.json", "*.safetensors", "*.bin", "*.gguf", "tokenizer.json", "*.model", "vocab.*", "merges.txt")
TEACHER_SEED = 0  # one teacher for all training seeds and methods


@dataclass(frozen=True)
class Outcome:
    """What `run` gives back: the record, where it is, and whether it was there already."""

    record: Record
    path: Path
    cached: bool


class Experiment:
    """One resolved configuration with everything derived from it, each part made when first needed.

    Args:
        config: from `bench.config.resolve`.
        method: the method it names.
        cache: where artifacts are shared.
        reporter: what the user sees.
    """

    def __init__(self, config: Config, method: Method, cache: ArtifactCache, reporter: Reporter) -> None:
        self.config, self.method, self.cache, self.reporter = config, method, cache, reporter
        self.device = pick_device(config.device)
        self.metric = Metric(TASKS[config.task].metric)
        self.limits = Limits(config.data.max_prompt_length, config.data.max_response_length)

    @cached_property
    def accelerator(self) -> Accelerator:
        """Device placement, precision and backward passes."""
        PartialState._reset_state()  # one process may make several runs, and accelerate keeps the first device
        AcceleratorState._reset_state(True)
        accelerator = Accelerator(
            cpu=self.device.type == "cpu", mixed_precision="bf16" if self.config.precision == "bf16" else "no"
        )
        if accelerator.num_processes > 1:
            raise BenchError("a run uses one process; start it without `accelerate launch --num_processes`")
        return accelerator

    @cached_property
    def data(self) -> TaskData:
        """The task's examples."""
        given = self.config.data
        sizes = {"train": given.max_train, "validation": given.max_validation}
        tests = ("test", *TASKS[self.config.task].evaluation_sets)
        return load_task(
            self.config.task,
            data_dir=Path(given.dir) if given.dir else None,
            hub=given.hub,
            train_file=Path(given.train_file) if given.train_file else None,
            test_file=Path(given.test_file) if given.test_file else None,
            template=given.template,
            drop_overlap=given.drop_overlap,
            limits=sizes | dict.fromkeys(tests, given.max_test),
            seed=given.seed,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the examples."""
        return self.data.fingerprint()

    @property
    def signature(self) -> str:
        """What exactly the metric computes on the test set."""
        return self.metric.signature(self.data.splits["test"])

    @cached_property
    def codec(self) -> Codec:
        """The tokenizer of the pair."""
        pair = self.config.models
        if pair.tokenizer == "trained":
            key = {"data": self.fingerprint, "vocab_size": pair.vocab_size, "version": __version__}
            texts = [text for e in self.data.splits["train"] for text in (e.prompt, e.references[0])]
            folder = self.cache.get("tokenizer", key, lambda f: train_tokenizer(texts, pair.vocab_size, f))
            return Codec(models.load_tokenizer(str(folder)), pair.kind)
        name = self.place("teacher") if pair.tokenizer in ("shipped", "teacher") else pair.tokenizer
        codec = Codec(models.load_tokenizer(name), pair.kind)
        for other, where in ((pair.teacher, "teacher"), (pair.student, "student")):
            if other not in ("shipped", "scratch", name):
                theirs = Codec(models.load_tokenizer(other), pair.kind)
                models.check_same_vocabulary(codec, theirs, name, f"({where}) {other}")
        return codec

    def place(self, side: str) -> str:
        """Where teacher or student is loaded from: a folder, a hub id, or `scratch`."""
        name: str = getattr(self.config.models, side)
        if name != "shipped":
            return name
        task = self.config.task
        folder = shipped_teacher(task) if side == "teacher" else shipped_student(task)
        if not (folder / "config.json").is_file():
            raise BenchError(f"no {side} for {task} is shipped; use --set models.{side}=scratch")
        return str(folder)

    @cached_property
    def sequences(self) -> dict[str, list[Sequence]]:
        """Every split as token ids; what was dropped or cut is noted."""
        encoded = {}
        for split, examples in self.data.splits.items():
            encoded[split], counts = self.codec.encode(examples, self.limits, drop_long=split == "train")
            for what, count in counts.items():
                if count:
                    limit = self.limits.prompt if what.startswith("prompts") else self.limits.response
                    noun, verb = what.split("_")
                    noun = noun.removesuffix("s") if count == 1 else noun
                    self.reporter.note(f"{split}: {count} {noun} {verb} at {limit} tokens")
            if not encoded[split]:
                raise BenchError(
                    f"{split}: no example is left: every prompt is over data.max_prompt_length={self.limits.prompt}"
                )
        return encoded

    @cached_property
    def run_key(self) -> dict[str, Any]:
        """All that determines the run's numbers."""
        return {
            "config": self.config.canonical() | {"device": self.device.type},
            "data": self.fingerprint,
            "models": {side: self._identity(self.place(side)) for side in ("teacher", "student")},
            "version": __version__,
        }

    @property
    def run_id(self) -> str:
        """Readable, and unique to `run_key`."""
        c = self.config
        return f"{c.task}-{c.method['name']}-{c.sgo['source']}-s{c.seed}-{digest(self.run_key)[:10]}"

    def _identity(self, name: str) -> str:
        """What a model name stands for: checksums of a folder's files, or the commit of a hub repository."""
        if name == "scratch":
            return name
        folder = Path(name)
        if folder.is_dir():
            files = sorted(p for pattern in _MODEL_FILES for p in folder.glob(pattern))
            return digest({p.name: sha256_of(p) for p in files})
        return f"{name}@{models.hub_commit(name)}"

    def _shared_key(self, training: TrainingConfig, side: str) -> dict[str, Any]:
        """What determines a model trained here, beside its seed."""
        pair = self.config.models.model_dump(mode="json")
        return {
            "what": pair[side],
            "architecture": pair[f"{side}_config"],
            "identity": self.run_key["models"][side],
            "kind": self.config.models.kind,
            "tokenizer": digest(self.codec.tokenizer.get_vocab()),
            "training": training.model_dump(mode="json"),
            "data": self.fingerprint,
            "limits": [self.limits.prompt, self.limits.response],
            "decoding": self.config.evaluation.model_dump(mode="json"),
            "precision": self.config.precision,
            "device": self.device.type,
            "version": __version__,
        }

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

        return self.cache.get(label.replace(" ", "-"), self._shared_key(training, side) | {"seed": seed}, build)

    def teacher_folder(self) -> str:
        """Folder or name of the teacher as distilled from."""
        pair = self.config.models
        if pair.teacher == "shipped":
            return self.place("teacher")
        if pair.teacher != "scratch" and not pair.finetune_teacher:
            return pair.teacher
        return str(self.fine_tuned("teacher", self.config.teacher_training, TEACHER_SEED, "teacher"))

    def scores_of(self, folder: str, label: str) -> dict[str, Any]:
        """Test scores of a shared model, from the cache or measured now."""
        key = {
            "model": self._identity(folder),
            "data": self.fingerprint,
            "limits": [self.limits.prompt, self.limits.response],
            "evaluation": self.config.evaluation.model_dump(mode="json"),
            "metric": self.signature,
            "precision": self.config.precision,
            "device": self.device.type,
            "version": __version__,
        }

        def build(target: Path) -> None:
            model = models.load_model(folder, self.config.models.kind).to(self.device)
            write_json(target / "scores.json", summarise(self._evaluate(model, target / ARTIFACT_WORK), self.metric))

        scores: dict[str, Any] = read_json(self.cache.get(f"{label}-scores", key, build) / "scores.json")
        return scores

    def output_source(self) -> OutputSource:
        """The run's output source, before its first step.

        Raises:
            BenchError: its options do not fit the training.
        """
        sgo, training = dict(self.config.sgo), self.config.training
        try:
            return OutputSource(
                sgo.pop("source"),
                SourceOptions(**sgo),
                total_steps=total_steps(training, len(self.sequences["train"])),
                batch_size=training.batch_size,
            )
        except ValueError as error:
            raise BenchError(f"sgo: {error}") from error

    def teacher_responses(self, teacher_folder: str) -> list[Sequence]:
        """The training prompts answered by the teacher: sampled once, kept in the cache."""
        train_on, batch_size = self.sequences["train"], self.config.evaluation.batch_size
        key = {
            "teacher": self._identity(teacher_folder),
            "data": self.fingerprint,
            "limits": [self.limits.prompt, self.limits.response],
            "batch_size": batch_size,
            "precision": self.config.precision,
            "device": self.device.type,
            "version": __version__,
        }

        def build(folder: Path) -> None:
            teacher = models.load_model(teacher_folder, self.config.models.kind).to(self.device)
            decoding = Decoding(self.limits.response)
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

    def _evaluate(self, model: PreTrainedModel, parts: Path) -> list[dict[str, Any]]:
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
                self.metric,
                self.config.evaluation,
                self.limits.response,
                parts,
                self.reporter.progress,
            )

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
        train_on: list[Sequence],
    ) -> Progress:
        evaluation = self.config.evaluation
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
                score=lambda texts: self.metric.of(texts, self.data.splits["validation"]),
                config=training,
                decoding=Decoding(self.limits.response, evaluation.temperature, evaluation.top_p, evaluation.top_k),
                evaluation_batch=evaluation.batch_size,
                max_response_length=self.limits.response,
                seed=seed,
                accelerator=self.accelerator,
                work=work,
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
                    write_json(folder / FAILURE, {"run_id": self.run_id, "error": str(error), "key": self.run_key})
                    raise
                store.write(record, predictions)
                shutil.rmtree(folder / WORK, ignore_errors=True)
                return Outcome(record, folder, cached=False)

    def _open(self, store: Store) -> Path:
        """Check everything that can be checked before any work, then make the run's folder."""
        self.codec  # noqa: B018  a pair that does not fit is refused before anything is written
        self.sequences  # noqa: B018
        self.output_source()
        folder = store.folder(self.run_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(folder, error) from error
        return folder

    def _make(self, folder: Path) -> tuple[Record, list[dict[str, Any]]]:
        config, reporter = self.config, self.reporter
        started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
        environment = describe(self.device)
        with reporter.stage("teacher"):
            teacher_folder = self.teacher_folder()
            teacher_scores = self.scores_of(teacher_folder, "teacher")
            by_teacher = SOURCES[config.sgo["source"]].responses == "teacher"
            train_on = self.teacher_responses(teacher_folder) if by_teacher else self.sequences["train"]
        with reporter.stage("init student"):
            init_folder = str(self.fine_tuned("student", config.init_training, config.seed, "init student"))
            init_scores = self.scores_of(init_folder, "init-student")

        options = {key: value for key, value in config.method.items() if key not in ("name", "file_sha256")}
        objective = self.method.objective(**options)
        teacher = None
        if objective.needs_teacher:
            dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
            teacher = models.load_model(teacher_folder, config.models.kind, dtype).to(self.device).eval()
        student = (
            models.load_model(init_folder, config.models.kind).to(self.device)
            if config.init == "init"
            else self.raw_model("student", config.seed)
        )
        if teacher is not None:
            models.check_output_sizes(teacher, student)
        reset_peak_memory(self.device)
        meter = EnergyMeter(self.device)
        with reporter.stage("training"):
            progress = self._train(
                config.method["name"],
                student,
                teacher,
                config.training,
                config.seed,
                folder / WORK,
                objective,
                self.output_source(),
                train_on,
            )
            memory, joules = peak_memory(self.device), meter.joules()
        del teacher
        with reporter.stage("evaluation"):
            rows = self._evaluate(student, folder / WORK / "evaluation")
            try:
                models.save_model(student, self.codec, folder / "student")
            except WRITE_ERRORS as error:
                raise cannot_write(folder / "student", error) from error
        training_seconds = progress.training_seconds
        record: Record = {
            "schema": SCHEMA,
            "run_id": self.run_id,
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - clock, 3),
            "config": config.canonical() | {"device": self.device.type},
            "run_hash": digest(self.run_key),
            "comparison_key": digest(comparison_fields(self.run_key)),
            "comparison_fields": comparison_fields(self.run_key),
            "metric": {"name": self.metric.label, "signature": self.signature},
            "scores": summarise(rows, self.metric),
            "teacher_scores": teacher_scores,
            "init_scores": init_scores,
            "data": {
                "source": self.data.source,
                "fingerprint": self.fingerprint,
                "examples": {name: len(examples) for name, examples in self.data.splits.items()},
                "overlap": self.data.overlap,
                "notes": reporter.notes,
            },
            "models": {
                "student_parameters": models.parameters(student),
                "teacher_parameters": models.parameter_count(teacher_folder, config.models.kind),
                "teacher": self._identity(teacher_folder),
            },
            "training": {
                "steps": progress.step,
                "best_step": progress.best_step,
                "resumes": progress.resumes,
                "tokens_trained": progress.tokens_trained,
                "tokens_generated": progress.tokens_generated,
            },
            "time": {
                "phases": {name: round(value, 4) for name, value in progress.seconds.items()},
                "training_seconds": round(training_seconds, 4),
                "steps_per_second": round(progress.step / training_seconds, 3),
                "tokens_per_second": round(progress.tokens_trained / training_seconds, 1),
            },
            "memory": memory,
            "energy_joules": joules,
            "environment": environment,
            "validations": progress.validations,
            "curve": progress.curve,
        }
        return record, rows


_SFT = baselines.sft.CrossEntropy()


def _figures(figures: dict[str, float]) -> str:
    shown = {key: f"{value:.3f}" if isinstance(value, float) else value for key, value in figures.items()}
    return ", ".join(f"{key} {value}" for key, value in shown.items())
