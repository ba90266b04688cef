"""What a configuration stands for: its examples, its tokenizer, and what identifies its run and its artifacts."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from bench import __version__
from bench.config.sections import Config, TrainingConfig
from bench.data import TASKS, TaskData, task_of
from bench.experiment.examples import examples_of
from bench.metrics.metric import references_of
from bench.metrics.registry import find_metrics
from bench.models import loading as models
from bench.models.tokenizer import Codec, Limits, train_tokenizer
from bench.record.record import MetricInfo
from bench.synthetic import shipped_student, shipped_teacher
from bench.system.artifacts import ArtifactCache
from bench.system.environment import pick_device
from bench.system.errors import BenchError
from bench.system.files import sha256_of
from bench.system.hashing import digest
from bench.system.progress import Reporter
from distillm import Method, TokenSequence

# what determines a model's outputs; cards and logs beside it do not
_MODEL_FILES = ("config.json", "*.safetensors", "*.bin", "*.gguf", "tokenizer.json", "*.model", "vocab.*", "merges.txt")


class Setting:
    """A resolved configuration with its data, tokenizer and identities, each made when first needed.

    Args:
        config: from `bench.config.resolve.resolve`.
        method: the method it names.
        cache: where artifacts are shared.
        reporter: what the user sees.
    """

    def __init__(self, config: Config, method: Method, cache: ArtifactCache, reporter: Reporter) -> None:
        self.config, self.method, self.cache, self.reporter = config, method, cache, reporter
        self.device = pick_device(config.device)
        self.task = task_of(config.task, config.task_file)
        self.metrics = find_metrics(self.task.metrics)
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
        return examples_of(self.task, self.config.data)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the examples."""
        return self.data.fingerprint()

    @cached_property
    def metric_infos(self) -> list[MetricInfo]:
        """The task's metrics, with what exactly they compute on the test set."""
        references = references_of([len(example.references) for example in self.data.splits["test"]])
        return [MetricInfo(name=m.name, label=m.label, signature=m.signature(references)) for m in self.metrics]

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
    def sequences(self) -> dict[str, list[TokenSequence]]:
        """Every split as token ids; what was dropped or cut is noted."""
        encoded = {}
        for split, examples in self.data.splits.items():
            without_bos = split == "train" and self.config.fidelity.train_without_bos
            encoded[split], counts = self.codec.encode(
                examples, self.limits, drop_long=split == "train", without_bos=without_bos
            )
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
    def prompt_key(self) -> dict[str, Any]:
        """What determines the ids of prompts beside data and vocabulary: of a chat set, the chat template."""
        return {"chat_template": self.codec.tokenizer.chat_template} if self.task.messages else {}

    @cached_property
    def run_key(self) -> dict[str, Any]:
        """All that determines the run's numbers: of a task file what it says, not where it is."""
        config = self.config.canonical() | {"device": self.device.type}
        del config["task_file"]
        task = {} if self.task.name in TASKS else {"task": self.task.identity}
        return {
            "config": config,
            **task,
            "data": self.fingerprint,
            **self.prompt_key,
            "models": {side: self.identity(self.place(side)) for side in ("teacher", "student")},
            "plain_text": sha256_of(Path(text)) if (text := self.config.plain_text.file) else "generated",
            "version": __version__,
        }

    @property
    def run_id(self) -> str:
        """Readable, and unique to `run_key`."""
        c = self.config
        return f"{c.task}-{c.method.name}-{c.sgo.source}-s{c.seed}-{digest(self.run_key)[:10]}"

    def identity(self, name: str) -> str:
        """What a model name stands for: checksums of a folder's files, or the commit of a hub repository."""
        if name == "scratch":
            return name
        folder = Path(name)
        if folder.is_dir():
            files = sorted(p for pattern in _MODEL_FILES for p in folder.glob(pattern))
            return digest({p.name: sha256_of(p) for p in files})
        return f"{name}@{models.hub_commit(name)}"

    def shared_key(self, training: TrainingConfig, side: str) -> dict[str, Any]:
        """What determines a model trained here, beside its seed."""
        pair = self.config.models.model_dump(mode="json")
        return {
            "what": pair[side],
            "architecture": pair[f"{side}_config"],
            "identity": self.run_key["models"][side],
            "kind": self.config.models.kind,
            "tokenizer": digest(self.codec.tokenizer.get_vocab()),
            **self.prompt_key,
            "training": training.model_dump(mode="json"),
            "data": self.fingerprint,
            "limits": [self.limits.prompt, self.limits.response],
            "decoding": self.config.evaluation.model_dump(mode="json"),
            "train_without_bos": self.config.fidelity.train_without_bos,
            "precision": self.config.precision,
            "device": self.device.type,
            "version": __version__,
        }
