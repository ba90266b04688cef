"""`bench judge`: from a run to a recorded judgement, with every answer kept on the way."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import __version__
from bench.judge.answers import AnswerCache
from bench.judge.batches import Batches
from bench.judge.budget import Estimate, Prices, Purse, estimate
from bench.judge.client import Client, key_for
from bench.judge.items import Item, chosen_sets, items
from bench.judge.messages import Judge
from bench.judge.prompt_injection import PATTERNS
from bench.judge.protocol import Protocol
from bench.judge.runner import Court, Question, Reading, ask_all
from bench.judge.scores import ORDERS, Judged, by_set
from bench.judge.unpaid import Ledger
from bench.record.store import JUDGED, Record, Store
from bench.system.artifacts import default_root
from bench.system.errors import BenchError
from bench.system.files import write_json, write_jsonl_gz
from bench.system.hashing import digest

SCHEMA = 1


@dataclass(frozen=True)
class Options:
    """How runs are judged.

    Attributes:
        judge: who judges.
        protocol: `rating` beside the reference, or `pairwise` against another run.
        sets: evaluation sets; none = the paper's.
        seeds: so many decoding seeds.
        limit: at most so many examples of a set.
        repeats: independent judgements of each order.
        reasks: how often an answer that cannot be read is asked for again.
        prices: per million tokens; None if unknown.
        max_cost: what the questions may cost in all, earlier commands included, in the currency of the prices.
        concurrency: requests at once.
        timeout: seconds for an answer.
        retries: of a request that failed.
        resamples: of the bootstrap.
        batch: ask through the batch API.
        poll: seconds between two looks at a batch.

    Raises:
        BenchError: a limit of cost that is none, or without prices.
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
    resamples: int = 10_000
    batch: bool = False
    poll: float = 30.0

    def __post_init__(self) -> None:
        if self.max_cost is not None and self.prices is None:
            raise BenchError("--max-cost needs --prices IN,OUT (per million tokens), such as --prices 2.5,10")
        if self.max_cost is not None and not 0 <= self.max_cost < math.inf:
            raise BenchError(f"--max-cost {self.max_cost:g}: expected a number of 0 or more")


