"""The paper's tables: which runs stand in which row and column.

A table's cell is the score of a run spec's runs on one evaluation set. `tables(preset)` settles every spec for the
preset, so that equal specs of two tables are the same runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from bench.data import find_task
from bench.metrics.registry import find_metric
from distillm.interface import Init
from paper_tables.paper.methods import LOSSES, METHOD_LABELS, OUTPUT_SOURCES, SKEWED_LOSSES
from paper_tables.paper.run_spec import RunSpec, default_init, default_models, default_run

MAIN_METHODS = (
    *("sft", "kld", "rkld", "jsd", "tvd", "seqkd", "imitkd", "gkd", "minillm"),
    *("skl", "srkl", "distillm-skl", "distillm"),
)
TASK_SPECIFIC_METHODS = ("sft", "kld", "seqkd", "imitkd", "gkd", "minillm", "distillm")
STUDENT_OUTPUT_METHODS = ("minillm", "gkd", "imitkd", "distillm")
INSTRUCTION_SETS = {
    "dolly": ("Dolly", ("test",)),
    "selfinst": ("SelfInst", ("SelfInst", "selfinst")),
    "vicuna": ("Vicuna", ("Vicuna", "vicuna")),
    "sinst": ("S-NI", ("S-NI", "sinst")),
    "uinst": ("UnNI", ("UnNI", "uinst")),
}
"""Label, and the names that records may have for it, of each evaluation set of instruction following."""
INIT_STUDENTS: Mapping[Init, str] = {"sft": "SFT init student", "pretrained": "pretrained init student"}
TASK_LABELS = {"samsum": "SAMSum", "iwslt": "IWSLT En-De"}
STUDENT_SIZES = {
    ("paper", "samsum"): ("t5-xl-to-t5-base", "t5-xl-to-t5-small"),
    ("paper", "iwslt"): ("mt5-xl-to-mt5-base", "mt5-xl-to-mt5-small"),
    ("tiny", "samsum"): ("tiny-t5", "tiny-t5-small"),
    ("tiny", "iwslt"): ("tiny-marian", "tiny-marian-small"),
}
"""Model pairs of Table 3, by preset and task, where there is more than the preset's own."""
TABLE_NAMES = ("1", "2", "3", "4", "5", "main")


@dataclass(frozen=True)
class Row:
    """A row of a table: its run spec in each of the table's groups of columns.

    Attributes:
        name: unique in the table.
        label: what is printed.
        specs: by group of columns.
        value: what a row of an ablation varies, where that is a number.
    """

    name: str
    label: str
    specs: Mapping[str, RunSpec]
    value: float | None = None


@dataclass(frozen=True)
class Column:
    """A column: one evaluation set.

    Attributes:
        name: unique in the table.
        label: what is printed.
        group: the run specs it shows, among those of each row.
        task: of these.
        sets: the names that records may have for the evaluation set; the first found counts.
        has_published: the table's published values are of this column's models.
    """

    name: str
    label: str
    group: str
    task: str
    sets: tuple[str, ...] = ("test",)
    has_published: bool = True


@dataclass(frozen=True)
class Table:
    """One table of the paper, or an ablation.

    Attributes:
        name: what the command line takes.
        caption: what it shows.
        rows: from the top.
        columns: from the left.
        timed: it has a column of training time relative to the row `kld`.
        published_for: by task, the model pair whose published values stand beside the measured ones.
        note: what else a reader of the measured values should know.
    """

    name: str
    caption: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    timed: bool = False
    published_for: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def file(self) -> str:
        """The beginning of its files' names."""
        return f"table{self.name}" if self.name.isdigit() else self.name

    @property
    def title(self) -> str:
        """Its number, or what stands for one: "Table 1", "Main table", "Appendix"."""
        return f"Table {self.name}" if self.name.isdigit() else "Main table" if self.name == "main" else "Appendix"

    @property
    def row_labels(self) -> dict[str, str]:
        """What readers see of each row, by its name."""
        return {row.name: row.label for row in self.rows}

    @property
    def column_labels(self) -> dict[str, str]:
        """What readers see of each column, by its name."""
        return {column.name: column.label for column in self.columns}

    @property
    def specs(self) -> tuple[RunSpec, ...]:
        """Every run spec it needs, each once."""
        return tuple(dict.fromkeys(spec for row in self.rows for spec in row.specs.values()))


@cache
def tables(preset: str) -> Mapping[str, Table]:
    """All tables by name, with the runs of a preset: a shipped one's name, or a user's file.

    Raises:
        BenchError: no such preset.
    """
    made = (_losses, _output_sources, _task_specific, _off_policy, _init_students, _main)
    return dict(zip(TABLE_NAMES, (make(preset) for make in made), strict=True))


def metric_label(task: str) -> str:
    """The label of the metric that a task's tables show."""
    return find_metric(find_task(task).metrics[0]).label


def _instruction_columns() -> tuple[Column, ...]:
    return tuple(Column(name, label, "dolly", "dolly", sets) for name, (label, sets) in INSTRUCTION_SETS.items())


