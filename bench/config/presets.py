"""Presets and model pairs: those that ship with the package, those in a user's file, and a pair given directly.

A preset gives a scale: settings for every task, blocks for single tasks (`tasks`) and model pairs (`pairs`), settings
that a method has alone (`methods`, in a block for a pair too), and it may begin from another preset (`extends`). A pair
names teacher and student, may set more, and may begin from another pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from pydantic import ConfigDict, Field, JsonValue

from bench.config.layers import Layer, merge
from bench.config.section import Section
from bench.config.sections import MAY_DIFFER, may_differ
from bench.config.tuned import TunedMethod
from bench.system import yaml_text
from bench.system.errors import BenchError, did_you_mean
from bench.system.files import cannot_write, write_bytes
from bench.system.names import checked_name
from bench.system.strict import validated
from distillm import Method
from distillm.interface import Init

Kind = Literal["presets", "pairs"]

_SHIPPED = Path(str(resources.files("bench") / "config"))
_SIDES = ("teacher", "student", "tokenizer")


class _TaskBlock(Section):
    """The shape of a preset's block for a task; what else stands in it are sections of the configuration."""

    model_config = ConfigDict(extra="allow")

    models: str | None = None
    synthetic: dict[str, JsonValue] = Field({}, description="settings of `data` for the data that ships, and no other")


_OfMethods = dict[str, dict[str, dict[str, JsonValue]]]


class _PairBlock(Section):
    """The shape of a preset's block for a model pair; what else stands in it are sections of the configuration."""

    model_config = ConfigDict(extra="allow")

    sgo: dict[str, JsonValue] = Field({}, description="options for the output sources that read them")
    methods: _OfMethods = Field({}, description="settings by method")


class _PresetFile(Section):
    """The shape of a preset's file; what else stands in it are sections of the configuration."""

    model_config = ConfigDict(extra="allow")

    summary: str = Field("", description="one line for `bench list presets`")
    extends: str | None = Field(None, description="the preset that this one begins from")
    models: str | None = Field(None, description="the model pair, where --models names none")
    init: Literal["paper", "pretrained", "sft"] | None = Field(None, description="paper = each method its own paper's")
    sgo: dict[str, JsonValue] = Field({}, description="options for the output sources that read them")
    synthetic: dict[str, JsonValue] = Field({}, description="settings of `data` for the data that ships, and no other")
    tasks: dict[str, _TaskBlock] = Field({}, description="settings by task")
    pairs: dict[str, _PairBlock] = Field({}, description="settings by model pair, and those that begin from it")
    methods: _OfMethods = Field({}, description="settings by method")
    tuning: dict[str, dict[str, TunedMethod]] = Field({}, description="by task and method, as `bench tune` writes it")


class _PairFile(Section):
    """The shape of a pair's file; what else stands in it are sections of the configuration."""

    model_config = ConfigDict(extra="allow")

    extends: str | None = Field(None, description="the pair that this one begins from")
    models: dict[str, JsonValue]


@dataclass(frozen=True)
class Preset:
    """A preset that was read.

    Attributes:
        name: what is recorded: its name, or the stem of its file.
        files: the content of its file last, before it those that it extends.
    """

    name: str
    files: tuple[Layer, ...]

    @property
    def summary(self) -> str:
        """One line about it."""
        return str(self.files[-1].get("summary", ""))

    def settings(self, task: str, pair: Pair) -> Layer:
        """The sections it gives every method on a task with a model pair."""
        apart = ("summary", "models", "init", "sgo", "synthetic")
        return {k: v for k, v in self._merged(task, pair).items() if k not in apart}

    def settings_of(self, method: str, pair: Pair) -> Layer:
        """The sections it gives one method alone, with a model pair."""
        layer: Layer = {}
        for file in self.files:
            for block in (file, *_blocks(file, pair)):
                layer = merge(layer, block.get("methods", {}).get(method, {}))
        return layer

    @property
    def is_tuned(self) -> bool:
        """Whether settings of some method were tuned."""
        return any(file.get("tuning") for file in self.files)

    def tuned(self, task: str, method: str) -> TunedMethod | None:
        """What tuning chose for a method on a task; None where it was not tuned."""
        found = [file.get("tuning", {}).get(task, {}).get(method) for file in self.files]
        return next((validated(TunedMethod, one) for one in reversed(found) if one is not None), None)

    def sgo(self, task: str, pair: Pair) -> Layer:
        """Options for the output sources that read them."""
        return dict(self._merged(task, pair).get("sgo", {}))

    def synthetic(self, task: str, pair: Pair) -> Layer:
        """Settings of `data` for the data that ships, where none are given; other data has sizes of its own."""
        return dict(self._merged(task, pair).get("synthetic", {}))

    def models(self, task: str) -> str:
        """Name or file of the model pair for a task.

        Raises:
            BenchError: it has none.
        """
        found = self._merged(task).get("models")
        if not isinstance(found, str):
            raise BenchError(f"preset {self.name} has no models for {task}: choose some with --models")
        return found

    def init(self, method: Method | None) -> Init:
        """The init student of a method; with None, that of a method which says nothing about it."""
        chosen = next((file["init"] for file in reversed(self.files) if file.get("init")), "sft")
        if chosen == "paper":
            return method.init if method else "sft"
        return "pretrained" if chosen == "pretrained" else "sft"

    def _merged(self, task: str, pair: Pair | None = None) -> Layer:
        layer: Layer = {}
        for file in self.files:
            for block in (file, file.get("tasks", {}).get(task, {}), *(_blocks(file, pair) if pair else ())):
                layer = merge(layer, {k: v for k, v in block.items() if k not in _OF_THE_FILE})
        return layer