class Session:
    """Runs to judge, all with one judge and protocol.

    Args:
        store: holds the runs.
        records: the runs.
        against: the run to compare with, for `pairwise`.
        options: how.
        note: told what a user should know.

    Raises:
        BenchError: texts or data are missing, or runs that cannot be compared.
    """

    def __init__(
        self,
        store: Store,
        records: Sequence[Record],
        against: Record | None,
        options: Options,
        note: Callable[[str], None],
    ) -> None:
        self.store, self.against, self.options, self.note = store, against, options, note
        root = default_root()
        cache, ledger = AnswerCache(root, note), Ledger(root)
        self.court = Court(options.judge, options.protocol, cache, ledger, options.reasks)
        self.items: dict[str, list[Item]] = {}
        self.records = {record["run_id"]: record for record in records}
        for run_id, record in self.records.items():
            if against is not None:
                _check_comparable(record, against)
            sets = chosen_sets(record, options.sets)
            self.items[run_id] = items(store, record, against, sets, options.seeds, options.limit)

    @property
    def questions(self) -> list[Question]:
        """All of them: each item in both orders, each so many times."""
        return [
            item.question(swapped, repeat)
            for found in self.items.values()
            for item in found
            for swapped in ORDERS
            for repeat in range(self.options.repeats)
        ]

    def estimate(self) -> Estimate:
        """What is still to be asked, about what it will cost, and what is spent already."""
        questions, prices = self.questions, self.options.prices
        spent = self.court.spent(questions, prices)
        return estimate(len(dict.fromkeys(questions)), self.court.pending(questions), prices, spent)

    def ask(self, progress: Callable[[int, int], None]) -> None:
        """Have everything answered that is not yet.

        Raises:
            BenchError: no key, a server that cannot or will not answer, or a cost above the limit. Answers are kept.
        """
        options = self.options
        if not self.court.pending(self.questions):
            return
        key = key_for(options.judge)

        async def run() -> None:
            client = Client(options.judge, key, timeout=options.timeout, retries=options.retries, note=self.note)
            spent = self.court.spent(self.questions, options.prices)
            purse = Purse(self.court.ledger, options.prices, options.max_cost, spent)
            async with client.api:
                if options.batch:
                    root = default_root()
                    batches = Batches(self.court, client, root, purse, rounds=2, poll=options.poll, note=self.note)
                    await batches.ask_all(self.questions, progress)
                    return
                await ask_all(
                    self.court, client, self.questions, purse, concurrency=options.concurrency, progress=progress
                )

        asyncio.run(run())

    def record(self) -> dict[str, Path]:
        """Write a judgement beside each run; by run, its file. The same answers give the same bytes."""
        return {run_id: self._write(run_id) for run_id in self.items}

    def _write(self, run_id: str) -> Path:
        options, judged = self.options, []
        for item in self.items[run_id]:
            readings: dict[tuple[bool, int], Reading] = {}
            for swapped in ORDERS:
                for repeat in range(options.repeats):
                    reading = self.court.look(item.question(swapped, repeat))
                    assert isinstance(reading, Reading)
                    readings[swapped, repeat] = reading
            judged.append(Judged(item, readings))
        key = {
            "judge": options.judge.parameters | {"base_url": options.judge.base_url},
            "protocol": options.protocol.name,
            "prompt": options.protocol.fingerprint,
            "against": self.against["run_id"] if self.against else None,
            "sets": list(dict.fromkeys(one.item.set for one in judged)),
            "decoding_seeds": options.seeds,
            "limit": options.limit,
            "repeats": options.repeats,
        }
        answers = [answer for one in judged for reading in one.readings.values() for answer in reading.answers]
        found: dict[str, Any] = {
            "schema": SCHEMA,
            "run_id": run_id,
            "version": __version__,
            **key,
            "prompt_version": options.protocol.prompt["version"],
            "prompt_source": options.protocol.prompt["source"],
            "models_served": sorted({answer.model for answer in answers}),
            "asked": sorted({answer.received[:10] for answer in answers}),
            "answers": len(answers),
            "prompt_tokens": sum(answer.prompt_tokens or 0 for answer in answers),
            "completion_tokens": sum(answer.completion_tokens or 0 for answer in answers),
            "patterns": sorted(PATTERNS),
            "results": by_set(judged, options.protocol.name, options.resamples),
        }
        folder = self.store.folder(run_id) / JUDGED
        name = f"{options.protocol.name}-{_plain_name(options.judge.model)}-{digest(key)[:10]}"
        write_jsonl_gz(folder / f"{name}.jsonl.gz", (_row(one) for one in judged))
        write_json(folder / f"{name}.json", found)
        return folder / f"{name}.json"


def _row(one: Judged) -> dict[str, Any]:
    return {
        "set": one.item.set,
        "id": one.item.id,
        "seed": one.item.seed,
        "outcome": one.outcome.value,
        "pair": one.pair,
        "suspicions": one.item.suspicions,
        **({"suspicions_against": one.item.suspicions_against} if one.item.rival else {}),
        "readings": [
            {
                "response_shown": "second" if swapped else "first",
                "repeat": repeat,
                "outcome": reading.outcome.value,
                "verdict": reading.verdict,
                "answers": [answer.content for answer in reading.answers],
                "keys": reading.keys,
            }
            for (swapped, repeat), reading in one.readings.items()
        ],
    }


def _plain_name(model: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", model).strip("-.") or "model"


def _check_comparable(record: Record, against: Record) -> None:
    if record["run_id"] == against["run_id"]:
        raise BenchError(f"{record['run_id']} cannot be compared with itself")
    if record["comparison_key"] != against["comparison_key"]:
        from bench.analysis.compare import differences  # imports all that evaluates, which takes seconds

        found = "\n  ".join(differences(record["comparison_fields"], against["comparison_fields"]))
        raise BenchError(f"{record['run_id']} and {against['run_id']} cannot be compared; they differ in\n  {found}")
