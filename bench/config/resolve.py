"""From layers to the configuration of a run: merged, settled, validated.

    layers     preset <- its blocks for task and model pair <- the pair <- those for the method <- options <- --set
    settle     what one section decides about another, such as data about models
    validate   every key and type, the options of method and output source, names, files

`resolve` starts from names, `resolve_again` from a configuration that was resolved before. Every unknown key is an
error that offers the nearest name. The field descriptions of `bench.config.sections` document the keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypedDict, Unpack

from bench.config.fidelity import Fidelity
from bench.config.layers import Layer, merge, with_values
from bench.config.presets import check_folder, direct_pair, read_pair, read_preset
from bench.config.registry import find_method
from bench.config.section import Section, dataclass_options
from bench.config.sections import Config, DataConfig, MethodConfig, ModelsConfig, may_differ
from bench.data import TaskSpec, find_task, require_source, task_of, template_name
from bench.data.readers import EXTENSIONS
from bench.synthetic import PLAIN_TEXT_TASKS, STUDENTS, TEACHERS
from bench.system import yaml_text
from bench.system.errors import BenchError, did_you_mean
from bench.system.strict import validated
from distillm import SOURCES, Method, SourceOptions

_SECTIONS = {
    name: field.annotation
    for name, field in Config.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}
_EXAMPLES = {
    "method": "method.alpha=0.2; choose the method with --method",
    "sgo": "sgo.capacity=500; choose the source with --sgo",
    "plain_text": "plain_text.weight=0",
}
PLAIN_TEXT_FOLDERS = ("plain_text", "books_en")
"""Folders beside a task's data that hold plain text to pretrain a student on."""
CHOSEN_BY = {
    "preset": "--preset",
    "task": "--task",
    "task_file": "--task",
    "models.name": "--models",
    "method.name": "--method",
    "method.file": "--method",
    "method.file_sha256": "--method",
}
"""Keys that cannot be set, with the option that chooses each: it decides about whole layers."""
GIVEN_BY_PRESETS = ("method_settings", "shared_settings")
"""Keys that cannot be set at all."""


class Overrides(TypedDict, total=False):
    """What is chosen beside a configuration, and on top of one: none of it is required, and a None changes nothing.

    Attributes:
        init: the init student, `sft` or `pretrained`; `init` is another word for `sft`.
        seed: the training seed.
        device: where to run.
        data_dir: folder of local data.
        assignments: `KEY=VALUE` each, the last word on any key; never None.
    """

    init: str | None
    seed: int | None
    device: str | None
    data_dir: str | PathLike[str] | None
    assignments: Iterable[str]


class Choices(Overrides, total=False):
    """All that a configuration is chosen by; None leaves a choice to the preset or the method.

    Attributes:
        preset: the name of a shipped preset, or a user's file; by default tiny.
        task: a task's name, or the path of a task file; by default samsum.
        method: a method's name, or `path/to/file.py:NAME`; by default srkl.
        models: the name of a shipped model pair, or a user's file.
        teacher: with `student`, a pair given directly: hub ids or local folders.
        student: see `teacher`.
        sgo: the output source.
    """

    preset: str | None
    task: str | None
    method: str | None
    models: str | None
    teacher: str | None
    student: str | None
    sgo: str | None


