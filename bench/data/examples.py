"""What loading a task yields: examples by split, and everything a record says about them."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from bench.system.errors import BenchError


class DataError(BenchError):
    """Data that is missing, malformed or unfit; names file and line where there is one."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; the role is "system", "user", "assistant" or what else a chat template knows."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt with its accepted responses.

    Attributes:
        id: unique in a split.
        prompt: the text, template applied; of a conversation its turns as readable text.
        references: the accepted responses; the first is the one trained on.
        messages: the conversation so far, of a chat set; the model is given this, through its tokenizer's chat
            template, and not `prompt`.
    """

    id: str
    prompt: str
    references: tuple[str, ...]
    messages: tuple[Message, ...] | None = None


@dataclass(frozen=True)
class TaskData:
    """A task's examples.

    Attributes:
        task: Name of the task.
        template: Name of the prompt template applied; "chat" where the tokenizer's is.
        source: "synthetic (seed 0)", "folder PATH" or "hub NAME@REVISION".
        splits: "train", "validation", "test" and the evaluation-only sets found; ids are unique in a split.
        notes: What a reader of the results should know: records skipped, overlaps, files chosen.
        overlap: Distinct prompts shared by two splits, for every pair ("train+test"), in the data returned.
        labels: The name under which scores on a split stand in tables, where it is not the split's own.
    """

    task: str
    template: str
    source: str
    splits: dict[str, tuple[Example, ...]]
    notes: tuple[str, ...]
    overlap: dict[str, int]
    labels: dict[str, str] = field(default_factory=dict)

    def label(self, split: str) -> str:
        """The name under which scores on `split` stand in tables."""
        return self.labels.get(split, split)

    def fingerprint(self) -> str:
        """SHA-256 (hex) over splits, ids, prompts, references and messages: equal if and only if the examples are."""
        digest = hashlib.sha256()
        for split in sorted(self.splits):
            digest.update(json.dumps(["split", split]).encode())
            for example in self.splits[split]:
                content: list[object] = [example.id, example.prompt, example.references]
                if example.messages is not None:
                    content.append([(message.role, message.content) for message in example.messages])
                digest.update(json.dumps(content).encode())
        return digest.hexdigest()


def references_hash(examples: Iterable[Example]) -> str:
    """SHA-256 (hex) over ids and references, in order: equal if and only if responses are scored against the same."""
    return hashlib.sha256(json.dumps([[one.id, one.references] for one in examples]).encode()).hexdigest()
