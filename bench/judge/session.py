"""`bench judge` without its command line: from recorded runs to judgements beside them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import __version__
from bench.analysis.compare import check_comparable
from bench.judge.answers import AnswerCache
from bench.judge.batches import Batches
from bench.judge.budget import FREE, Budget, Estimate, Prices, estimated_prompt_tokens
from bench.judge.client import Client, key_for
from bench.judge.items import Item, chosen_sets, items_of
from bench.judge.messages import Judge
from bench.judge.prompt_injection import PATTERNS
from bench.judge.protocol import Protocol
from bench.judge.queue import JudgeQueue, Question, Reading
from bench.judge.results import SCHEMA, ItemRow, JudgeInfo, Judgement, ReadingRow, write
from bench.judge.runner import ask_all
from bench.judge.scores import ORDERS, JudgedItem, by_set
from bench.record.record import RunRecord
from bench.record.store import JUDGED, Store
from bench.system.artifacts import default_root
from bench.system.errors import BenchError


@dataclass(frozen=True)
class Options:
    """How runs are judged.

    Attributes:
        judge: the model that judges.
        protocol: `rating` beside the reference, or `pairwise` against another run.
        sets: evaluation sets; empty for the default ones.
        seeds: how many decoding seeds.
        limit: at most so many examples of a set.
        repeats: independent judgements of each order.
        reasks: how often a question is asked again whose answer cannot be read.
        prices: per million tokens; None if unknown.
        max_cost: limit of what the questions cost in all, earlier commands included; in the currency of the prices.
        concurrency: requests at once.
        timeout: seconds for an answer.
        retries: how often a failed request is repeated.
        batch: whether to ask through the batch API.
        poll: seconds between two looks at a batch.

    Raises:
        BenchError: `max_cost` is no amount, or comes without prices.
    """

    judge: Judge
    protocol: Protocol
    sets: tuple[str, ...] = ()
    seeds: int = 1
    limit: int | None = None
    repeats: int = 1
    reasks: int = 2
    prices: Prices | None = None
    max_cost: float | None = None
    concurrency: int = 8
    timeout: float = 60.0
    retries: int = 8
    batch: bool = False
    poll: float = 30.0

    def __post_init__(self) -> None:
        if self.max_cost is not None and self.prices is None:
            raise BenchError("--max-cost needs --prices IN,OUT (per million tokens), such as --prices 2.5,10")
        if self.max_cost is not None and not 0 <= self.max_cost < math.inf:
            raise BenchError(f"--max-cost {self.max_cost:g}: expected a number of 0 or more")


class Session:
    """Runs to judge, all by one judge under one protocol.

    Args:
        store: holds the runs.
        records: the runs.
        against: the run to compare with, for `pairwise`.
        options: how to judge.
        note: receives messages for the user.

    Raises:
        BenchError: texts or data are missing, or two runs cannot be compared.
    """

    def __init__(
        self,
        store: Store,
        records: Sequence[RunRecord],
        against: RunRecord | None,
        options: Options,
        note: Callable[[str], None],
    ) -> None:
        self.store, self.against, self.options, self.note = store, against, options, note
        self.prices = options.prices or FREE
        self.queue = JudgeQueue(options.judge, options.protocol, AnswerCache(default_root(), note), options.reasks)
        self.items: dict[str, list[Item]] = {}
        for record in records:
            if against is not None:
                if record.run_id == against.run_id:
                    raise BenchError(f"{record.run_id} cannot be compared with itself")
                check_comparable(record, against)
            sets = chosen_sets(record, options.sets)
            self.items[record.run_id] = items_of(store, record, against, sets, options.seeds, options.limit)

    @property
    def questions(self) -> list[Question]:
        """Every item in both orders, each as often as `repeats` says."""
        return [
            item.question(swapped, repeat)
            for items in self.items.values()
            for item in items
            for swapped in ORDERS
            for repeat in range(self.options.repeats)
        ]

    def estimate(self) -> Estimate:
        """What is still to be asked, about what that will cost, and what was spent so far."""
        questions = list(dict.fromkeys(self.questions))
        pending = self.queue.pending(questions)
        prompts = sum(map(estimated_prompt_tokens, pending))
        completions = sum(request.max_tokens for request in pending)
        known = self.options.prices is not None
        return Estimate(
            answers=len(questions),
            kept=len(questions) - len(pending),
            prompt_tokens=prompts,
            completion_tokens=completions,
            cost=self.prices.cost(prompts, completions) if known else None,
            spent=self.queue.spent(questions, self.prices) if known else None,
        )

    def ask(self, progress: Callable[[int, int], None]) -> None:
        """Have every question answered that is not answered yet.

        Args:
            progress: called with the number of questions done and their total.

        Raises:
            BenchError: no key, a server that cannot or will not answer, or a cost above the limit. Answers are kept.
        """
        options, questions = self.options, self.questions
        if not self.queue.pending(questions):
            return
        key = key_for(options.judge)

        async def run() -> None:
            client = Client(options.judge, key, timeout=options.timeout, retries=options.retries, note=self.note)
            spent = self.queue.spent(questions, self.prices)
            budget = Budget(self.queue.answers, self.prices, options.max_cost, spent)
            async with client.api:
                if options.batch:
                    await Batches(self.queue, client, budget, poll=options.poll).ask_all(questions, progress)
                else:
                    concurrency = options.concurrency
                    await ask_all(self.queue, client, questions, budget, concurrency=concurrency, progress=progress)

        asyncio.run(run())

    def write(self) -> dict[Path, Judgement]:
        """Write a judgement beside each run, once all is answered; by file. The same answers give the same bytes.

        Raises:
            BenchError: a folder cannot be written.
        """
        written: dict[Path, Judgement] = {}
        for run_id, items in self.items.items():
            judged = [self._judged(item) for item in items]
            judgement = self._judgement(run_id, judged)
            path = write(self.store.folder(run_id) / JUDGED, judgement, map(_row, judged))
            written[path] = judgement
        return written

    def _judged(self, item: Item) -> JudgedItem:
        readings: dict[tuple[bool, int], Reading] = {}
        for swapped in ORDERS:
            for repeat in range(self.options.repeats):
                reading = self.queue.resolve(item.question(swapped, repeat))
                assert isinstance(reading, Reading)
                readings[swapped, repeat] = reading
        return JudgedItem(item, readings)

    def _judgement(self, run_id: str, items: list[JudgedItem]) -> Judgement:
        options, prompt = self.options, self.options.protocol.prompt
        answers = [answer for judged in items for reading in judged.readings.values() for answer in reading.answers]
        return Judgement(
            schema=SCHEMA,
            run_id=run_id,
            version=__version__,
            judge=JudgeInfo(**options.judge.parameters.model_dump(exclude_none=True), base_url=options.judge.base_url),
            protocol=options.protocol.name,
            prompt=prompt.fingerprint,
            against=self.against.run_id if self.against else None,
            sets=list(dict.fromkeys(judged.item.set for judged in items)),
            decoding_seeds=options.seeds,
            limit=options.limit,
            repeats=options.repeats,
            prompt_version=prompt.version,
            prompt_source=prompt.source,
            models_served=sorted({answer.model for answer in answers}),
            asked=sorted({answer.received[:10] for answer in answers}),
            answers=len(answers),
            prompt_tokens=sum(answer.prompt_tokens or 0 for answer in answers),
            completion_tokens=sum(answer.completion_tokens or 0 for answer in answers),
            patterns=sorted(PATTERNS),
            results=by_set(items, options.protocol.name),
        )


def _row(judged: JudgedItem) -> ItemRow:
    item = judged.item
    against = {"suspicions_against": list(item.suspicions_against)} if item.other_is_run else {}
    return ItemRow(
        set=item.set,
        id=item.id,
        seed=item.seed,
        outcome=judged.outcome,
        pair=judged.pair,
        suspicions=list(item.suspicions),
        **against,
        readings=[
            ReadingRow(
                response_shown="second" if swapped else "first",
                repeat=repeat,
                outcome=reading.outcome,
                verdict=reading.verdict,
                answers=[answer.content for answer in reading.answers],
                keys=list(reading.keys),
            )
            for (swapped, repeat), reading in judged.readings.items()
        ],
    )
