"""What loading a task yields: examples by split, and everything a record says about them."""

import hashlib
import json
from dataclasses import dataclass, field

from bench.system.errors import BenchError


class DataError(BenchError):
    """Data that is missing, malformed or unfit; names file and line where there is one."""


@dataclass(frozen=True)
class Example:
    """One prompt, template applied, with its accepted responses; `references[0]` is the one trained on."""

    id: str
    prompt: str
    references: tuple[str, ...]


@dataclass(frozen=True)
class TaskData:
    """A task's examples.

    Attributes:
        task: Name of the task.
        template: Name of the prompt template applied.
        source: "embedded (seed 0)", "folder PATH" or "hub NAME@REVISION".
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
        """SHA-256 (hex) over splits, ids, prompts and references: equal if and only if the examples are."""
        digest = hashlib.sha256()
        for split in sorted(self.splits):
            digest.update(json.dumps(["split", split]).encode())
            for example in self.splits[split]:
                digest.update(json.dumps([example.id, example.prompt, example.references]).encode())
        return digest.hexdigest()
