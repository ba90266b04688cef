"""Which of a method's recorded settings is ranked: its own before others, and of these those with most seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from bench.analysis.compare import ComparedRuns, arm_key, unread_options
from bench.config.comparable import differences, differences_in_words
from bench.config.presets import shipped, usual_pair
from bench.config.resolve import resolve
from bench.config.sections import Config
from bench.record.record import RunRecord

_SOURCE = "sgo.source"


@dataclass(frozen=True)
class Options:
    """What is asked of the records.

    Attributes:
        on: the evaluation set that decides.
        models: a model pair; None = that of most runs, of those with equally many the preset's own for the task.
        every_source: rank each method with every output source that it is recorded with.
        max_seconds: time that a run may take, with what its method needs before the training. Methods that are not
            known to be within it take no part in the choice.
        price: of an hour.
    """

    on: str = "test"
    models: str | None = None
    every_source: bool = False
    max_seconds: float | None = None
    price: float | None = None


DEFAULTS = Options()


@dataclass(frozen=True)
class LeftOut:
    """A recorded setting of a method that is not ranked, since the method is ranked with another.

    Attributes:
        method, source: its name and output source.
        other: what else is not as the preset gives it, by dotted key.
        score: the mean over its training seeds.
        run_id: of its first run.
    """

    method: str
    source: str
    other: tuple[str, ...]
    score: float
    run_id: str


def ranked_sides(
    recorded: Sequence[RunRecord], task: str, preset: str, options: Options, warn: Callable[[str], None]
) -> tuple[list[ComparedRuns], list[LeftOut]]:
    """Every method of some runs on a task, with one run a seed, all of which can be compared; what is left out.

    Args:
        recorded: runs of one preset on the task, one at least.
        task: its name, or its file.
        preset: the runs' scale: a shipped preset's name, or a file.
        options: what is asked.
        warn: told of runs that cannot be compared with most of the others.

    Raises:
        BenchError: a method that is recorded in several settings cannot be resolved any more.
    """
    groups: dict[str, list[RunRecord]] = {}
    for record in recorded:
        groups.setdefault(record.comparison_key, []).append(record)
    usual = usual_pair(preset, recorded[0].task)

    def rank(group: list[RunRecord]) -> tuple[int, bool, str]:
        pair = group[0].config.models.name
        return -len(group), pair != usual, pair

    records, *others = sorted(groups.values(), key=rank)
    for left in others:
        if left[0].config.models.name == records[0].config.models.name:  # other pairs are a choice: `other_pairs`
            told = ", ".join(differences_in_words(left[0].comparison_fields, records[0].comparison_fields))
            warn(
                f"left out {len(left)} of {records[0].task}'s runs, which cannot be compared with the {len(records)} "
                f"ranked here. They differ in {told}. To rank them, copy them into a folder of their own and give it "
                "with --out"
            )
    by_method: dict[str, dict[str, dict[int, RunRecord]]] = {}
    for record in records:
        arms = by_method.setdefault(record.config.method.name, {})
        arms.setdefault(arm_key(record), {}).setdefault(record.seed, record)
    sides, left_out = [], []
    for method, found in by_method.items():
        unlike: dict[str, tuple[str, ...]] = dict.fromkeys(found, ())
        if len(found) > 1:
            unlike = {key: _unlike_usual(arm[min(arm)].config, task, preset, options) for key, arm in found.items()}
        ranked: set[str] = set()
        for key, arm in sorted(found.items(), key=lambda item: (*_preference(unlike[item[0]]), -len(item[1]))):
            one = arm[min(arm)]
            source, other = one.config.sgo.source, tuple(name for name in unlike[key] if name != _SOURCE)
            if not ranked or (options.every_source and source not in ranked and not other):
                name = method if not ranked else f"{method} ({source})"
                sides.append(ComparedRuns(name, tuple(arm[seed] for seed in sorted(arm))))
                ranked.add(source)
            elif options.on in one.scores:
                score = fmean(record.scores[options.on].primary.mean for record in arm.values())
                left_out.append(LeftOut(method, source, other, score, one.run_id))
    return sides, left_out


def _preference(unlike: tuple[str, ...]) -> tuple[bool, bool]:
    """A method's own settings first; then the usual ones of another output source."""
    return bool(unlike), unlike != (_SOURCE,)


def _unlike_usual(config: Config, task: str, preset: str, options: Options) -> tuple[str, ...]:
    """Where a run's method options, output source and init student are not what the preset gives its method.

    Options of another output source are held to those that the preset gives that source. Those that the source does not
    read have no effect and are not looked at: runs that differ in them alone are of one setting (`arm_key`).
    """
    settings = [] if config.data.dir else [f"data.hub={json.dumps(config.data.hub)}"]
    name = config.method.file or config.method.name
    usual, method = resolve(
        preset=preset,
        task=task,
        method=name,
        models=config.models.name if config.models.name in shipped("pairs") else options.models,
        sgo=config.sgo.source,
        data_dir=config.data.dir,
        assignments=settings,
    )
    unread = unread_options(config)
    first, second = (
        {
            "method": dict(one.method.options),
            "sgo": one.sgo.model_dump(mode="json", exclude=set(unread)),
            "init": one.init,
        }
        for one in (usual, config)
    )
    source = () if method.source == config.sgo.source else (_SOURCE,)
    return (*source, *(difference.key for difference in differences(first, second)))