def resolve(**choices: Unpack[Choices]) -> tuple[Config, Method]:
    """The configuration of a run that is chosen by names.

    Raises:
        BenchError: an unknown name or key, a wrong type or value, a missing file; the message says which and what
            would do.
        TypeError: something is chosen that `Choices` does not have.
    """
    _check_names("resolve", choices, Choices.__optional_keys__)
    task = _or(choices.get("task"), "samsum")
    method = _or(choices.get("method"), "srkl")
    models, teacher, student = choices.get("models"), choices.get("teacher"), choices.get("student")
    spec = find_task(task)
    found, file_sha256 = find_method(method)
    chosen = read_preset(_or(choices.get("preset"), "tiny"))
    if teacher is None and student is None:
        pair = read_pair(models or chosen.models(spec.name))
    elif teacher is None or student is None or models is not None:
        raise BenchError(
            "--teacher and --student go together, without --models; one model of a pair is exchanged by "
            "--set models.teacher=ID_OR_FOLDER or --set models.student=ID_OR_FOLDER"
        )
    else:
        pair = direct_pair(teacher, student)

    auxiliary = {"weight": None, "kl_share": found.plain_text.kl_share}
    layer = merge({"plain_text": auxiliary}, merge(chosen.settings(spec.name, pair), pair.settings))
    layer = merge(layer, {"models": {"name": pair.name}})
    layer |= {"preset": chosen.name, "task": spec.name, "task_file": None if task == spec.name else task}
    layer["init"] = chosen.init(found)
    layer["method"] = {"name": found.name, "file": method if file_sha256 else None, "file_sha256": file_sha256}
    layer["sgo"] = {"source": choices.get("sgo") or found.source}
    layer = merge(layer, _of_options(choices))
    settings = chosen.settings_of(found.name, pair)
    weight = settings.get("plain_text", {}).get("weight", found.plain_text.weight)
    if "weight" in settings.get("plain_text", {}):
        settings = merge(settings, {"plain_text": {"weight": None}})
    own = merge(layer, settings)
    if (tuned := chosen.tuned(spec.name, found.name)) is not None:
        own = with_values(own, tuned.chosen) | {"tuning": tuned.told}
    draft = _Draft(spec, found, layer, own, chosen.sgo(spec.name, pair), chosen.synthetic(spec.name, pair), weight)
    return _resolved(draft, choices.get("assignments", ())), found


def resolve_again(values: Mapping[str, Any], **overrides: Unpack[Overrides]) -> tuple[Config, Method]:
    """The configuration of a run from one that was resolved before, with options and assignments on top.

    Args:
        values: the plain values of a whole configuration (`Config.canonical`).
        overrides: assignments of `method.file` and `task_file` say where files that were moved are now.

    Raises:
        BenchError: as `resolve`; or the method's file is not the one that the configuration was made with.
        TypeError: something is chosen that `Overrides` does not have.
    """
    _check_names("resolve_again", overrides, Overrides.__optional_keys__)
    given = validated(Config, values)
    assignments = tuple(overrides.get("assignments", ()))
    layer = merge(given.canonical(), _of_options(overrides))
    for name in GIVEN_BY_PRESETS:
        del layer[name]
    assigned = _assigned(layer, assignments)
    task_file = None if assigned["task_file"] is None else str(assigned["task_file"])
    method, where = _method_again(assigned["method"])
    own = merge(layer, {"method": where, "task_file": task_file})
    shared = with_values(own, given.shared_settings)
    weight = method.plain_text.weight
    return _resolved(_Draft(task_of(given.task, task_file), method, shared, own, {}, {}, weight), assignments), method


def parse_assignment(text: str) -> tuple[list[str], Any]:
    """`KEY=VALUE` of `--set`: a dotted key, a JSON or YAML value.

    Raises:
        BenchError: no `=`, an empty part in the key, or no value, as an unset variable of a shell gives.
    """
    key, equals, raw = text.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise BenchError(f"--set {text!r}: expected KEY=VALUE, for example training.steps=100")
    if not raw.strip():
        raise BenchError(f"--set {text!r}: there is no value after the = ; null says that there is none")
    try:
        return path, yaml_text.parse(raw)
    except BenchError as error:
        raise BenchError(f"--set {text!r}{str(error).removeprefix(', line 1')}") from error


# --- layers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Draft:
    """Merged layers, before `--set`.

    Attributes:
        task: the task.
        method: the method.
        shared: the settings that hold for every method.
        own: the same with the settings that the preset gives this method.
        sgo: the preset's options for the output sources that read them.
        synthetic: the preset's settings of `data` for the data that ships.
        plain_text_weight: of the method's auxiliary loss where there is plain text and nothing else is asked for.
    """

    task: TaskSpec
    method: Method
    shared: Layer
    own: Layer
    sgo: Layer
    synthetic: Layer
    plain_text_weight: Any


def _method_again(section: object) -> tuple[Method, Layer]:
    """The method that a configuration names, from the same file if it came from one; with that file and its hash."""
    if not isinstance(section, Mapping):
        raise _no_options("method", section)
    name, file, expected = section["name"], section["file"], section["file_sha256"]
    if file is None and expected is not None:
        raise BenchError(
            f"method.file is missing: the method {name} comes from a file (SHA-256 {expected}); "
            "say which: --set method.file=path/to/file.py:NAME"
        )
    method, found = find_method(str(file or name), expected)
    if file is not None and (found is None or method.name != name):
        raise BenchError(f"method.file={file}: expected path/to/file.py:NAME with the method {name}")
    return method, {"file": file, "file_sha256": found}


