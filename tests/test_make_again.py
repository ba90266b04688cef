"""The commands of docs/results.md that make what is published again: their dry runs name these runs, and no others."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import pytest

from bench.cli.main import main
from bench.config.resolve import resolve
from bench.config.sections import Config
from bench.record.store import Store
from tests.conftest import invoke
from tests.paper_tables.conftest import declared

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "results" / "paper-tiny"
AGAIN = "results/again"
COPIED = ("tiny-as-long-as-distillm.yaml", "tuning/tiny-tuned.yaml")


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """A folder without runs, with the presets that the commands of before leave there."""
    folder = tmp_path_factory.mktemp("again")
    for name in COPIED:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(PUBLISHED / name, folder / name)
    return folder


def script(name: str) -> list[list[str]]:
    """Arguments of the script's commands of this name."""
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"```sh\n([^`]*bench {name}[^`]*--out {AGAIN}[^`]*)```", page)
    lines = [line for line in block.splitlines() if line.startswith(f"bench {name} ")]
    return [shlex.split(line)[1:] for line in lines]


def key(config: Config) -> str:
    """What makes a run's id beside data, models and version; a preset's file may lie anywhere."""
    found: Mapping[str, object] = {k: v for k, v in config.identity().items() if k != "device"}
    return json.dumps(found, sort_keys=True)


def config_of(words: list[str]) -> Config:
    """The configuration of a `bench run` command."""
    command = main.get_command(click.Context(main), "run")
    assert command is not None
    given = command.make_context("run", words).params
    names = ("preset", "task", "method", "models", "sgo", "init", "seed", "assignments")
    return resolve(**{name: given[name] for name in names if given[name] is not None})[0]


def trials(told: str, seed: int) -> Iterator[Config]:
    """The configurations of the trials that `bench tune --dry-run` prints."""
    for task, method, rates in re.findall(r"^(\S+) (\S+): training.learning_rate (.+)$", told, re.MULTILINE):
        for rate in rates.split(", "):
            settings = ["score_on=validation", f"training.learning_rate={rate}"]
            yield resolve(preset="tiny", task=task, method=method, seed=seed, assignments=settings)[0]


def test_the_suites_name_the_published_runs(out, monkeypatch):
    command = declared(monkeypatch)
    named = {}
    for words in script("suite"):
        shown = command(*(word.replace(AGAIN, str(out)) for word in words), "--dry-run")
        assert shown.exit_code == 0, shown.output
        for line in shown.stdout.splitlines():
            if line.startswith("bench run "):
                named[key(config_of(shlex.split(line)[2:]))] = line
    recorded = {key(record.config): record.run_id for record in Store(PUBLISHED).all()}
    assert sorted(recorded[one] for one in recorded.keys() - named.keys()) == []
    assert sorted(named[one] for one in named.keys() - recorded.keys()) == []


def test_the_tuning_names_the_published_trials():
    named = set()
    for words in script("tune"):
        shown = invoke(*(word.replace(AGAIN, "none") for word in words), "--dry-run")
        assert shown.exit_code == 0, shown.output
        named |= {key(config) for config in trials(shown.stdout, int(words[words.index("--seed") + 1]))}
    recorded = {key(record.config): record.run_id for record in Store(PUBLISHED / "tuning").all()}
    assert sorted(recorded[one] for one in recorded.keys() - named) == []
    assert len(named) == len(recorded)


def test_the_hours_are_those_of_the_records():
    page = " ".join((ROOT / "docs" / "results.md").read_text(encoding="utf-8").split())
    told = re.search(r"recorded times add up to (\d+) hours, (\d+) of them of trials", page)
    assert told is not None
    runs, tried = (sum(one.seconds for one in Store(of).all()) / 3600 for of in (PUBLISHED, PUBLISHED / "tuning"))
    assert (int(told[1]), int(told[2])) == (round(runs + tried), round(tried))
