"""What a suite of successive halving found, as a page for its reader: the choice, the rungs, what could not be told."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.analysis.blocks import compare_arms
from bench.analysis.compare import arm_of
from bench.analysis.significance import Estimate
from bench.analysis.student_outputs import none_used
from bench.experiment.run import STUDENT, Outcome
from bench.models.architectures import AUTO
from bench.recommend.halving import Halving, Rung, Trial, ranked
from bench.record.record import MetricInfo, RunRecord
from bench.system.cells import escape_markdown


def loading(outcome: Outcome) -> str:
    """Three lines of Python that load the trained student."""
    loader, folder = AUTO[outcome.record.config.models.kind].__name__, repr(str((outcome.folder / STUDENT).resolve()))
    return "\n".join(
        [
            f"from transformers import {loader}, AutoTokenizer",
            f"model = {loader}.from_pretrained({folder})",
            f"tokenizer = AutoTokenizer.from_pretrained({folder})",
        ]
    )


def against(first: Trial, second: Trial, metric: MetricInfo) -> Estimate:
    """The difference of two trials on the validation set, by its examples alone."""
    one, two = (arm_of((0,), [trial.examples(metric.name)], metric) for trial in (first, second))
    return compare_arms(one, two)


def told_apart(first: Trial, second: Trial, metric: MetricInfo) -> bool:
    """Whether the first is above the second with its whole interval; of one example there is none."""
    return _has_several(first, metric) and against(first, second, metric).interval()[0] > 0


def _has_several(trial: Trial, metric: MetricInfo) -> bool:
    return len(trial.examples(metric.name).ids) > 1


def page(halving: Halving, rungs: Sequence[Rung], outcomes: Mapping[str, Outcome]) -> str:
    """The page, as Markdown."""
    chosen, outcome = next(iter(outcomes.items()))
    record = outcome.record
    config, label = record.config, record.metric.label
    examples = record.data.examples
    last = rungs[-1].trials
    alike = [one for one in list(outcomes)[1:] if not told_apart(last[chosen], last[one], record.metric)]
    lines = [
        f"# {config.task}: {chosen}",
        "",
        f"Of {len(rungs[0].trials)} methods, **{chosen}** had the best {label} on the validation set after "
        f"{rungs[-1].step} steps{'; it cannot be told from ' * bool(alike)}{', '.join(alike)}. "
        f"{examples['train']:,} examples to train on, {examples['validation']:,} to choose by. Models: "
        f"{config.models.name}; preset {config.preset}; training seed {config.seed}. The last call took "
        f"{halving.taken:.1f} of {halving.minutes:g} minutes.",
        "",
        f"The trained student lies in `{outcome.folder / STUDENT}`:",
        "",
        "```python",
        loading(outcome),
        "```",
        "",
        "On the test sets, which were answered when the choice was made and had no part in it:",
        "",
        f"| set | {' | '.join(outcomes)} | init student | teacher |",
        "|---|" + "--:|" * (len(outcomes) + 2),
        *_test_rows([one.record for one in outcomes.values()]),
        "",
        "## How it was chosen",
        "",
        f"{label} on the validation set, of the best checkpoint up to a step. From step to step the best went on: "
        f"{', '.join(str(len(rung.trials)) for rung in rungs)} methods.",
        "",
        f"| method | {' | '.join(f'step {rung.step}' for rung in rungs)} | seconds a step |",
        "|---|" + "--:|" * (len(rungs) + 1),
        *_rung_rows(rungs),
        "",
        "## What could not be told",
        "",
        *(f"- {line}" for line in _open(halving, rungs, outcomes)),
        "",
        "## To know more",
        "",
        "```sh",
        *(
            f"bench run --config {shlex.quote(str(outcomes[name].folder / 'record.json'))} --seed {seed} "
            f"--out {shlex.quote(str(halving.store.root))}"
            for seed in (config.seed + 10, config.seed + 20)
            for name in outcomes
        ),
        f"bench recommend --task {shlex.quote(config.task_file or config.task)} --preset {shlex.quote(config.preset)} "
        f"--out {shlex.quote(str(halving.store.root))}",
        "```",
    ]
    return "\n".join(lines) + "\n"


def as_plain(halving: Halving, rungs: Sequence[Rung], outcomes: Mapping[str, Outcome], path: Path) -> dict[str, object]:
    """The same as plain values, for JSON."""
    chosen, outcome = next(iter(outcomes.items()))
    return {
        "method": chosen,
        "student": str(outcome.folder / STUDENT),
        "page": str(path),
        "metric": outcome.record.metric.name,
        "rungs": [
            {
                "step": rung.step,
                "scores": {name: rung.trials[name].score for name in ranked(rung.trials)},
                "step_seconds": {name: trial.step_seconds for name, trial in rung.trials.items()},
                "kept": list(rung.kept),
            }
            for rung in rungs
        ],
        "runs": {name: one.record.run_id for name, one in outcomes.items()},
        "untried": list(halving.untried),
        "failed": halving.failed,
        "open": list(_open(halving, rungs, outcomes)),
    }


def _test_rows(records: Sequence[RunRecord]) -> Iterator[str]:
    first = records[0]
    for name in first.scores:
        scores = [*(record.scores for record in records), first.init_scores, first.teacher_scores]
        yield f"| {escape_markdown(name)} | " + " | ".join(f"{one[name].primary.mean:.2f}" for one in scores) + " |"


def _rung_rows(rungs: Sequence[Rung]) -> Iterator[str]:
    """The one that came furthest first; of those that came as far, the better."""
    order = [name for rung in reversed(rungs) for name in ranked(rung.trials)]
    for name in dict.fromkeys(order):
        tried = [rung.trials[name] for rung in rungs if name in rung.trials]
        cells = [f"{trial.score:.2f}" for trial in tried] + ["–"] * (len(rungs) - len(tried))
        yield f"| {name} | {' | '.join(cells)} | {tried[-1].step_seconds:.3g} |"


def _open(halving: Halving, rungs: Sequence[Rung], outcomes: Mapping[str, Outcome]) -> Iterator[str]:
    records = {name: outcome.record for name, outcome in outcomes.items()}
    record = next(iter(records.values()))
    metric = record.metric
    yield from _nothing_to_teach(records)
    for name, one in records.items():
        if told := none_used([one]):
            yield f"{name}: {told}."
    for note in dict.fromkeys(note for one in records.values() for note in one.data.notes):
        yield f"Noted of the runs: {escape_markdown(note)}"
    for rung in rungs:
        best = rung.kept[0]
        close = []
        for name, trial in rung.trials.items():
            gone = name not in rung.kept if rung is not rungs[-1] else name != best
            if gone and _has_several(trial, metric) and not told_apart(rung.trials[best], trial, metric):
                found = against(rung.trials[best], trial, metric)
                close.append(f"{name} ({found.value:.2f} behind, ± {found.interval()[1] - found.value:.2f})")
        if close:
            what = "was not chosen" if rung is rungs[-1] else "did not go on"
            yield (
                f"At step {rung.step}, {', '.join(close)} {what}, though the validation examples do not tell it from "
                f"{best}."
            )
    yield (
        "One training seed a method: another may change the order. The intervals above speak of other examples alone."
    )
    late = [
        name
        for name, trial in rungs[0].trials.items()
        if trial.phi is not None and name not in rungs[0].kept and trial.phi < 0.5
    ]
    if late:
        yield (
            f"{', '.join(late)} went out while hardly training on student outputs (φ below 0.5): what these do "
            "later was not seen."
        )
    yield "Every method had the settings that the preset gives it: one that needs others was at a disadvantage."
    if halving.untried:
        yield f"Not tried, for want of time: {', '.join(halving.untried)}. More --minutes try them."
    if halving.cut:
        yield f"Fewer than planned went on after step {' and '.join(map(str, halving.cut))}, for want of time."
    for name, reason in halving.failed.items():
        yield f"{name} was left out: {escape_markdown(reason.splitlines()[0])}"


def _nothing_to_teach(records: Mapping[str, RunRecord]) -> Iterator[str]:
    """Where a student that learned from no teacher is not below it: then the choice says little of distillation."""
    first = next(iter(records.values()))
    for name, of_teacher in first.teacher_scores.items():
        alone = {"the init student": first.init_scores[name].primary.mean} if first.config.init == "sft" else {}
        alone |= {"sft": records["sft"].scores[name].primary.mean} if "sft" in records else {}
        above = [f"{who} ({score:.2f})" for who, score in alone.items() if score >= of_teacher.primary.mean]
        if above:
            yield (
                f"On {escape_markdown(name)}, {' and '.join(above)} without a teacher "
                f"{'is' if len(above) == 1 else 'are'} not below the teacher ({of_teacher.primary.mean:.2f}): there is "
                "nothing to distil. Take a better teacher, or train it longer (teacher_training.steps), before any "
                "method is chosen."
            )
