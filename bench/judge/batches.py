"""Questions through the batch API: half the price at OpenAI's, answers within a day.

What was sent is written down before it is sent, so that a process that is killed finds its batches again: nothing is
paid for twice.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import openai

from bench.judge.answers import held
from bench.judge.budget import Purse
from bench.judge.client import Client, no_answer, now, said_by, turned_down_for
from bench.judge.messages import MalformedAnswer, Request, answer_from
from bench.judge.protocol import Outcome
from bench.judge.redaction import without_key
from bench.judge.runner import Court, Question
from bench.system.errors import BenchError
from bench.system.files import read_json, write_json
from bench.system.hashing import digest

FOLDER = "judge-batches"
TAG = "distillm_bench"
LARGEST = 20_000  # requests of one batch; OpenAI takes 50,000 and 200 MB
_ENDED = ("completed", "failed", "expired", "cancelled")


class _Failed(BenchError):
    """A batch that the server found to be none, and will never answer."""


class Batches:
    """Sends what is pending as batches and waits for them.

    Args:
        court: holds the answers.
        client: reaches the server.
        root: the artifact cache's folder; batches under way are noted in its sub-folder `judge-batches`.
        purse: pays.
        rounds: how often what failed is sent again.
        poll: seconds between two looks at a batch.
        note: told what a user should know.
    """

    def __init__(
        self,
        court: Court,
        client: Client,
        root: Path,
        purse: Purse,
        *,
        rounds: int,
        poll: float,
        note: Callable[[str], None],
    ) -> None:
        self.court, self.client, self.purse = court, client, purse
        self.rounds, self.poll, self.note = rounds, poll, note
        self.folder = root / FOLDER
        self._sent: set[str] = set()
        self._rejected: set[str] = set()
        self._said = ""

    async def ask_all(self, questions: Iterable[Question], progress: Callable[[int, int], None]) -> None:
        """Have every question answered.

        Raises:
            BenchError: the server refuses, or does not recover, or the purse is empty. What it did answer is kept.
        """
        asked = list(dict.fromkeys(questions))
        async with self._alone():
            try:
                await self._ask_all(asked, progress)
            except openai.APIStatusError as error:
                said = said_by(error.body) or error.response.reason_phrase
                raise self.client.refusal(error.status_code, said) from None

    async def _ask_all(self, asked: list[Question], progress: Callable[[int, int], None]) -> None:
        fruitless, answered = 0, 0
        while True:
            await self._collect(progress, len(asked))
            pending = self._without_rejected(asked)
            progress(len(asked) - len(pending), len(asked))
            if not pending:
                return
            before, answered = answered, sum(self.court.cache.get(key) is not None for key in self._sent)
            fruitless = fruitless + 1 if self._sent and answered == before else 0
            if fruitless > self.rounds:
                last = f", last with {self._said}" if self._said else ""
                raise BenchError(
                    f"{len(pending)} questions failed in {fruitless} batches in a row{last}. Answers are kept"
                )
            affordable = list(self._affordable(asked, pending))
            for start in range(0, len(affordable), LARGEST):
                await self._send(affordable[start : start + LARGEST])

    def _without_rejected(self, asked: list[Question]) -> list[Request]:
        """What is pending, less what the server turned down without a reason, if it answers other questions."""
        pending = self.court.pending(asked)
        if not self._rejected or len(pending) == len(asked):
            return pending
        self.note(f"{len(self._rejected)} questions count as rejected, the last of them because of {self._said}")
        for key in self._rejected:
            self.court.cache.remember(key, no_answer(Outcome.REJECTED, self.client.judge.model))
        self._rejected.clear()
        return self.court.pending(asked)

    def _affordable(self, asked: list[Question], pending: list[Request]) -> Iterator[Request]:
        """The first requests that can be paid for, whatever becomes of them."""
        self.purse.spent = self.court.spent(asked, self.purse.prices)
        if not self.purse.fits(pending[0]):
            raise self.purse.empty()
        for request in pending:
            if not self.purse.fits(request):
                return
            self.purse.spent += self.purse.most(request)
            yield request

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Keep other processes from sending to this server what this one has sent or is about to send."""
        path = self.folder / f"{digest(self.client.judge.base_url)[:16]}.lock"

        def waiting() -> None:
            self.note("another process has batches under way at this server; waiting for it")

        async with held(path, min(self.poll, 1.0), waiting):
            yield

    async def _send(self, requests: list[Request]) -> None:
        token = uuid.uuid4().hex
        noted = self.folder / f"{token}.json"
        plain = {"base_url": self.client.judge.base_url, "requests": {r.key: r.plain for r in requests}}
        write_json(noted, plain | {"batch": None})
        lines = (
            {"custom_id": r.key, "method": "POST", "url": "/v1/chat/completions", "body": r.body} for r in requests
        )
        data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        api = self.client.api
        file = await self.client.call(lambda: api.files.create(file=("questions.jsonl", data), purpose="batch"))
        tries = 0

        async def create() -> str:
            nonlocal tries
            tries += 1
            if tries > 1 and (there := await self._find(token)):  # begun, though its answer was lost
                return there
            batch = await api.batches.create(
                input_file_id=file.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={TAG: token},
            )
            return batch.id

        batch_id = await self.client.call(create)
        write_json(noted, plain | {"batch": batch_id})
        self._sent.update(request.key for request in requests)
        self.note(
            f"batch {batch_id} with {len(requests)} questions is under way; if this stops, the same command waits on"
        )

    async def _collect(self, progress: Callable[[int, int], None], total: int) -> None:
        """Wait for the batches noted for this server, and keep their answers."""
        for noted in sorted(self.folder.glob("*.json")):
            written = self._noted(noted)
            if written is None or written["base_url"] != self.client.judge.base_url:
                continue
            batch_id = written["batch"] or await self.client.call(partial(self._find, noted.stem))
            try:
                if batch_id is not None:
                    await self._wait_for(batch_id, written["requests"], progress, total)
            except openai.NotFoundError:
                self.note(f"the server knows nothing of batch {batch_id} any more; its questions are asked again")
            except _Failed:
                noted.unlink(missing_ok=True)
                raise
            noted.unlink(missing_ok=True)

    def _noted(self, path: Path) -> dict[str, Any] | None:
        try:
            written = read_json(path)
            return {name: written[name] for name in ("base_url", "requests", "batch")}
        except (OSError, ValueError, TypeError, KeyError):
            self.note(f"{path} is damaged and left out; batches are listed at the server too")
            return None

    async def _find(self, token: str) -> str | None:
        """A batch that was sent by a process that never heard of its id."""
        async for batch in self.client.api.batches.list(limit=100):
            if (batch.metadata or {}).get(TAG) == token:
                return batch.id
        return None

    async def _wait_for(
        self, batch_id: str, requests: dict[str, Any], progress: Callable[[int, int], None], total: int
    ) -> None:
        api = self.client.api
        while (batch := await self.client.call(partial(api.batches.retrieve, batch_id))).status not in _ENDED:
            done = batch.request_counts.completed if batch.request_counts else 0
            progress(total - len(requests) + done, total)
            await asyncio.sleep(self.poll)
        files = [file for file in (batch.output_file_id, batch.error_file_id) if file]
        seen: set[str] = set()
        for name in files:
            content = await self.client.call(partial(api.files.content, name))
            for line in content.content.decode("utf-8", "replace").split("\n"):
                seen.add(self._keep(line, requests))
        if batch.status == "failed" and not files:
            errors = batch.errors.data if batch.errors and batch.errors.data else []
            said = "; ".join(str(error.message) for error in errors) or "no reason given"
            raise _Failed(f"the judge at {self.client.judge.base_url} refused the batch: {self.client.hide(said)}")
        if batch.status == "completed":
            for key in requests.keys() - seen:  # on a line that was cut, or on none: perhaps paid for
                self.court.ledger.add(key)

    def _keep(self, text: str, requests: dict[str, Any]) -> str:
        """Keep one line's answer, and tell whose it is; a question that failed stays pending."""
        try:
            line = json.loads(text)
            key, response = line["custom_id"], line.get("response") or {}
            body, status = without_key(response.get("body"), self.client.key), response.get("status_code")
        except (ValueError, TypeError, KeyError, AttributeError):
            return ""
        if key not in requests:
            return ""
        if status == 200:
            try:
                answer = answer_from(body, now())
            except MalformedAnswer:
                return ""
        else:
            error = (body or {}).get("error") if isinstance(body, dict) else None
            error = error if isinstance(error, dict) else line.get("error") or {}
            turned_down = turned_down_for(status or 0, error.get("code"), said_by(error))
            if turned_down is None:
                self._said = self.client.hide(f"status {status}: {said_by(error)}"[:300])
                if status in (400, 422):
                    self._rejected.add(key)
                return str(key)
            answer = no_answer(turned_down, requests[key]["body"]["model"])
        self.court.cache.put_plain(key, requests[key], answer)
        return str(key)
