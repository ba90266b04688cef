"""The paper's tables as data: which kinds of run stand in which row and column. Nothing here reads a record.

An arm is a kind of run: everything but preset and training seed. A table's cell is an arm's score on one evaluation
set. `tables(preset)` gives each table with arms that are fully settled for the preset, so that equal arms of two tables
are the same run.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from bench.config.presets import read_preset
from bench.config.registry import methods
from bench.config.resolve import resolve
from bench.config.sections import Config
from distillm.interface import Init

LOSSES = {"kld": "KLD", "rkld": "RKLD", "jsd": "JSD", "skl": "SKL", "srkl": "SRKL"}
LABELS = LOSSES | {
    "sft": "SFT",
    "tvd": "TVD",
    "seqkd": "SeqKD",
    "imitkd": "ImitKD",
    "gkd": "GKD",
    "minillm": "MiniLLM",
    "distillm": "DistiLLM",
    "distillm-skl": "DistiLLM (SKL)",
}
OWN_SOURCE = {
    **dict.fromkeys(("sft", "kld", "rkld", "jsd", "tvd", "skl", "srkl"), "dataset"),
    "seqkd": "teacher",
    "imitkd": "on-policy",
    "gkd": "mixed",
    "minillm": "roll-outs",
    "distillm": "adaptive-off-policy",
    "distillm-skl": "adaptive-off-policy",
}
"""Where each method's responses come from in its paper; written out here because a table is a fixed thing."""
MAIN = (
    *("sft", "kld", "rkld", "jsd", "tvd", "seqkd", "imitkd", "gkd", "minillm"),
    *("skl", "srkl", "distillm-skl", "distillm"),
)
TASK_SPECIFIC = ("sft", "kld", "seqkd", "imitkd", "gkd", "minillm", "distillm")
WITH_SGOS = ("minillm", "gkd", "imitkd", "distillm")
INSTRUCTION_SETS = {
    "dolly": ("Dolly", ("test",)),
    "selfinst": ("SelfInst", ("SelfInst", "selfinst")),
    "vicuna": ("Vicuna", ("Vicuna", "vicuna")),
    "sinst": ("S-NI", ("S-NI", "sinst")),
    "uinst": ("UnNI", ("UnNI", "uinst")),
}
TASKS = {"samsum": "SAMSum (ROUGE-L)", "iwslt": "IWSLT En-De (BLEU)"}
STUDENT_SIZES = {
    ("paper", "samsum"): ("t5-xl-to-t5-base", "t5-xl-to-t5-small"),
    ("paper", "iwslt"): ("mt5-xl-to-mt5-base", "mt5-xl-to-mt5-small"),
}
"""Model pairs of Table 3, by preset and task, where there is more than the preset's own."""


@dataclass(frozen=True)
class Arm:
    """A kind of run. `options` are `--set KEY=VALUE` beyond what the method and the preset say."""

    method: str
    task: str
    sgo: str
    init: Init
    models: str
    options: tuple[str, ...] = ()

    def config(self, preset: str, seed: int | None = None) -> Config:
        """The configuration of its run.

        Raises:
            BenchError: its method, or its output source, is not there.
        """
        config, _ = resolve(
            preset=preset,
            task=self.task,
            method=self.method,
            models=self.models,
            sgo=self.sgo,
            init=self.init,
            seed=seed,
            assignments=self.options,
        )
        return config

    def command(self, preset: str, seed: int, settings: tuple[str, ...] = ()) -> str:
        """The command that makes its run, with more `--set KEY=VALUE`; what is the default anyway is left out."""
        method = methods().get(self.method)
        words = ["bench", "run", "--method", self.method, "--task", self.task, "--preset", preset]
        if method is None or method.source != self.sgo:
            words += ["--sgo", self.sgo]
        if self.init != start(preset, self.method):
            words += ["--init", self.init]
        if self.models != own_models(preset, self.task):
            words += ["--models", self.models]
        words += ["--seed", str(seed)]
        return shlex.join([*words, *(part for option in (*self.options, *settings) for part in ("--set", option))])


@dataclass(frozen=True)
class Row:
    """A row of a table: its arm in each of the table's groups of columns."""

    name: str
    label: str
    arms: Mapping[str, Arm]


@dataclass(frozen=True)
class Column:
    """A column: one evaluation set of the arms in a group. `sets` are its possible names, the first found counting."""

    name: str
    label: str
    group: str
    task: str
    sets: tuple[str, ...] = ("test",)


@dataclass(frozen=True)
class Table:
    """One table of the paper.

    Attributes:
        name: what the command line takes.
        caption: what it shows.
        rows: from the top.
        columns: from the left.
        timed: it has a column of training time relative to the row `kld`.
        published_for: the model pair whose published values stand beside the measured ones.
    """

    name: str
    caption: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    timed: bool = False
    published_for: Mapping[str, str] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The beginning of its files' names."""
        return f"table{self.name}" if self.name.isdigit() else self.name

    @property
    def title(self) -> str:
        """What it is called."""
        return f"Table {self.name}" if self.name.isdigit() else "Main table" if self.name == "main" else "Appendix"

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Every arm it needs, each once."""
        return tuple(dict.fromkeys(arm for row in self.rows for arm in row.arms.values()))


NAMES = ("1", "2", "3", "4", "5", "main")


def start(preset: str, method: str) -> Init:
    """Where the student of a method starts under a preset: what `bench run` does without `--init`."""
    return read_preset(preset).init(methods().get(method))


def own_models(preset: str, task: str) -> str:
    """The model pair of a task under a preset."""
    return read_preset(preset).models(task)


@cache
def tables(preset: str) -> Mapping[str, Table]:
    """All tables, by name, as a preset fills them."""
    made = (_losses, _sources, _task_specific, _off_policy, _starts, _main)
    return dict(zip(NAMES, (make(preset) for make in made), strict=True))


def arm_of(preset: str, method: str, task: str = "dolly", sgo: str | None = None, *options: str) -> Arm:
    """The arm of a method where nothing else is said: its own output source, the preset's start and models."""
    source = sgo or OWN_SOURCE[method]
    return Arm(method, task, source, start(preset, method), own_models(preset, task), options)


