"""Random settings: refused in words, or a plan; what is accepted runs and gives finite numbers."""

from __future__ import annotations

import math
import random
import types
import typing

import pytest
from pydantic import BaseModel

import baselines
import distillm
from bench.config.sections import Config
from bench.data import TASKS
from bench.record.record import RunRecord
from tests.conftest import invoke, short
from tests.torture.conftest import ROUNDS
from tests.torture.test_arguments import ended, wrong_with

METHODS = [method.name for method in (*baselines.METHODS, *distillm.METHODS)]
ODD = """-1 0 1 2 7 0.5 1e-30 1e30 1e400 .nan -0.0 99999999999999999999 true null [] {} a '' 1:30 0x10 2001-01-01
[1,2] [10] [[1]] {a:1} !!binary &a[*a]""".split()  # noqa: SIM905


def fields(section: type[BaseModel], path: str = "") -> dict[str, object]:
    """The type of every key that `--set` takes, by its dotted name."""
    found: dict[str, object] = {}
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= fields(kind, f"{path}{name}.")
        else:
            found[path + name] = kind
    return found


KEYS = fields(Config)


def fitting(kind: object, draws: random.Random) -> str:
    """A value of about the right type, small enough to be run."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return str(draws.choice(arguments))
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        chosen = draws.choice(arguments)
        return "null" if chosen is type(None) else fitting(chosen, draws)
    if kind is bool:
        return draws.choice(["true", "false"])
    if kind is int:
        return str(draws.choice([1, 2, 3, 4, 8, 10, 16, 33, 64]))
    if kind is float:
        return str(draws.choice([0, 1e-9, 1e-4, 0.01, 0.1, 0.3, 0.5, 0.9, 1.0, 2.5]))
    return draws.choice(ODD)


def command(draws: random.Random) -> list[str]:
    """A run with one to four keys set at random, half of them to a value of about the right type."""
    words = ["run", "--task", draws.choice([*TASKS]), "--method", draws.choice(METHODS)]
    for key in draws.sample([*KEYS], draws.randint(1, 4)):
        value = fitting(KEYS[key], draws) if draws.random() < 0.5 else draws.choice(ODD)
        words += ["--set", f"{key}={value}"]
    return words


@pytest.mark.parametrize("part", range(10))
def test_random_settings_are_refused_in_words_or_make_a_plan(part, draws, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong, planned = [], 0
    for _ in range(40 * ROUNDS):
        words = command(draws)
        result = ended([*words, "--dry-run"])
        found = wrong_with(result)
        if found:
            wrong.append(f"{words}: {found}")
        planned += result.exit_code == 0
    assert not wrong, "\n".join(wrong)
    assert planned > 0


RUN = short(training__steps=2, init_training__steps=2, data__max_train=32, data__max_test=2, data__max_validation=2)
DRAWN = [
    key
    for key, kind in KEYS.items()
    if key.startswith(("sgo.", "training.", "plain_text.", "evaluation.", "fidelity."))
]
DRAWN = [key for key in DRAWN if key not in ("training.steps", "training.epochs", "plain_text.file", "sgo.source")]


@pytest.mark.parametrize("part", range(12))
def test_what_is_accepted_runs_and_ends_in_finite_numbers(part, draws, tmp_path, cache):
    """Accepted, it may still be refused where data and models are known: in words."""
    words = ["run", "--task", "iwslt", "--method", draws.choice(METHODS), *RUN, "--set", "data.max_response_length=12"]
    settings = []
    while len(settings) < 6:
        key = draws.choice(DRAWN)
        setting = ["--set", f"{key}={fitting(KEYS[key], draws)}"]
        if invoke(*words, *settings, *setting, "--dry-run").exit_code == 0:
            settings += setting
    result = ended([*words, *settings, "--json", "--out", str(tmp_path / "out")], seconds=90)
    assert not wrong_with(result), f"{settings}: {wrong_with(result)}"
    if result.exit_code == 0:
        record = RunRecord.model_validate_json(result.stdout)
        numbers = [one.primary.mean for one in record.scores.values()] + [row.loss for row in record.validations]
        numbers += [number for point in record.curve for number in point.values()]
        assert numbers
        assert all(math.isfinite(number) for number in numbers), settings