def _check_names(function: str, given: Mapping[str, object], known: frozenset[str]) -> None:
    """Refuse a misspelt choice, as Python does where a function lists its arguments: nothing else would tell of it."""
    for name in given.keys() - known:
        raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")


def _or(given: str | None, usual: str) -> str:
    """The usual name where none was given; an empty one is a mistake, which the look-up tells of."""
    return usual if given is None else given


def _of_options(given: Overrides) -> Layer:
    options = {"init": given.get("init"), "seed": given.get("seed"), "device": given.get("device")}
    layer: Layer = {key: value for key, value in options.items() if value is not None}
    folder = given.get("data_dir")
    return layer if folder is None else layer | {"data": {"dir": fspath(folder), "hub": False}}


def _assigned(layer: Layer, assignments: Iterable[str]) -> Layer:
    """A layer with `--set` on top."""
    layer = _spelled_out(layer)
    given: Layer = {}
    for path, value in map(parse_assignment, assignments):
        if path[0] in GIVEN_BY_PRESETS:
            raise BenchError(f"{path[0]} cannot be set: a preset gives it, as `methods: {{METHOD: {{training: ...}}}}`")
        if path[0] == "tuning":
            raise BenchError("tuning cannot be set: `bench tune` writes it into a preset")
        for part in reversed(path):
            value = {part: value}
        layer = _spelled_out(merge(layer, value))
        _check_one_length(given, value)
        given = merge(given, value)
    return layer


def _check_one_length(given: Layer, value: Layer) -> None:
    """Refuse a length in steps beside one in epochs: of two `--set` neither overrides the other, as layers do."""
    for section, settings in value.items():
        before = given.get(section)
        if not (isinstance(settings, Mapping) and isinstance(before, Mapping)):
            continue
        for one, other in (("steps", "epochs"), ("epochs", "steps")):
            if settings.get(one) is not None and before.get(other) is not None:
                raise BenchError(
                    f"--set {section}.{other}={before[other]} and --set {section}.{one}={settings[one]}: both are the "
                    "length of the training; give one"
                )


def _spelled_out(layer: Layer) -> Layer:
    """A layer in which `faithful` and `corrected` stand as all keys of fidelity, so that one of them can be changed."""
    given, whole = layer.get("fidelity"), {"faithful": True, "corrected": False}
    if not isinstance(given, str) or given not in whole:
        return layer
    return layer | {"fidelity": dict.fromkeys(Fidelity.model_fields, whole[given])}


def _resolved(draft: _Draft, assignments: Iterable[str]) -> Config:
    """The configuration of a draft, with the settings that its method has alone declared."""
    assignments = tuple(assignments)
    config = _validated(draft, _settled(draft, _assigned(draft.own, assignments)))
    if config.tuning is not None and not _is_as_chosen(config, config.tuning.chosen):
        config = config.model_copy(update={"tuning": None})  # a --set has another value than the tuned one
    if draft.own == draft.shared:
        return config
    others = _validated(draft, _settled(draft, _assigned(draft.shared, assignments)))
    own, shared = _by_key(config), _by_key(others)
    keys = [key for key, value in own.items() if value != shared[key]]
    declared = {"method_settings": {k: own[k] for k in keys}, "shared_settings": {k: shared[k] for k in keys}}
    return config.model_copy(update=declared)


def _is_as_chosen(config: Config, chosen: Mapping[str, Any]) -> bool:
    values = config.canonical()
    return with_values(values, chosen) == values


def _by_key(config: Config) -> Layer:
    """The settings that a method may have alone, by dotted key."""
    values = config.canonical()
    keyed = {f"{section}.{name}": value for section in _SECTIONS for name, value in values[section].items()}
    return {key: value for key, value in keyed.items() if may_differ(key)}


# --- settle ---------------------------------------------------------------------------------------------------------


def _settled(draft: _Draft, layer: Layer) -> Layer:
    """A layer in which every section is there, and settled by the others it depends on."""
    layer = _with_every_section(layer)
    data, init = layer["data"], layer["init"]
    data = {**draft.synthetic, **data} if _ships(data) else data
    return layer | {
        "data": data,
        "init": "sft" if init == "init" else init,
        "models": _models_on(data, layer["models"]),
        "student_pretraining": _pretraining_on(data, layer.get("student_pretraining")),
        "plain_text": _plain_text_on(data, layer["plain_text"], draft),
        "sgo": _with_usual_options(layer["sgo"], layer["fidelity"], draft),
    }


