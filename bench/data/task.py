"""The tasks as data: columns, prompt templates, metric, evaluation sets and where each is found.

To add a task, add one `TaskSpec` to `TASKS`; reading, checking and splitting follow from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch

SPLITS = ("train", "validation", "test")
"""The splits that every task has; evaluation-only sets come on top."""


@dataclass(frozen=True)
class Column:
    """A field of a record; `names` are the spellings accepted, a dot stepping into a nested object."""

    names: tuple[str, ...]
    optional: bool = False

    @property
    def name(self) -> str:
        """The name used in templates and messages."""
        return self.names[0].rpartition(".")[2]


@dataclass(frozen=True)
class Template:
    """A prompt as a format string over the prompt columns.

    `without_optional` is used for records whose optional columns are all blank.
    """

    text: str
    without_optional: str | None = None


@dataclass(frozen=True)
class HubSource:
    """A data set on the Hugging Face Hub.

    `train_split_sizes` is for data sets that publish only a train split: how many of its records each of our
    splits gets, drawn by seed.
    """

    id: str
    config: str | None = None
    revision: str | None = None
    train_split_sizes: Mapping[str, int] | None = None


@dataclass(frozen=True)
class EvaluationSet:
    """A set used for testing only, in the columns of its task.

    `folders` are the folder names looked for; `labels` maps a pattern over "folder/file" to the name that
    scores on that file carry in tables, the first match counting (published subsets measure different things).
    """

    name: str
    folders: tuple[str, ...]
    labels: tuple[tuple[str, str], ...] = ()

    def label(self, file: str) -> str:
        """The name of scores on `file`, a path relative to the data folder with forward slashes."""
        return next((label for pattern, label in self.labels if fnmatch(file, pattern)), self.name)


@dataclass(frozen=True)
class TaskSpec:
    """Everything the harness knows about a task.

    `template` is the default key of `templates` for real data, `embedded_template` for the embedded data.
    """

    name: str
    metrics: tuple[str, ...]
    prompt_columns: tuple[Column, ...]
    response_column: Column
    templates: Mapping[str, Template]
    template: str
    embedded_template: str
    folders: tuple[str, ...]
    hub: HubSource
    extra_sets: tuple[EvaluationSet, ...] = ()

    @property
    def evaluation_sets(self) -> tuple[str, ...]:
        """Names of the evaluation-only sets."""
        return tuple(extra.name for extra in self.extra_sets)


def format_prompt(spec: TaskSpec, template: str, values: Mapping[str, str]) -> str:
    """Fill in a prompt template: the only place where prompts are made, for training and evaluation alike.

    Args:
        spec: The task.
        template: A key of `spec.templates`.
        values: Text of each prompt column by `Column.name`, inserted as it is.
    """
    chosen = spec.templates[template]
    optional = [values[column.name] for column in spec.prompt_columns if column.optional]
    if chosen.without_optional is not None and not any(text.strip() for text in optional):
        return chosen.without_optional.format_map(values)
    return chosen.text.format_map(values)


# The wording that MiniLLM and DistiLLM train GPT-2, OPT and OpenLLaMA with (after Alpaca, Taori et al. 2023).
_ALPACA_HEAD = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n"
)

DOLLY = TaskSpec(
    name="dolly",
    metrics=("rouge_l",),
    prompt_columns=(Column(("instruction",)), Column(("context", "input"), optional=True)),
    response_column=Column(("response", "output")),
    templates={
        "alpaca": Template(_ALPACA_HEAD + "### Input:\n{context}\n\n### Response:\n", _ALPACA_HEAD + "### Response:\n"),
        "compact": Template("{instruction}\n{context}\n=>", "{instruction}\n=>"),
        # what a judge is shown: the request without the marks that a model is trained to answer to
        "plain": Template("{instruction}\n\n{context}", "{instruction}"),
    },
    template="alpaca",
    embedded_template="compact",
    folders=("dolly", "databricks-dolly-15k"),
    # the sizes of the split of MiniLLM (Gu et al. 2024), which itself is not on the hub
    hub=HubSource(
        "databricks/databricks-dolly-15k",
        train_split_sizes={"train": 11_435, "validation": 1_000, "test": 500},
    ),
    extra_sets=(
        EvaluationSet("selfinst", ("selfinst", "self_instruct", "self-inst"), (("*", "SelfInst"),)),
        EvaluationSet("vicuna", ("vicuna",), (("*", "Vicuna"),)),
        EvaluationSet("sinst", ("sinst", "sinst/11_"), (("*11_*", "S-NI"),)),
        # "UnNI" is the slice with references of 11 tokens and more; scores on short answers are not comparable
        EvaluationSet("uinst", ("uinst", "uinst/11_"), (("*short*", "uinst-short"), ("*11_*", "UnNI"))),
    ),
)

SAMSUM = TaskSpec(
    name="samsum",
    metrics=("rouge_l",),
    prompt_columns=(Column(("dialogue",)),),
    response_column=Column(("summary",)),
    templates={"t5": Template("summarize: {dialogue}")},
    template="t5",
    embedded_template="t5",
    folders=("samsum",),
    hub=HubSource("knkarthick/samsum"),
)

IWSLT = TaskSpec(
    name="iwslt",
    metrics=("bleu",),
    prompt_columns=(Column(("translation.en", "en")),),
    response_column=Column(("translation.de", "de")),
    templates={"t5": Template("translate English to German: {en}")},
    template="t5",
    embedded_template="t5",
    folders=("iwslt", "iwslt2017", "iwslt2017_en_de", "iwslt2017-en-de"),
    # the main branch holds a loading script, which `datasets` no longer runs; this is the hub's conversion
    hub=HubSource("IWSLT/iwslt2017", config="iwslt2017-en-de", revision="refs/convert/parquet"),
)

TASKS: dict[str, TaskSpec] = {spec.name: spec for spec in (DOLLY, SAMSUM, IWSLT)}
"""Every task by name."""
