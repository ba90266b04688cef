"""What lies on the stand-in hub. Every model and data set that a shipped pair or task names must be here."""

from __future__ import annotations

from bench.config.presets import read_pair, shipped
from bench.data import TASKS
from tests.hub.datasets_of import DATASETS
from tests.hub.models_of import MODELS
from tests.hub.server import Branches

CONTENTS: dict[tuple[str, str], Branches] = {("models", name): {"main": fill} for name, fill in MODELS.items()}
CONTENTS |= {("datasets", name): branches for name, branches in DATASETS.items()}


def hub_pairs() -> dict[str, dict[str, str]]:
    """The shipped pairs whose models come from the hub: kind, teacher and student by name."""
    pairs = {name: read_pair(name).settings["models"] for name in shipped("pairs")}
    return {name: models for name, models in pairs.items() if "/" in models["teacher"]}


def named_by_the_package() -> set[tuple[str, str]]:
    """Kind and id of all that shipped pairs and tasks name."""
    named = {("models", models[side]) for models in hub_pairs().values() for side in ("teacher", "student")}
    for task in TASKS.values():
        named |= {("datasets", source.id) for source in task.hub_sources}
    return named