_OF_THE_FILE = ("extends", "tasks", "pairs", "methods", "tuning")


def _blocks(file: Layer, pair: Pair) -> list[Layer]:
    """What a preset's file says about a pair: first what it says about the pairs that it begins from."""
    return [file.get("pairs", {}).get(name, {}) for name in pair.names]


@dataclass(frozen=True)
class Pair:
    """A model pair that was read.

    Attributes:
        names: the name that is recorded last, before it those of the pairs that it begins from.
        settings: the sections it gives, `models` among them.
    """

    names: tuple[str, ...]
    settings: Layer

    @property
    def name(self) -> str:
        """What is recorded: its name, or the stem of its file."""
        return self.names[-1]


def shipped(kind: Kind) -> list[str]:
    """Names of the presets or model pairs that ship with the package."""
    return sorted(path.stem for path in (_SHIPPED / kind).glob("*.yaml"))


def is_path(name: str) -> bool:
    """Whether a preset or a pair is named by its file: it ends in .yaml or .yml, or has a slash in it."""
    return name.endswith((".yaml", ".yml")) or "/" in name or "\\" in name


def recorded_name(name: str) -> str:
    """What records have as the name of a preset or a pair that was chosen by name or by file."""
    return Path(name).stem if is_path(name) else name


def read_preset(name: str) -> Preset:
    """A shipped preset by its name, or a user's by its file, with those that it extends.

    Raises:
        BenchError: unknown name, no such file, or a file that is no preset; it says what is wrong where.
    """
    path = _locate("presets", name)
    chain = [path]
    files = [_preset_in(path)]
    while (base := files[0].get("extends")) is not None:
        chain.append(_locate("presets", base))
        if chain[-1].resolve() in {one.resolve() for one in chain[:-1]}:
            raise BenchError(f"{path}: it extends itself: {' -> '.join(one.stem for one in chain)}")
        files.insert(0, _preset_in(chain[-1]))
    return Preset(path.stem, tuple(files))


def usual_pair(preset: str, task: str) -> str | None:
    """The recorded name of a preset's model pair for a task; None where it has none, or its file is not there."""
    try:
        return recorded_name(read_preset(preset).models(task))
    except BenchError:
        return None


