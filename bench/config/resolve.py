"""The configuration of a run: typed, layered, validated, hashed.

Layers, each overriding the one before: preset <- its block for the task <- models <- method <- `--set KEY=VALUE`.
Every unknown key is an error that offers the nearest name. The field descriptions are the documentation of the keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from bench.config.fidelity import Fidelity
from bench.config.registry import find_method
from bench.config.sections import Config
from bench.config.strict import dataclass_options, validated
from bench.data import find_task, require_source
from bench.synthetic import PLAIN_TEXT_TASKS
from bench.system.errors import BenchError, did_you_mean
from distillm import SOURCES, Method, SourceOptions

CONFIG = resources.files("bench") / "config"


def names(kind: Literal["presets", "pairs"]) -> list[str]:
    """Names of the shipped presets or model pairs."""
    return sorted(Path(entry.name).stem for entry in (CONFIG / kind).iterdir() if entry.name.endswith(".yaml"))


def load_yaml(kind: Literal["presets", "pairs"], name: str) -> dict[str, Any]:
    """One shipped file of the folder `config/KIND`.

    Raises:
        BenchError: no such file.
    """
    if name not in names(kind):
        raise BenchError(f"unknown {kind.rstrip('s')} {name!r}: {did_you_mean(name, names(kind))}")
    loaded: dict[str, Any] = yaml.safe_load((CONFIG / kind / f"{name}.yaml").read_text(encoding="utf-8"))
    return loaded


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Deep merge of two layers; the second wins.

    Architectures (`*_config`) are replaced whole, and a length in steps replaces one in epochs and the other way round.
    """
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both and not key.endswith("_config") else value
    for given, other in (("steps", "epochs"), ("epochs", "steps")):
        if over.get(given) is not None and other not in over:
            merged.pop(other, None)
    return merged


def parse_assignment(text: str) -> tuple[list[str], Any]:
    """`KEY=VALUE` of `--set`: a dotted key, a JSON or YAML value.

    Raises:
        BenchError: no `=`, or an empty part in the key.
    """
    key, equals, raw = text.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise BenchError(f"--set {text!r}: expected KEY=VALUE, for example training.steps=100")
    try:
        return path, json.loads(raw)  # YAML 1.1 would read 1e-3 as text
    except json.JSONDecodeError:
        try:
            return path, yaml.safe_load(raw)
        except yaml.YAMLError as error:
            raise BenchError(f"--set {text!r}: the value is neither JSON nor YAML") from error


def resolve(
    *,
    preset: str,
    task: str,
    method: str,
    models: str | None = None,
    sgo: str | None = None,
    init: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    data_dir: str | None = None,
    assignments: Iterable[str] = (),
) -> tuple[Config, Method]:
    """Merge the layers and validate the result.

    Raises:
        BenchError: an unknown name or key, a wrong type or value; the message says which and what would do.
    """
    spec = find_task(task)
    task_file = None if task == spec.name else task
    found, method_file_hash = find_method(method)
    layer = load_yaml("presets", preset)
    per_task = layer.pop("tasks")
    layer = merge(layer, per_task.get(spec.name, {}))
    default_models = layer.pop("models", None)
    del layer["summary"]
    pair = models or default_models
    if pair is None:
        raise BenchError(f"preset {preset!r} names no models for the task {spec.name!r}: add --models NAME")
    layer = merge(layer, load_yaml("pairs", pair))
    layer["models"]["name"] = pair
    start = layer.pop("init")
    preset_sgo = layer.pop("sgo", {})
    layer |= {"preset": preset, "task": spec.name, "task_file": task_file}
    layer |= {"init": found.init if start == "paper" else start}
    layer["method"] = {"name": found.name}
    layer["sgo"] = {"source": found.source}
    layer["plain_text"] = {"weight": None, "kl_share": found.plain_text.kl_share} | layer.get("plain_text", {})
    layer["fidelity"] = {}
    given = {"init": "sft" if init == "init" else init, "seed": seed, "device": device}
    layer |= {key: value for key, value in given.items() if value is not None}
    if sgo is not None:
        layer["sgo"]["source"] = sgo
    if data_dir is not None:
        layer["data"] |= {"dir": data_dir, "hub": False}
    for path, value in map(parse_assignment, assignments):
        layer = merge(layer, _nested(path, value))
    _settle_for_other_data(layer)
    _settle_plain_text(layer, found)
    _settle_fidelity(layer)
    _settle_source(layer, found)
    _settle_buffer(layer, preset_sgo)
    layer["method"] = _method_section(layer["method"], found, method_file_hash)
    layer["sgo"] = _sgo_section(layer["sgo"])
    config = validated(Config, layer)
    chosen = {
        "preset": (preset, config.preset),
        "task": (spec.name, config.task),
        "task_file": (task_file, config.task_file),
        "models.name": (pair, config.models.name),
    }
    for key, (asked, got) in chosen.items():
        if got != asked:
            raise BenchError(f"{key} cannot be set: choose it with --{key.partition('.')[0].removesuffix('_file')}")
    require_source(spec, data_dir=config.data.dir is not None, hub=config.data.hub)
    return config, found