def _with_every_section(layer: Layer) -> Layer:
    """The layer with an empty section where one is missing; a section that is something else is refused."""
    sections = {name: layer.get(name, {}) for name in _SECTIONS}
    for name, given in sections.items():
        if not isinstance(given, Mapping):
            raise _no_options(name, given)
    return layer | sections


def _no_options(name: str, given: object) -> BenchError:
    if name == "fidelity":
        defect = given if str(given) in Fidelity.model_fields else "no_repeat_ngram"
        return BenchError(
            f"fidelity: expected faithful, corrected or one defect such as fidelity.{defect}=true, got {given!r}"
        )
    example = _EXAMPLES.get(name, f"{name}.{next(iter(_SECTIONS[name].model_fields))}=...")
    return BenchError(f"{name}: expected options such as {example}, got {given!r}")


def _is_synthetic(data: Layer) -> bool:
    return not data.get("dir") and not data.get("hub") and data.get("synthetic", True) is not False


def _ships(data: Layer) -> bool:
    """Whether it is the data that the shipped models know."""
    return _is_synthetic(data) and data.get("seed", 0) == 0


def _pretraining_on(data: Layer, given: object) -> object:
    """Pretraining with the plain text beside the task's data, where no other is given."""
    folder = data.get("dir")
    if not isinstance(given, Mapping) or given.get("file") is not None or not isinstance(folder, str):
        return given
    found = (Path(folder) / name for name in PLAIN_TEXT_FOLDERS)
    return {**given, "file": next((str(path) for path in found if path.is_dir()), None)}


def _models_on(data: Layer, models: Layer) -> Layer:
    """The shipped models know the synthetic data of seed 0 only: on other data the pair is trained from scratch."""
    models = dict(models)
    if "kind" not in models:
        raise BenchError(
            f"models.kind is missing: say which kind of model {models.get('student')} is: --set models.kind=causal "
            "(decoder only, such as GPT-2) or --set models.kind=seq2seq (encoder and decoder, such as T5)"
        )
    teacher = models.get("teacher")  # whatever was typed: its type is checked after
    ships = isinstance(teacher, str) and teacher in TEACHERS
    if ships and not _ships(data):
        models["teacher"], ships = "scratch", False
    student = models.get("student")
    if isinstance(student, str) and student in STUDENTS and not ships:
        models["student"] = "scratch"
    if models.get("tokenizer") == "shipped" and not ships:
        models["tokenizer"] = "teacher"
    if models.get("tokenizer", "teacher") == "teacher" and models.get("teacher") == "scratch":
        models["tokenizer"] = "trained"  # a loaded teacher brings its own vocabulary, one from scratch has none
    return models


def _plain_text_on(data: Layer, plain_text: Layer, draft: _Draft) -> Layer:
    """A method's auxiliary loss is left out where there is no plain text, unless it was asked for."""
    given = [key for key in ("file", "hub") if plain_text.get(key) is not None]
    if len(given) > 1:
        raise BenchError("plain_text.file and plain_text.hub are both given; set one of them to null")
    if plain_text.get("hub_config") is not None and plain_text.get("hub") is None:
        raise BenchError(
            f"plain_text.hub_config={plain_text['hub_config']} is the configuration of no data set: name one with "
            "--set plain_text.hub=OWNER/NAME, or set plain_text.hub_config=null"
        )
    there = (_is_synthetic(data) and draft.task.name in PLAIN_TEXT_TASKS) or bool(given)
    weight = plain_text.get("weight")
    if weight is None:
        weight = draft.plain_text_weight if there else 0.0
    elif weight != 0 and not there:
        raise BenchError(
            f"plain_text.weight={weight}: there is no plain text for {draft.task.name} on this data; give one with "
            "--set plain_text.file=FILE (.txt, a paragraph a line) or --set plain_text.hub=OWNER/NAME, or go without: "
            "--set plain_text.weight=0"
        )
    return {**plain_text, "weight": weight}


def _with_usual_options(sgo: Layer, fidelity: Layer, draft: _Draft) -> Layer:
    """What is not said of the output source: the method's own options of it, then those of the preset that it reads.

    The probability 1 of a method that is on-policy goes with it into the replay buffer, but `mixed` would be on-policy
    under another name with it.
    """
    usual = dict(draft.method.source_options)
    if sgo["source"] == "mixed" and SOURCES[draft.method.source].phi == "always":
        usual.pop("probability", None)
    rule = SOURCES.get(str(sgo["source"]))
    if rule is not None:
        reads = rule.reads | ({"capacity"} if fidelity.get("replayed_on_policy") else set())
        usual = {key: value for key, value in draft.sgo.items() if key in reads} | usual
    return usual | sgo


