"""What is judged: responses of a recorded run beside references, or beside another run's responses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from bench.config.sections import DataConfig
from bench.data import TASKS, TaskData
from bench.experiment.examples import examples_of
from bench.judge.prompt_injection import suspicions
from bench.judge.redaction import well_formed
from bench.judge.runner import Question
from bench.record.store import Record, Store
from bench.system.errors import BenchError, did_you_mean

PAPERS_SETS = ("test", "SelfInst", "selfinst", "Vicuna", "vicuna")
"""The evaluation sets that the paper has GPT-4 judge, by their names in records."""
PLAIN = "plain"
"""The prompt template that a judge is shown, where a task has several."""


@dataclass(frozen=True)
class Item:
    """Two responses to one example: `response` is the run's, `other` the reference, or another run's if a `rival`."""

    set: str
    id: str
    seed: int
    prompt: str
    response: str
    other: str
    rival: bool = False

    def question(self, swapped: bool, repeat: int) -> Question:
        """The item in one of its two orders."""
        first, second = (self.other, self.response) if swapped else (self.response, self.other)
        return Question(self.prompt, first, second, repeat)

    @cached_property
    def suspicions(self) -> tuple[str, ...]:
        """What in the run's response speaks to the judge."""
        return suspicions(self.response)

    @cached_property
    def suspicions_against(self) -> tuple[str, ...]:
        """What in the other run's response does; references are trusted."""
        return suspicions(self.other) if self.rival else ()

    @property
    def flagged(self) -> bool:
        """Whether either response speaks to the judge."""
        return bool(self.suspicions or self.suspicions_against)


def chosen_sets(record: Record, wanted: Sequence[str]) -> list[str]:
    """The evaluation sets to judge; of Dolly those of the paper where none is named, of other tasks all.

    Raises:
        BenchError: the run was not evaluated on one.
    """
    there = list(record["scores"])
    for name in wanted:
        if name not in there:
            raise BenchError(f"--sets {name}: {record['run_id']} was not evaluated on it: {did_you_mean(name, there)}")
    own = [name for name in there if name in PAPERS_SETS] if record["config"]["task"] == "dolly" else there
    return list(dict.fromkeys(wanted)) or own


def items(
    store: Store, record: Record, against: Record | None, sets: Sequence[str], seeds: int, limit: int | None
) -> list[Item]:
    """The items of a run, in the order of its predictions.

    Args:
        store: holds the predictions.
        record: the run.
        against: another run; none = the references.
        sets: evaluation sets.
        seeds: so many decoding seeds, the first ones.
        limit: at most so many examples of a set, the first ones.

    Raises:
        BenchError: the predictions hold no texts, the two runs have other examples, or the data is not that of the run.
    """
    examples = _examples(record)
    others = _texts(store, against) if against else None
    taken: list[Item] = []
    for (name, seed, example), text in _texts(store, record).items():
        if name not in sets or seed not in _seeds(record)[:seeds]:
            continue
        prompt, reference = examples[name, example]
        if others is not None and (name, seed, example) not in others:
            assert against is not None
            raise BenchError(f"{against['run_id']} has no response to {example} of {name} with decoding seed {seed}")
        other = reference if others is None else others[name, seed, example]
        taken.append(Item(name, example, seed, prompt, text, other, rival=others is not None))
    return list(_limited(taken, limit))


def _limited(taken: list[Item], limit: int | None) -> Iterator[Item]:
    kept: dict[str, dict[str, None]] = {}
    for item in taken:
        ids = kept.setdefault(item.set, {})
        if limit is None or item.id in ids or len(ids) < limit:
            ids[item.id] = None
            yield item


def _seeds(record: Record) -> list[int]:
    return [int(seed) for seed in next(iter(record["scores"].values()))["by_decoding_seed"]]


def _texts(store: Store, record: Record) -> dict[tuple[str, int, str], str]:
    rows = store.predictions(record)
    if not rows or "prediction" not in rows[0]:
        raise BenchError(
            f"{record['run_id']}: its predictions hold no texts (packed runs do not); judge the run itself"
        )
    return {(row["set"], row["seed"], row["id"]): well_formed(row["prediction"]) for row in rows}


def _examples(record: Record) -> dict[tuple[str, str], tuple[str, str]]:
    """Prompt and first reference by set, as records name it, and example."""
    task, given = record["config"]["task"], DataConfig.model_validate(record["config"]["data"])
    data = _loaded(task, given.model_dump_json())
    if data.fingerprint() != record["data"]["fingerprint"]:
        raise BenchError(
            f"{record['run_id']}: the data of its configuration is not what it was made from (the fingerprint differs)"
        )
    if PLAIN in TASKS[task].templates:
        data = _loaded(task, given.model_copy(update={"template": PLAIN}).model_dump_json())
    return {
        (data.labels.get(split, split), one.id): (well_formed(one.prompt.strip()), well_formed(one.references[0]))
        for split, examples in data.splits.items()
        for one in examples
    }


@lru_cache(maxsize=8)
def _loaded(task: str, data: str) -> TaskData:
    """The examples of a configuration given as JSON; runs that are judged together mostly share one."""
    return examples_of(task, DataConfig.model_validate_json(data))