def _nested(path: list[str], value: Any) -> dict[str, Any]:
    for part in reversed(path):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def _settle_for_other_data(layer: dict[str, Any]) -> None:
    """The shipped models know the embedded data only: on other data the same pair is trained from scratch."""
    data, models = layer["data"], layer["models"]
    if not (isinstance(data, dict) and isinstance(models, dict)):
        return
    embedded = not data.get("dir") and not data.get("hub") and data.get("seed", 0) == 0
    if models.get("teacher") == "shipped" and not embedded:
        models["teacher"] = "scratch"
    if models.get("student") == "shipped" and models.get("teacher") != "shipped":
        models["student"] = "scratch"
    if models.get("tokenizer") == "shipped" and models.get("teacher") != "shipped":
        # a loaded teacher brings its own vocabulary
        models["tokenizer"] = "trained" if models.get("teacher") == "scratch" else "teacher"


def _settle_plain_text(layer: dict[str, Any], method: Method) -> None:
    """A method's auxiliary loss is left out where there is no plain text, unless it was asked for."""
    section = layer["plain_text"]
    if not isinstance(section, dict):
        raise BenchError("plain_text: expected options such as plain_text.weight=0")
    data = layer["data"] if isinstance(layer["data"], dict) else {}
    embedded = not data.get("dir") and not data.get("hub") and layer["task"] in PLAIN_TEXT_TASKS
    there = embedded or section.get("file") is not None
    if section["weight"] is None:
        section["weight"] = method.plain_text.weight if there else 0.0
    elif section["weight"] != 0 and not there:
        raise BenchError(
            f"plain_text.weight={section['weight']}: there is no plain text for {layer['task']} on this data; "
            "give one with --set plain_text.file=FILE (.txt, a paragraph a line)"
        )


def _settle_fidelity(layer: dict[str, Any]) -> None:
    """`fidelity=faithful` and `fidelity=corrected` set every defect at once."""
    whole = {"faithful": True, "corrected": False}
    given = layer["fidelity"]
    if isinstance(given, str) and given in whole:
        layer["fidelity"] = dict.fromkeys(Fidelity.model_fields, whole[given])
    elif not isinstance(given, dict):
        example = f"fidelity.{given if given in Fidelity.model_fields else 'no_repeat_ngram'}=true"
        raise BenchError(f"fidelity: expected faithful, corrected or one defect such as {example}, got {given!r}")


def _settle_source(layer: dict[str, Any], method: Method) -> None:
    """The method's own options of its output source.

    The probability 1 of a method that is on-policy goes with it into the replay buffer, but `mixed` would be on-policy
    under another name with it.
    """
    sgo = layer["sgo"]
    if not isinstance(sgo, dict):
        return
    options = dict(method.source_options)
    if sgo["source"] == "mixed" and SOURCES[method.source].phi == "always":
        options.pop("probability", None)
    layer["sgo"] = {**options, **sgo}


def _settle_buffer(layer: dict[str, Any], preset: Mapping[str, Any]) -> None:
    """The preset's options of the replay buffer, where there is one: a buffer that never fills replays nothing."""
    sgo, fidelity = layer["sgo"], layer["fidelity"]
    if not isinstance(sgo, dict):
        return
    rule = SOURCES.get(str(sgo["source"]))
    if rule and (rule.buffered or fidelity.get("replayed_on_policy")):
        layer["sgo"] = {**preset, **sgo}


def _method_section(given: Any, method: Method, file_hash: str | None) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise BenchError("method: expected options such as method.alpha=0.2; choose the method with --method")
    options = {key: value for key, value in given.items() if key != "name"}
    if given["name"] != method.name:
        raise BenchError("method.name cannot be set: choose the method with --method")
    resolved = dataclass_options(method.objective, options, "method")
    return {"name": method.name, **resolved, **({"file_sha256": file_hash} if file_hash else {})}


def _sgo_section(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise BenchError("sgo: expected options such as sgo.capacity=500; choose the source with --sgo")
    options = dict(given)
    source = options.pop("source")
    if str(source) not in SOURCES:
        raise BenchError(f"sgo.source: unknown output source {source!r}: {did_you_mean(str(source), SOURCES)}")
    return {"source": source, **dataclass_options(SourceOptions, options, "sgo")}