_GPT2 = {"dolly": "gpt2-xl-to-gpt2"}


def _losses(preset: str) -> Table:
    # one init student for all, also where their papers differ in it: the loss alone is compared
    models = default_models(preset, "dolly")
    rows = tuple(
        Row(loss, METHOD_LABELS[loss], {"dolly": RunSpec(loss, "dolly", "dataset", "sft", models)}) for loss in LOSSES
    )
    return Table("1", "Loss functions on fixed data", rows, _instruction_columns(), published_for=_GPT2)


def _output_sources(preset: str) -> Table:
    labels = {
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
            f"{METHOD_LABELS[loss]}, {label}",
            {
                "dolly": default_run(preset, named[loss, source], "dolly", source)
                if (loss, source) in named
                else _as_distillm(preset, loss, source)
            },
        )
        for loss in SKEWED_LOSSES
        for source, label in labels.items()
    )
    return Table("2", "Use of student-generated outputs", rows, _instruction_columns(), published_for=_GPT2)


def _as_distillm(preset: str, loss: str, source: str) -> RunSpec:
    """A skewed loss on Dolly with another output source than DistiLLM's, and all else as DistiLLM has it."""
    found = default_run(preset, loss, "dolly", source)
    weight = default_run(preset, "distillm").config(preset).plain_text.weight
    if found.config(preset).plain_text.weight == weight:
        return found
    return replace(found, options=(f"plain_text.weight={weight:g}",))


def _task_specific(preset: str) -> Table:
    pairs = {task: STUDENT_SIZES.get((preset, task), (default_models(preset, task),)) for task in TASK_LABELS}
    columns = tuple(
        Column(
            name=task if number == 0 else f"{task}-{number + 1}",
            label=f"{label} ({metric_label(task)})" + (f", {pair}" if len(pairs[task]) > 1 else ""),
            group=f"{task}/{pair}",
            task=task,
            has_published=number == 0,
        )
        for task, label in TASK_LABELS.items()
        for number, pair in enumerate(pairs[task])
    )
    rows = tuple(
        Row(
            method,
            METHOD_LABELS[method],
            {
                f"{task}/{pair}": RunSpec(method, task, OUTPUT_SOURCES[method], default_init(preset, method), pair)
                for task in TASK_LABELS
                for pair in pairs[task]
            },
        )
        for method in TASK_SPECIFIC_METHODS
    )
    published_for = {"samsum": "t5-xl-to-t5-base", "iwslt": "mt5-xl-to-mt5-base"}
    return Table("3", "Task-specific distillation", rows, columns, published_for=published_for)


def _off_policy(preset: str) -> Table:
    # off-policy changes one thing only: the replay buffer takes the place of fresh outputs, at the same probability.
    # MiniLLM's rounds, each trained on for some epochs, are no fresh outputs: they generate a quarter of the batches,
    # the buffer half of them. So it is fresh for every batch here, and its on-policy run is not that of other tables.
    dolly = "dolly"
    always = "sgo.probability=1.0"
    moved = {
        "minillm": (
            default_run(preset, "minillm", dolly, "on-policy"),
            default_run(preset, "minillm", dolly, "off-policy", always),
        ),
        "gkd": (default_run(preset, "gkd"), default_run(preset, "gkd", dolly, "off-policy")),
        "imitkd": (default_run(preset, "imitkd"), default_run(preset, "imitkd", dolly, "off-policy", always)),
        "distillm": (_as_distillm(preset, "srkl", "adaptive"), default_run(preset, "distillm")),
    }
    rows = tuple(
        Row(name, METHOD_LABELS[name], {"on-policy": on, "off-policy": off}) for name, (on, off) in moved.items()
    )
    columns = tuple(Column(group, group, group, dolly) for group in ("on-policy", "off-policy"))
    caption = "Methods moved from on-policy to off-policy, on Dolly"
    note = (
        "MiniLLM on-policy is fresh for every batch here, not in rounds as in other tables: the buffer alone differs."
    )
    return Table("4", caption, rows, columns, published_for=_GPT2, note=note)


def init_student_rows(preset: str, methods: tuple[str, ...]) -> tuple[Row, ...]:
    """A row for each method, with a column for each init student."""
    models = default_models(preset, "dolly")
    return tuple(
        Row(
            method,
            METHOD_LABELS[method],
            {str(init): RunSpec(method, "dolly", OUTPUT_SOURCES[method], init, models) for init in INIT_STUDENTS},
        )
        for method in methods
    )


def _init_students(preset: str) -> Table:
    rows = init_student_rows(preset, STUDENT_OUTPUT_METHODS)
    columns = tuple(Column(init, label, init, "dolly") for init, label in INIT_STUDENTS.items())
    return Table("5", "With and without an SFT init student, on Dolly", rows, columns, published_for=_GPT2)


def _main(preset: str) -> Table:
    rows = tuple(Row(method, METHOD_LABELS[method], {"dolly": default_run(preset, method)}) for method in MAIN_METHODS)
    caption = "All methods on the five instruction sets"
    return Table("main", caption, rows, _instruction_columns(), timed=True, published_for=_GPT2)