# --- validate -------------------------------------------------------------------------------------------------------


def _validated(draft: _Draft, layer: Layer) -> Config:
    """The layer as a configuration whose every value can be used, as far as can be told without data and models."""
    _check_chosen(draft.own, layer)
    where = {key: draft.own["method"][key] for key in MethodConfig.model_fields}
    options = {key: value for key, value in layer["method"].items() if key not in where}
    sgo = dict(layer["sgo"])
    source = sgo.pop("source")
    if str(source) not in SOURCES:
        raise BenchError(f"sgo.source: unknown output source {source!r}: {did_you_mean(str(source), SOURCES)}")
    layer = layer | {
        "method": where | dataclass_options(draft.method.objective, options, "method"),
        "sgo": {"source": source, **dataclass_options(SourceOptions, sgo, "sgo")},
    }
    config = validated(Config, layer)
    _check_source(config)
    _check_data(draft.task, config.data)
    _check_models(config.models)
    if config.plain_text.file is not None and not Path(config.plain_text.file).is_file():
        raise BenchError(f"plain_text.file={config.plain_text.file}: there is no such file")
    text = config.student_pretraining and config.student_pretraining.file
    if text and not Path(text).exists():
        raise BenchError(f"student_pretraining.file={text}: there is no such file or folder")
    return config


def _check_chosen(chosen: Layer, layer: Layer) -> None:
    """Refuse a `--set` of what decides about whole layers, which were merged before it."""
    for key, option in CHOSEN_BY.items():
        section, _, name = key.partition(".")
        was, is_now = (one[section][name] if name else one[section] for one in (chosen, layer))
        if is_now != was and not (is_now is None and key == "method.file_sha256"):
            raise BenchError(f"{key} cannot be set: choose it with {option}")


def _check_source(config: Config) -> None:
    options, replays_fresh = SourceOptions(**config.sgo.options), config.fidelity.replayed_on_policy
    try:
        options.check(config.sgo.source, config.training.batch_size, replays_fresh=replays_fresh)
    except ValueError as error:
        raise BenchError(f"sgo.{error}") from error


def _check_data(task: TaskSpec, data: DataConfig) -> None:
    require_source(task, data_dir=data.dir is not None, hub=data.hub)
    template_name(task, data.template, synthetic=not data.is_real)
    if data.dir is not None and data.hub:
        raise BenchError(f"data.dir={data.dir} and data.hub=true: both a folder and the hub are given; choose one")
    if data.dir is not None and not Path(data.dir).is_dir():
        raise BenchError(
            f"data.dir={data.dir}: there is no such folder; give one with files train, validation and test "
            f"({', '.join(EXTENSIONS)})"
        )
    for key, file in (("data.train_file", data.train_file), ("data.test_file", data.test_file)):
        if file is not None and data.dir is None:
            raise BenchError(f"{key}={file}: no folder for the other splits is given: add --data-dir FOLDER")
        if file is not None and not Path(file).is_file():
            raise BenchError(f"{key}={file}: there is no such file")


def _check_models(models: ModelsConfig) -> None:
    for side in ("teacher", "student", "tokenizer"):
        name: str = getattr(models, side)
        check_folder(side, name)
        if name == "scratch" and side != "tokenizer" and getattr(models, f"{side}_config") is None:
            raise BenchError(f"models.{side}=scratch needs an architecture: models.{side}_config={{model_type: ...}}")
        if name == "scratch" and models.lora is not None:
            raise BenchError(
                f"models.lora: adapters change pretrained weights a little, and models.{side}=scratch has "
                "none; choose a model that was trained, or --set models.lora=null"
            )
    if models.student == "teacher" and models.teacher == "scratch":
        raise BenchError(
            "models.student=teacher: the teacher is made from scratch (the shipped ones know the synthetic data only), "
            "so there is no model to take; give models.teacher=FOLDER_OR_ID, or models.student=scratch"
        )
    if models.student == "scratch" and models.student_layers is not None:
        raise BenchError(
            "models.student_layers: a student from scratch has as many layers as models.student_config says; "
            "set models.student_layers=null"
        )
