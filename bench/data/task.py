"""What a task is: its columns, prompts, metrics and evaluation sets, and where its data is found.

A task file (`tasks/*.yaml`, or a user's own) holds the fields of `TaskSpec`; `bench.data.registry` reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from functools import cached_property
from string import Formatter
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from bench.metrics.registry import check_names, metric_identity
from bench.system.errors import did_you_mean
from bench.system.hashing import digest
from bench.system.hub import split_revision
from bench.system.names import Name as Label
from bench.system.names import inner_path, path_part
from bench.system.strict import StrictModel, later

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
"""The splits that every task has; evaluation-only sets come on top."""

CHAT = "chat"
"""Stands for a template's name where the tokenizer's chat template makes the prompts."""

Text = Annotated[str, Field(min_length=1)]
Folder = Annotated[Text, AfterValidator(inner_path)]
# strict validation takes no list for a tuple where a shorthand has been spelled out before
Texts = Annotated[tuple[Text, ...], Field(min_length=1, strict=False)]


Metrics = Annotated[Texts, AfterValidator(check_names)]
"""Names of metrics, or path/to/file.py:NAME each."""


def _plain(name: str) -> str:
    if not re.fullmatch(r"[\w-]+", name, re.ASCII):
        raise ValueError("use letters, digits, - and _")
    return path_part(name)


Name = Annotated[str, AfterValidator(_plain)]


class Column(StrictModel):
    """A field of a record; in a task file its name, or the fields below."""

    names: Texts = Field(description="the spellings accepted; a dot steps into a nested object")
    optional: bool = Field(default=False, description="whether a record may lack it or leave it blank")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"names": [value]} if isinstance(value, str) else value

    @cached_property
    def name(self) -> str:
        """The name used in templates and messages."""
        return self.names[0].rpartition(".")[2]

    @cached_property
    def paths(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Each spelling, with the keys that lead to it."""
        return tuple((name, tuple(name.split("."))) for name in self.names)


class Template(StrictModel):
    """A prompt as a format string over the prompt columns; in a task file that string, or the fields below."""

    text: str = Field(description="{column} stands for a column's text; a brace itself is doubled: {{")
    without_optional: str | None = Field(default=None, description="for records whose optional columns are all blank")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return {"text": value} if isinstance(value, str) else value


class SplitSizes(StrictModel):
    """How many records each split gets."""

    train: int = Field(gt=0)
    validation: int = Field(gt=0)
    test: int = Field(gt=0)


class HubFiles(StrictModel):
    """Records of files in a repository of the hub; in a task file their path, or the fields below."""

    path: Text = Field(description="within the repository; * and ? stand for parts of names")
    skip: int = Field(default=0, ge=0, description="leave out so many records at the beginning")
    first: int | None = Field(default=None, gt=0, description="take at most so many after those")

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: object) -> object:
        return {"path": value} if isinstance(value, str) else value


class _Repository(StrictModel):
    """A data set's repository on the hub; OWNER/NAME@REVISION as its id gives both."""

    id: Text = Field(description="OWNER/NAME or OWNER/NAME@REVISION")
    revision: str | None = Field(default=None, description="branch, tag or commit")

    @model_validator(mode="before")
    @classmethod
    def _split_id(cls, value: object) -> object:
        if not (isinstance(value, dict) and isinstance(value.get("id"), str) and "@" in value["id"]):
            return value
        name, revision = split_revision(value["id"])
        if revision is not None and value.get("revision") is not None:
            raise ValueError(f"the revision stands twice: in id ({revision}) and in revision ({value['revision']})")
        return {**value, "id": name, "revision": value.get("revision") if revision is None else revision}

    @property
    def pinned(self) -> str:
        """Id, with the revision if one was asked for."""
        return self.id if self.revision is None else f"{self.id}@{self.revision}"


class HubSource(_Repository):
    """A data set on the Hugging Face Hub."""

    config: str | None = Field(default=None, description="its configuration (subset)")
    files: dict[Split, HubFiles] | None = later(
        None, description="the records of each split, where the repository does not say so itself"
    )
    train_split_sizes: SplitSizes | None = Field(
        default=None, description="where it has a train split only: records of it for each of our splits, drawn by seed"
    )

    @model_validator(mode="after")
    def _files_of_all_splits(self) -> HubSource:
        if self.files is not None:
            if missing := [split for split in SPLITS if split not in self.files]:
                raise ValueError(f"files: {' and '.join(missing)} missing; each of {', '.join(SPLITS)} needs its own")
            if self.config is not None or self.train_split_sizes is not None:
                raise ValueError("files: not with config or train_split_sizes; the paths say what is read")
        return self

    @property
    def text(self) -> str:
        """What plain text is read of: id, revision, and the configuration where one was chosen."""
        return self.pinned if self.config is None else f"{self.pinned} ({self.config})"


class HubSet(_Repository):
    """An evaluation-only set on the Hugging Face Hub."""

    file: HubFiles = Field(description="its records")


class EvaluationOnlySet(StrictModel):
    """A set used for testing only, in the columns of its task."""

    name: Name
    folders: tuple[Folder, ...] = Field(min_length=1, description="folder names looked for, within the data folder")
    hub: HubSet | None = later(None, description="where it is on the hub")
    labels: dict[str, Label] = Field(
        default={},
        description="a pattern over FOLDER/FILE, and what scores on that file are called in tables; the first match "
        "counts (published subsets measure different things)",
    )

    def label(self, file: str) -> str:
        """The name of scores on `file`, a path relative to the data folder with forward slashes."""
        return next((label for pattern, label in self.labels.items() if fnmatch(file, pattern)), self.name)


