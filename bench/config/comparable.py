"""What two runs must share to stand in one table, and in what two configurations differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from bench.config.layers import with_values


class Difference(NamedTuple):
    """A dotted key at which two nested mappings differ, with both values; None for a key that a side lacks."""

    key: str
    first: object
    second: object


def differences(first: object, second: object, path: str = "") -> Iterator[Difference]:
    """Where two nested mappings differ, in the order of their keys; an architecture (`*_config`) is compared whole."""
    whole = path.endswith("_config")
    if isinstance(first, Mapping) and isinstance(second, Mapping) and not whole:
        for key in sorted(first.keys() | second.keys()):
            yield from differences(first.get(key), second.get(key), f"{path}.{key}" if path else key)
    elif first != second:
        yield Difference(path, first, second)


def differences_in_words(first: object, second: object) -> list[str]:
    """In what two runs' `comparison_fields` differ, for a reader: settings with both values, without hashes.

    Of models with another name nothing else is told: the rest follows from it.
    """
    found = [one._replace(key=one.key.removeprefix("config.")) for one in differences(first, second)]
    if any(one.key == "models.name" for one in found):
        found = [one for one in found if one.key == "models.name" or not one.key.startswith(_OF_MODELS)]
    return list(dict.fromkeys(f"{one.key}{_both_values(one)}" for one in found))


_OF_MODELS = ("models.", "tokenizer", "generation")


def _both_values(one: Difference) -> str:
    both = (one.first, one.second)
    if all(map(_is_hash, both)):  # which say nothing to a reader
        return " (other contents)"
    # an architecture or a list would be too much
    told = all(value is None or isinstance(value, (bool, int, float, str)) for value in both)
    return f" ({one.first} against {one.second})" if told and not any(map(_is_hash, both)) else ""


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def scoring_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Of a record's `comparison_fields`, what two scores must share where one is of a model that was not trained here.

    The same examples, prompts, lengths, decoding and metrics, on the same kind of device; nothing of any training. What
    generated is the record's to say (`RunRecord.scored`).
    """
    config = fields["config"]
    if "method" not in config and "models" not in config:
        return dict(fields)  # of such a model already
    sections = {
        "data": ("template", "max_prompt_length", "max_response_length"),
        "evaluation": ("seeds", "temperature", "top_p", "top_k", "metrics"),
        "fidelity": ("no_repeat_ngram",),
    }
    shared: dict[str, Any] = {name: config[name] for name in ("task", "device", "precision")}
    for section, names in sections.items():
        shared[section] = {name: config.get(section, {}).get(name) for name in names}
    return {"config": shared, **{name: fields.get(name) for name in ("data", "task", "version")}}


def comparison_fields(run_key: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs must share to stand in one table: all but method (its plain-text loss included),
    output source, init student and training seed.

    Where data and local models lie is left out: the key has the contents of both beside the configuration, and the same
    files lie elsewhere on another machine.
    """
    config = shared_settings(run_key["config"])
    data, text, models = config["data"], config["plain_text"], dict(config["models"])
    for side in run_key.get("models", {}):
        if "/" in str(models.get(side)) and _is_hash(run_key["models"][side]):
            models[side] = _BY_CONTENTS
    if "/" in str(models["tokenizer"]):
        models["tokenizer"] = _BY_CONTENTS
    config |= {"data": {**data, "dir": None, "train_file": None, "test_file": None}}
    config |= {"plain_text": {**text, "file": None}, "models": models}
    if pretraining := config.get("student_pretraining"):
        config["student_pretraining"] = {**pretraining, "file": None}
    return {**run_key, "config": config}


_BY_CONTENTS = "a folder"


def shared_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a configuration, what does not belong to one arm: the settings that all runs of a table share.

    Where the preset gives the method settings of its own (`method_settings`), those of the other methods stand: a
    difference that is declared keeps nothing apart, any other one does.
    """
    arm = ("method", "sgo", "init", "seed", "method_settings", "shared_settings")
    config = with_values(config, config["shared_settings"])
    config = {name: value for name, value in config.items() if name not in arm}
    # the auxiliary loss belongs to a method; the text it is taken on does not
    config["plain_text"] = {k: v for k, v in config["plain_text"].items() if k not in ("weight", "kl_share")}
    if "tuning" in config:  # what came of it is the method's own; the budget is the same for all
        config["tuning"] = {name: config["tuning"][name] for name in ("trials", "seeds")}
    return config


def own_settings(config: Mapping[str, Any]) -> dict[str, object]:
    """Of a configuration, what belongs to one arm, by dotted keys: all that `shared_settings` leaves, but the seed."""
    return {key: own for key, own, _ in differences(config, shared_settings(config)) if key != "seed"}
