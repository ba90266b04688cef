"""What tells runs apart whose ids differ by a hash: they share task, method, output source and training seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bench.record.record import RunRecord

Values = Mapping[str, object]
_FIRST = ("preset", "version", "data.dir", "models.name")
"""What much else follows from: where runs differ in one of these, it is told alone of those that it sets apart."""
_FILES = ("task_file", "method.file")  # of which the content counts, not the path
_LONGEST = 24  # characters of a value


def what_differs(runs: Iterable[RunRecord]) -> dict[str, str]:
    """By run id, the settings in which a run differs from others of its kind: "alpha=0.3, capacity=16".

    Runs that are alone of their kind are left out. A run that differs in no setting has its data, models or machine
    named instead.
    """
    kinds: dict[tuple[object, ...], list[RunRecord]] = {}
    for run in runs:
        kinds.setdefault((run.task, run.config.method.name, run.config.sgo.source, run.seed), []).append(run)
    found: dict[str, str] = {}
    for alike in kinds.values():
        if len(alike) > 1:
            values = {run.run_id: _values(run) for run in alike}
            found |= {run_id: ", ".join(parts) for run_id, parts in _told(values, _FIRST).items()}
    return found


def _values(run: RunRecord) -> dict[str, object]:
    """All that may tell a run from others, by dotted key."""
    settings = {key: value for key, value in _flat(run.config.canonical(), "") if key not in _FILES}
    return {
        **settings,
        "version": run.environment.distillm_bench,
        "data": run.data.fingerprint[:8],
        "teacher": run.models.teacher[:8],
        "generation": "/".join(run.models.generation.values()),
        "device": run.environment.device,
        "id": run.run_id.rpartition("-")[2][:8],
    }


def _flat(values: Mapping[str, object], path: str) -> Iterable[tuple[str, object]]:
    for key, value in values.items():
        whole = f"{path}.{key}" if path else key
        if isinstance(value, Mapping) and not whole.endswith(("_config", "_settings")):
            yield from _flat(value, whole)
        else:
            yield whole, value


def _told(values: Mapping[str, Values], first: Sequence[str]) -> dict[str, list[str]]:
    for number, key in enumerate(first):
        groups: dict[object, dict[str, Values]] = {}
        for run_id, one in values.items():
            groups.setdefault(one.get(key), {})[run_id] = one
        if len(groups) > 1:
            rest = [_told(group, first[number + 1 :]) for group in groups.values()]
            told = {run_id: parts for group in rest for run_id, parts in group.items()}
            return {run_id: [f"{_short(key, ())}={_text(values[run_id].get(key))}", *told[run_id]] for run_id in values}
    if len(values) == 1:
        return {run_id: [] for run_id in values}
    keys = sorted({key for one in values.values() for key in one})
    differing = [key for key in keys if len({repr(one.get(key)) for one in values.values()}) > 1]
    settings = [key for key in differing if key not in ("id", "data", "teacher", "generation", "device")]
    # what follows from settings is told only where there are none
    chosen = settings or [key for key in differing if key != "id"] or differing
    return {
        run_id: [f"{_short(key, chosen)}={_text(one.get(key))}" for key in chosen if key in one]
        for run_id, one in values.items()
    }


def _short(key: str, among: Sequence[str]) -> str:
    """The last part of a key, or all of it where another one ends in the same."""
    last = key.rpartition(".")[2]
    alone = sum(other.rpartition(".")[2] == last for other in among) < 2
    return last if alone and last not in ("name", "dir") else key.removesuffix(".name")


def _text(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