def _instruction_columns() -> tuple[Column, ...]:
    return tuple(Column(name, label, "dolly", "dolly", sets) for name, (label, sets) in INSTRUCTION_SETS.items())


_GPT2 = {"dolly": "gpt2-xl-to-gpt2"}


def _losses(preset: str) -> Table:
    # one start for all, also where their papers differ in it: the loss alone is compared
    models = own_models(preset, "dolly")
    rows = tuple(
        Row(name, label, {"dolly": Arm(name, "dolly", "dataset", "sft", models)}) for name, label in LOSSES.items()
    )
    return Table("1", "Loss functions on fixed data", rows, _instruction_columns(), published_for=_GPT2)


def _sources(preset: str) -> Table:
    sources = {
        "on-policy": "on-policy",
        "mixed": "mixed",
        "adaptive": "adaptive",
        "adaptive-off-policy": "adaptive, off-policy",
    }
    # adaptive and off-policy is DistiLLM itself, by whose name the main table knows the same run
    named = {("skl", "adaptive-off-policy"): "distillm-skl", ("srkl", "adaptive-off-policy"): "distillm"}
    rows = tuple(
        Row(
            f"{loss}-{source}",
            f"{LABELS[loss]}, {label}",
            {"dolly": arm_of(preset, named.get((loss, source), loss), "dolly", source)},
        )
        for loss in ("skl", "srkl")
        for source, label in sources.items()
    )
    return Table("2", "Use of student-generated outputs", rows, _instruction_columns(), published_for=_GPT2)


def _task_specific(preset: str) -> Table:
    pairs = {task: STUDENT_SIZES.get((preset, task), (own_models(preset, task),)) for task in TASKS}
    columns = tuple(
        Column(
            task if number == 0 else f"{task}-{number + 1}",
            label if len(pairs[task]) == 1 else f"{label}, {pairs[task][number]}",
            f"{task}/{pairs[task][number]}",
            task,
        )
        for task, label in TASKS.items()
        for number in range(len(pairs[task]))
    )
    rows = tuple(
        Row(
            method,
            LABELS[method],
            {
                f"{task}/{pair}": Arm(method, task, OWN_SOURCE[method], start(preset, method), pair)
                for task in TASKS
                for pair in pairs[task]
            },
        )
        for method in TASK_SPECIFIC
    )
    published_for = {"samsum": "t5-xl-to-t5-base", "iwslt": "mt5-xl-to-mt5-base"}
    return Table("3", "Task-specific distillation", rows, columns, published_for=published_for)


def _off_policy(preset: str) -> Table:
    # off-policy changes one thing only: the replay buffer takes the place of fresh outputs, at the same probability
    dolly = "dolly"
    moved = {
        "minillm": (
            arm_of(preset, "minillm"),
            arm_of(preset, "minillm", dolly, "off-policy", "sgo.probability=1.0"),
        ),
        "gkd": (arm_of(preset, "gkd"), arm_of(preset, "gkd", dolly, "off-policy")),
        "imitkd": (arm_of(preset, "imitkd"), arm_of(preset, "imitkd", dolly, "off-policy", "sgo.probability=1.0")),
        "distillm": (arm_of(preset, "srkl", dolly, "adaptive"), arm_of(preset, "distillm")),
    }
    rows = tuple(Row(name, LABELS[name], {"on-policy": on, "off-policy": off}) for name, (on, off) in moved.items())
    columns = tuple(Column(group, group, group, "dolly") for group in ("on-policy", "off-policy"))
    return Table("4", "Methods moved from on-policy to off-policy, on Dolly", rows, columns, published_for=_GPT2)


def _starts(preset: str) -> Table:
    starts: dict[Init, str] = {"sft": "SFT init student", "pretrained": "pretrained init student"}
    rows = tuple(
        Row(
            method,
            LABELS[method],
            {group: Arm(method, "dolly", OWN_SOURCE[method], group, own_models(preset, "dolly")) for group in starts},
        )
        for method in WITH_SGOS
    )
    columns = tuple(Column(group, label, group, "dolly") for group, label in starts.items())
    return Table("5", "With and without the fine-tuned start, on Dolly", rows, columns, published_for=_GPT2)


def _main(preset: str) -> Table:
    rows = tuple(Row(method, LABELS[method], {"dolly": arm_of(preset, method)}) for method in MAIN)
    caption = "All methods on the five instruction sets"
    return Table("main", caption, rows, _instruction_columns(), timed=True, published_for=_GPT2)