class TaskSpec(StrictModel):
    """Everything the harness knows about a task."""

    name: Name = Field(description="letters, digits, - and _")
    metrics: Metrics = Field(
        description="names (`bench.metrics`) or path/to/file.py:NAME, relative to the task file; the first selects "
        "checkpoints and stands in tables"
    )
    messages: bool = Field(
        default=False,
        description="a chat set: records hold `messages` (role and content), the last by the assistant is the "
        "response, and the tokenizer's chat template makes the prompt",
    )
    prompt_columns: tuple[Column, ...] = Field(default=(), description="what the prompt is made of")
    response_column: Column | None = Field(
        default=None, description="the response: a text, or a list of accepted texts"
    )
    templates: dict[Name, Template] = Field(default={}, description="prompts by name")
    template: str | None = Field(default=None, description="the template for real data; none = the only one")
    synthetic_template: str | None = Field(
        default=None, description="the one for synthetic data; none = as for real data"
    )
    folders: tuple[Folder, ...] = Field(
        default=(), description="folder names looked for in a data folder; none = the name"
    )
    hub: HubSource | None = None
    evaluation_only: tuple[EvaluationOnlySet, ...] = Field(default=(), description="sets that are tested on only")

    @field_validator("evaluation_only")
    @classmethod
    def _sets_apart(cls, sets: tuple[EvaluationOnlySet, ...]) -> tuple[EvaluationOnlySet, ...]:
        taken: set[str] = set(SPLITS)
        for one in sets:
            if one.name in taken:
                raise ValueError(f"there is a split or set {one.name!r} already")
            taken.add(one.name)
        return sets

    @model_validator(mode="after")
    def _fits_together(self) -> TaskSpec:
        if problem := next(self._chat_problems() if self.messages else self._column_problems(), None):
            raise ValueError(problem)
        return self

    def _chat_problems(self) -> Iterator[str]:
        for key in ("prompt_columns", "response_column", "templates", "template", "synthetic_template"):
            if getattr(self, key):
                yield f"{key}: not with messages: true; the tokenizer's chat template makes the prompts"

    def _column_problems(self) -> Iterator[str]:
        for key in ("prompt_columns", "response_column", "templates"):
            if not getattr(self, key):
                yield f"{key}: is missing (a chat set with a column `messages` has messages: true instead)"
        names = [column.name for column in self.prompt_columns]
        if len(set(names)) < len(names):
            yield f"prompt_columns: two columns have one name: {', '.join(names)}"
        if self.template is None and len(self.templates) > 1:
            yield f"template: is missing; say which one is the default: {', '.join(self.templates)}"
        for key, chosen in (("template", self.template), ("synthetic_template", self.synthetic_template)):
            if chosen is not None and chosen not in self.templates:
                yield f"{key}: unknown template {chosen!r}: {did_you_mean(chosen, self.templates)}"
        required = [column.name for column in self.prompt_columns if not column.optional]
        for name, template in self.templates.items():
            for key, text, allowed in (
                ("text", template.text, names),
                ("without_optional", template.without_optional, required),
            ):
                if text is not None and (problem := _template_problem(text, allowed, required)):
                    yield f"templates.{name}.{key}: {problem}"

    @property
    def evaluation_sets(self) -> tuple[str, ...]:
        """Names of the evaluation-only sets."""
        return tuple(one.name for one in self.evaluation_only)

    @property
    def hub_sources(self) -> tuple[HubSource | HubSet, ...]:
        """All data sets on the hub that the task is made of."""
        given = (self.hub, *(one.hub for one in self.evaluation_only))
        return tuple(source for source in given if source is not None)

    @property
    def folder_names(self) -> tuple[str, ...]:
        """Folder names looked for in a data folder."""
        return self.folders or (self.name,)

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns that a record must have, in the order of messages to the user."""
        response = Column(names=("messages",)) if self.response_column is None else self.response_column
        return (*self.prompt_columns, response)

    @property
    def identity(self) -> str:
        """SHA-256 over the task and its own metrics' files: tasks with equal ones treat equal data alike."""
        content = self.model_dump_json(exclude={"metrics"})  # in the order of the file: the first label counts
        return digest([content, [metric_identity(name) for name in self.metrics]])

    def default_template(self, *, synthetic: bool) -> str:
        """The template for synthetic or for real data; `CHAT` for a chat set."""
        if self.messages:
            return CHAT
        chosen = self.synthetic_template if synthetic else None
        return chosen or self.template or next(iter(self.templates))


def _template_problem(text: str, allowed: list[str], required: list[str]) -> str | None:
    try:
        used = [field for _, field, _, _ in Formatter().parse(text) if field is not None]
    except ValueError as error:
        return f"{error}; write {{{{ and }}}} for braces that name no column"
    for field in used:
        if field not in allowed:
            return f"{{{field}}} is none of its columns: {did_you_mean(field, allowed)}; write {{{{ for a brace itself"
    return next((f"the prompt column {name!r} is not used: {{{name}}}" for name in required if name not in used), None)


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
