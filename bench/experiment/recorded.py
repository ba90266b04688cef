"""A record's configuration made again: from the hub what the record was made of, whatever its branches hold by now."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.config.sections import Config
from bench.data import task_of
from bench.data.load import sources_on_hub
from bench.experiment.identity import SIDES
from bench.record.read import Unreadable, read_record
from bench.system.hub import COMMITS, data_set, split_revision

_AT_COMMIT = r"((?:[\w.-]+/)?[\w.-]+)@([0-9a-f]{40})\b"


@contextmanager
def at_recorded_commits(config: Config, file: Path | None) -> Iterator[None]:
    """Load models and data of the hub at the commits of a record.

    Args:
        config: of the run to make; what it has from elsewhere than the record is loaded as it is now.
        file: that the configuration came from; only a record has commits.
    """
    recorded = {} if file is None else _commits(config, file)
    before = {name: COMMITS[name] for name in recorded if name in COMMITS}
    COMMITS.update(recorded)
    try:
        yield
    finally:  # what this process has seen of others first, it goes on with
        for name in recorded:
            COMMITS.pop(name, None)
        COMMITS.update(before)


def _commits(config: Config, file: Path) -> dict[str, str]:
    """Commits by the names that are asked for."""
    try:
        record = read_record(file)
    except Unreadable:  # a configuration that was never run
        return {}
    then, fields = record.config, record.comparison_fields
    found: dict[str, str] = {}
    for side in SIDES:
        name, told = getattr(config.models, side), str(fields.get("models", {}).get(side))
        if name == getattr(then.models, side):
            found |= _at({name: split_revision(name)[0]}, told.partition(" on ")[0])
            if base := re.search(f" on {_AT_COMMIT}", told):  # of an adapter
                found.setdefault(base[1], base[2])
    if config.data.hub and config.data.hub == then.data.hub:
        sources = sources_on_hub(task_of(config.task, config.task_file), config.data.hub)
        found |= _at({data_set(one.pinned): one.id for one in sources}, record.data.source)
    if (text := config.plain_text.hub) is not None and text == then.plain_text.hub:
        found |= _at({data_set(text): split_revision(text)[0]}, str(fields.get("plain_text")))
    return found


def _at(repositories: dict[str, str], told: str) -> dict[str, str]:
    """For names of repositories, the commits that a text has of them."""
    commits = dict(re.findall(_AT_COMMIT, told))
    return {name: commits[one] for name, one in repositories.items() if one in commits}
