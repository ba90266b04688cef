"""What determines a run's numbers: where its models are, checksums of them, and the key that its id is made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from bench import __version__
from bench.config.sections import Config
from bench.data import TASKS, TaskSpec
from bench.data.task import HubSource
from bench.models import smollm2
from bench.models.generation import Engine
from bench.models.loading import load_architecture
from bench.models.lora import find_adapter
from bench.synthetic import STUDENTS, TEACHERS, shipped_student, shipped_teacher
from bench.system.errors import BenchError
from bench.system.files import sha256_of
from bench.system.hashing import digest
from bench.system.hub import split_revision
from bench.training.pretraining_text import text_checksum

Side = Literal["teacher", "student"]
SIDES: tuple[Side, ...] = ("teacher", "student")
SCRATCH = "scratch"
TEACHER = "teacher"  # as a student: the teacher before its fine-tuning

# what determines a model's outputs; cards and logs beside it do not
_MODEL_FILES = (
    "config.json",
    "adapter_config.json",
    "generation_config.json",
    "*.safetensors",
    "*.index.json",
    "*.bin",
    "*.gguf",
)


def model_path(config: Config, side: Side) -> str:
    """Where teacher or student is loaded from: a folder, a hub id, or `scratch`.

    The folder of `smollm2` is there once `smollm2.converted` has made it.

    Raises:
        BenchError: the model is said to ship with the package and does not, or SmolLM2's package is missing.
    """
    name = config.models.teacher if side == "teacher" else config.models.student
    if side == "student" and name == TEACHER:
        return model_path(config, "teacher")
    if name == smollm2.NAME:
        return str(smollm2.folder())
    if name not in (STUDENTS if side == "student" else TEACHERS):
        return name
    folder = shipped_teacher(config.task, name) if side == "teacher" else shipped_student(config.task, name)
    if not (folder / "config.json").is_file():
        raise BenchError(f"no {side} for {config.task} is shipped; use --set models.{side}={SCRATCH}")
    return str(folder)


def scratch_architecture(config: Config, side: Side) -> dict[str, Any]:
    """What a model from scratch is made of; a configuration that says nothing of it is refused when it is resolved."""
    given = config.models.teacher_config if side == "teacher" else config.models.student_config
    assert given is not None
    return given


def tokenizer_path(config: Config) -> str:
    """Folder or hub id of a tokenizer that need not be trained."""
    name = config.models.tokenizer
    return model_path(config, "teacher") if name in ("shipped", "teacher") else name


def model_fingerprint(path: str) -> str:
    """What a model is: checksums of a folder's files, the commit of a hub repository, or `scratch`."""
    if path == SCRATCH:
        return path
    folder, adapter = Path(path), find_adapter(path)
    if folder.is_dir():
        if smollm2.is_converted(folder):
            return smollm2.identity()
        files = sorted(p for pattern in _MODEL_FILES for p in folder.glob(pattern))
        base = {} if adapter is None else {"base": model_fingerprint(adapter.base)}
        return digest({p.name: sha256_of(p) for p in files} | base)
    repository, _ = split_revision(path)
    if adapter is not None:
        return f"{repository}@{adapter.commit} on {model_fingerprint(adapter.base)}"
    return f"{repository}@{load_architecture(path)._commit_hash}"


def task_key(task: TaskSpec) -> dict[str, Any]:
    """What a task determines beside its examples: its metrics. Empty for one as it ships: the version stands for it."""
    return {} if TASKS.get(task.name) == task else {"task": task.identity}


def run_key(
    config: Config,
    device: str,
    data_fingerprint: str,
    tokenizer_fingerprint: str,
    engines: Mapping[Side, Engine],
    added: Mapping[str, Any],
    corpus: HubSource | None = None,
) -> dict[str, Any]:
    """All that determines a run's numbers, as plain values; of a task file what it says, not where it is.

    Args:
        config: of the run.
        device: where it runs.
        data_fingerprint: of the examples.
        tokenizer_fingerprint: of the pair's tokenizer, its chat template included.
        engines: what generates with either model.
        added: what else changes numbers, where there is anything (`RunContext.added_key`).
        corpus: plain text of the hub, at a commit.
    """
    text, pretraining = config.plain_text.file, config.student_pretraining
    generated = "generated" if corpus is None else corpus.text
    return {
        "config": config.identity() | {"device": device},
        **added,
        "data": data_fingerprint,
        "tokenizer": tokenizer_fingerprint,
        "models": {side: model_fingerprint(model_path(config, side)) for side in SIDES},
        "plain_text": sha256_of(Path(text)) if text else generated,
        **({} if pretraining is None else {"student_pretraining_text": text_checksum(pretraining.file)}),
        "generation": dict(engines),
        "version": __version__,
    }


def run_id(config: Config, key: dict[str, Any]) -> str:
    """Readable, and unique to the run's key."""
    return f"{config.task}-{config.method.name}-{config.sgo.source}-s{config.seed}-{digest(key)[:10]}"
