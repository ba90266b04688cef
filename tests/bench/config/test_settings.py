"""The list of settings: complete, and true of what `--set` takes."""

import json

import pytest

from bench.config.resolve import CHOSEN_BY, GIVEN_BY_PRESETS, resolve
from bench.config.sections import TrainingConfig
from bench.config.settings import settings
from bench.system.errors import BenchError

LISTED = {one.key: one for one in settings()}


def keys(values, before=""):
    for name, value in values.items():
        if isinstance(value, dict) and not name.endswith("_config"):
            yield from keys(value, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def is_listed(key):
    section, _, name = key.partition(".")
    return key in LISTED or (f"{section}.*" in LISTED and (section == "method" or name in TrainingConfig.model_fields))


@pytest.mark.parametrize("method", ["distillm", "minillm"])
def test_every_key_of_a_configuration_is_listed_or_cannot_be_set(method):
    config, _ = resolve(preset="tiny", task="dolly", method=method)
    unlisted = {key for key in keys(config.canonical()) if not is_listed(key)}
    assert unlisted <= {*CHOSEN_BY, *GIVEN_BY_PRESETS}
    for key in {*CHOSEN_BY, *GIVEN_BY_PRESETS, "tuning"}:
        assert key not in LISTED
        with pytest.raises(BenchError, match=f"{key} cannot be set"):
            resolve(preset="tiny", task="dolly", method=method, assignments=[f"{key}={json.dumps({'a': 1})}"])


def test_every_default_can_be_set():
    given = [f"{one.key}={one.default}" for one in LISTED.values() if one.default and one.default != "null"]
    assert len(given) > 40
    for assignment in given:
        resolve(preset="tiny", task="dolly", method="distillm", assignments=[assignment])


def test_keys_that_are_seldom_printed_are_explained():
    assert LISTED["training.optimizer"].value == "adamw, adamw-8bit"
    assert LISTED["models.lora.rank"].default == "16"
    assert LISTED["evaluation.metrics"].value == "list, null"
    assert LISTED["init_training.*"].what == "as training.*"
    assert "student_pretraining.learning_rate" in LISTED, "its default is another one"
    assert "student_pretraining.schedule" not in LISTED
    assert all(one.what for one in LISTED.values())