def change_preset(path: Path, change: Callable[[Layer | None], Layer]) -> None:
    """Write a user's preset anew, while no other process does.

    Args:
        path: its file.
        change: from what it holds to what it is to hold; None where there is no such file yet.

    Raises:
        BenchError: it cannot be read or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            write_bytes(path, yaml_text.dump(change(yaml_text.read(path) if path.exists() else None)).encode())
    except OSError as error:
        raise cannot_write(path, error) from error


def read_pair(name: str) -> Pair:
    """A shipped model pair by its name, or a user's by its file, with those that it extends.

    Raises:
        BenchError: unknown name, no such file, or a file that is no pair.
    """
    return _pair_in(_locate("pairs", name), ())


def _pair_in(path: Path, begun: tuple[Path, ...]) -> Pair:
    if path.resolve() in begun:
        raise BenchError(f"{path}: it extends itself")
    content = yaml_text.read(path)
    _checked(path, _PairFile, content)
    _refuse(path, content, _NOT_GIVEN | dict.fromkeys(("init", "sgo", "synthetic"), "the preset gives it"))
    models = dict(content["models"])
    for side in _SIDES:
        if isinstance(models.get(side), str) and models[side].startswith("."):
            check_folder(side, str(path.parent / models[side]), local=True)
            models[side] = str(path.parent / models[side])
    own = {key: value for key, value in _with_paths(path, content).items() if key != "extends"} | {"models": models}
    if (base := _with_paths(path, content).get("extends")) is None:
        return Pair((path.stem,), own)
    before = _pair_in(_locate("pairs", base), (*begun, path.resolve()))
    return Pair((*before.names, path.stem), merge(before.settings, own))


def direct_pair(teacher: str, student: str) -> Pair:
    """A pair of two models, each a hub id or a local folder; a folder says which kind of model it is."""
    models = {"teacher": teacher, "student": student}
    for side, name in models.items():
        check_folder(side, name)
    kind = _kind_of(student) or _kind_of(teacher)
    return Pair((f"{_label(teacher)}-to-{_label(student)}",), {"models": models | ({"kind": kind} if kind else {})})


def check_folder(side: str, name: str, *, local: bool = False) -> None:
    """Refuse a folder that is not there.

    Args:
        side: teacher, student or tokenizer.
        name: what it was given as; unless it can only be a path, it may be a hub id and passes.
        local: it is a path for sure.

    Raises:
        BenchError: there is no such folder.
    """
    if (local or Path(name).is_absolute() or name.startswith(".")) and not Path(name).exists():
        what = "tokenizer" if side == "tokenizer" else "model"
        raise BenchError(f"models.{side}={name}: there is no such folder, so no {what} can be loaded from it")


def _locate(kind: Kind, name: str) -> Path:
    one, option = ("model pair", "--models") if kind == "pairs" else ("preset", "--preset")
    if not is_path(name):
        if name not in shipped(kind):
            raise BenchError(
                f"unknown {one} {name!r}: {did_you_mean(name, shipped(kind))}\n"
                f"A {one} of your own: {option} path/to/file.yaml"
            )
        return _SHIPPED / kind / f"{name}.yaml"
    path = Path(name)
    if not path.is_file():
        instead = "; a pair without a file: --teacher ID_OR_FOLDER --student ID_OR_FOLDER" if kind == "pairs" else ""
        raise BenchError(f"{one} {name}: there is no such file{instead}")
    checked_name(path.stem, f"{one} {name}")
    if path.stem in shipped(kind) and path.resolve() != (_SHIPPED / kind / f"{path.stem}.yaml").resolve():
        raise BenchError(f"{path}: a {one} named {path.stem} ships with the package; give the file another name")
    return path


def _preset_in(path: Path) -> Layer:
    """The content of a preset's file, with the files that it names relative to it made relative to here."""
    content = yaml_text.read(path)
    _checked(path, _PresetFile, content)
    _refuse(path, content, _NOT_GIVEN)
    for block in content.get("tasks", {}).values():
        _refuse(path, block, _NOT_GIVEN | dict.fromkeys(_OF_ALL_TASKS, "it holds for all tasks; put it at the top"))
    _check_methods(path, content, "")
    for pair, block in content.get("pairs", {}).items():
        _refuse(path, block, _NOT_GIVEN | dict.fromkeys(_OF_ALL_PAIRS, "put it at the top, or into the pair's file"))
        _check_methods(path, block, f"pairs.{pair}.")
    blocks = {task: _with_paths(path, block) for task, block in content.get("tasks", {}).items()}
    return _with_paths(path, content) | ({"tasks": blocks} if blocks else {})


def _check_methods(path: Path, block: Mapping[str, Any], where: str) -> None:
    """Refuse settings for one method of what all methods share."""
    for method, sections in block.get("methods", {}).items():
        for key in (f"{section}.{name}" for section, settings in sections.items() for name in settings or ("",)):
            if not may_differ(key):
                raise BenchError(
                    f"{path}: {where}methods.{method}.{key.rstrip('.')}: a method can have settings of its own in "
                    f"{MAY_DIFFER}; all else is the same for every method, or their runs could not be compared"
                )


_NOT_GIVEN = {
    "preset": "the file's name is recorded",
    "task": "a preset's settings for one task stand under tasks",
    "method": "options of a method are given with --set method.OPTION=VALUE",
    "method_settings": "a preset's settings for one method stand under methods",
    "shared_settings": "a preset's settings for one method stand under methods",
}
"""Keys of a configuration that neither a preset nor a pair can give, and what to do instead."""

_OF_ALL_PAIRS = ("summary", "extends", "init", "tasks", "pairs", "models", "tuning")
_OF_ALL_TASKS = ("summary", "extends", "init", "tasks", "pairs", "methods", "tuning")


def _refuse(path: Path, block: Mapping[str, Any], keys: Mapping[str, str]) -> None:
    for key, instead in keys.items():
        if key in block:
            raise BenchError(f"{path}: {key} cannot stand here: {instead}")


def _with_paths(path: Path, block: Mapping[str, Any]) -> Layer:
    given = {key: block[key] for key in ("extends", "models") if isinstance(block.get(key), str)}
    return {**block, **{key: str(path.parent / value) for key, value in given.items() if is_path(value)}}


def _checked(path: Path, shape: type[Section], content: Mapping[str, Any]) -> None:
    try:
        validated(shape, content)
    except BenchError as error:
        raise BenchError(f"{path}: {error}") from error


def _kind_of(name: str) -> str | None:
    """Which kind of model a local folder holds; None for a hub id, or where its config.json does not say."""
    if not (Path(name) / "config.json").is_file():
        return None
    from transformers import AutoConfig  # here, because it takes seconds to import

    try:
        config = AutoConfig.from_pretrained(name)
    except Exception:  # whatever is wrong with the folder is told when the model is loaded
        return None
    return "seq2seq" if config.is_encoder_decoder else "causal"


def _label(model: str) -> str:
    """The last part of a hub id or a folder, fit for a name."""
    last = Path(model).resolve().name if Path(model).is_dir() else model.partition("@")[0].rpartition("/")[2]
    return last.lstrip(".-")[:100]
