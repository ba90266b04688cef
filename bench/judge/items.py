"""What is judged: responses of a recorded run beside references, or beside another run's responses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from bench.config.sections import DataConfig
from bench.data import TaskData, task_of
from bench.experiment.examples import examples_of
from bench.judge.prompt_injection import suspicions
from bench.judge.queue import Question
from bench.judge.redaction import well_formed
from bench.record.record import RunRecord
from bench.record.store import Store
from bench.system.errors import BenchError, did_you_mean

PAPERS_SETS = ("test", "SelfInst", "selfinst", "Vicuna", "vicuna")
"""The evaluation sets that the paper has GPT-4 judge, by their names in records."""
PLAIN_TEMPLATE = "plain"
"""The prompt template that a judge is shown, where a task has several."""


@dataclass(frozen=True)
class Item:
    """A response and what it is judged against.

    Attributes:
        set: evaluation set.
        id: of the example.
        seed: decoding seed.
        prompt: of the example, without the marks of a model's prompt template.
        response: the run's.
        other: the reference, or the other run's response.
        other_is_run: which of the two.
    """

    set: str
    id: str
    seed: int
    prompt: str
    response: str
    other: str
    other_is_run: bool = False

    def question(self, swapped: bool, repeat: int) -> Question:
        """The item in one of its two orders."""
        first, second = (self.other, self.response) if swapped else (self.response, self.other)
        return Question(self.prompt, first, second, repeat)

    @cached_property
    def suspicions(self) -> tuple[str, ...]:
        """Patterns by which the run's response addresses the judge."""
        return suspicions(self.response)

    @cached_property
    def suspicions_against(self) -> tuple[str, ...]:
        """The same of the other run's response; references are trusted."""
        return suspicions(self.other) if self.other_is_run else ()

    @property
    def flagged(self) -> bool:
        """Whether either response addresses the judge."""
        return bool(self.suspicions or self.suspicions_against)


def chosen_sets(record: RunRecord, wanted: Sequence[str]) -> list[str]:
    """The evaluation sets to judge: those wanted, else for Dolly those of the paper and for other tasks all.

    Raises:
        BenchError: the run was not evaluated on a set that is wanted.
    """
    known = list(record.scores)
    for name in wanted:
        if name not in known:
            raise BenchError(f"--sets {name}: {record.run_id} was not evaluated on it: {did_you_mean(name, known)}")
    default = [name for name in known if name in PAPERS_SETS] if record.task == "dolly" else known
    return list(dict.fromkeys(wanted)) or default


def items_of(
    store: Store, record: RunRecord, against: RunRecord | None, sets: Sequence[str], seeds: int, limit: int | None
) -> list[Item]:
    """The items of a run, in the order of its predictions.

    Args:
        store: holds the predictions.
        record: the run.
        against: another run; None for the references.
        sets: evaluation sets.
        seeds: how many decoding seeds, the first ones.
        limit: at most so many examples of a set, the first ones.

    Raises:
        BenchError: the predictions hold no texts, the two runs have other examples, or the data is not that of the run.
    """
    examples = _examples(record)
    others = _texts(store, against) if against else None
    chosen: list[Item] = []
    for (name, seed, example), text in _texts(store, record).items():
        if name not in sets or seed not in _decoding_seeds(record)[:seeds]:
            continue
        prompt, reference = examples[name, example]
        if others is not None and (name, seed, example) not in others:
            assert against is not None
            raise BenchError(f"{against.run_id} has no response to {example} of {name} with decoding seed {seed}")
        other = reference if others is None else others[name, seed, example]
        chosen.append(Item(name, example, seed, prompt, text, other, other_is_run=others is not None))
    return list(_limited(chosen, limit))


def _limited(chosen: list[Item], limit: int | None) -> Iterator[Item]:
    kept: dict[str, set[str]] = {}
    for item in chosen:
        ids = kept.setdefault(item.set, set())
        if limit is None or item.id in ids or len(ids) < limit:
            ids.add(item.id)
            yield item


def _decoding_seeds(record: RunRecord) -> list[int]:
    return list(next(iter(record.scores.values())).primary.by_decoding_seed)


def _texts(store: Store, record: RunRecord) -> dict[tuple[str, int, str], str]:
    """The run's responses by set, decoding seed and example."""
    rows = store.predictions(record)
    if not rows or "prediction" not in rows[0]:
        raise BenchError(f"{record.run_id}: no texts are kept (packed by an earlier version?); judge the run itself")
    return {(row["set"], row["seed"], row["id"]): well_formed(row["prediction"]) for row in rows}


def _examples(record: RunRecord) -> dict[tuple[str, str], tuple[str, str]]:
    """Prompt and first reference by set, as records name it, and example."""
    task, config = record.config.task_file or record.task, record.config.data
    data = _loaded(task, config.model_dump_json())
    if data.fingerprint() != record.data.fingerprint:
        raise BenchError(
            f"{record.run_id}: the data of its configuration is not what it was made from (the fingerprint differs)"
        )
    if PLAIN_TEMPLATE in task_of(record.task, record.config.task_file).templates:
        data = _loaded(task, config.model_copy(update={"template": PLAIN_TEMPLATE}).model_dump_json())
    return {
        (data.label(split), example.id): (well_formed(example.prompt.strip()), well_formed(example.references[0]))
        for split, examples in data.splits.items()
        for example in examples
    }


@lru_cache(maxsize=8)
def _loaded(task: str, data: str) -> TaskData:
    """The examples of a task (a name or file) and a section `data` as JSON; runs judged together mostly share them."""
    return examples_of(task, DataConfig.model_validate_json(data))
