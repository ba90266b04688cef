"""Questions through the batch API: half the price at OpenAI, answers within a day.

A batch is noted on disk before it is sent, so that a killed process finds its batches again and pays for nothing twice.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import openai

from bench.judge.answers import locked
from bench.judge.budget import Budget
from bench.judge.client import Client, error_message, now, outcome_of_error, placeholder
from bench.judge.messages import MalformedAnswer, Request, answer_from
from bench.judge.protocol import Outcome
from bench.judge.queue import JudgeQueue, Question
from bench.judge.redaction import without_key
from bench.system.errors import BenchError
from bench.system.files import read_sealed_json, write_sealed_json
from bench.system.hashing import digest
from bench.system.manifest import Plain

FOLDER = "judge-batches"  # in the artifact cache's
TAG = "distillm_bench"
LARGEST = 20_000  # requests in one batch; OpenAI allows 50,000 and 200 MB
_ROUNDS = 2  # batches in a row that may bring no answer
_ENDED = ("completed", "failed", "expired", "cancelled")


class SentBatch(Plain):
    """The note of one batch: its server, its requests by key, and its id, None until the server has told it."""

    base_url: str
    requests: dict[str, Request]
    batch: str | None = None


class _BatchRefused(BenchError):
    """The server has refused a whole batch and will never answer it."""


class Batches:
    """Sends what is pending as batches and waits for their answers.

    Args:
        queue: knows what is still to be asked.
        client: sends the requests.
        budget: pays for them.
        poll: seconds between two looks at a batch.
    """

    def __init__(self, queue: JudgeQueue, client: Client, budget: Budget, *, poll: float) -> None:
        self.queue, self.client, self.budget, self.poll = queue, client, budget, poll
        self.folder = queue.answers.root / FOLDER
        self._sent: set[str] = set()
        self._rejected: set[str] = set()
        self._last_error = ""

    async def ask_all(self, questions: Iterable[Question], progress: Callable[[int, int], None]) -> None:
        """Have every question answered.

        Args:
            questions: any number.
            progress: called with the number of questions done and their total.

        Raises:
            BenchError: the server refuses or does not recover, or the budget does not suffice. Answers so far are kept.
        """
        distinct = list(dict.fromkeys(questions))
        async with self._one_process():
            try:
                await self._ask_all(distinct, progress)
            except openai.APIStatusError as error:
                message = error_message(error.body) or error.response.reason_phrase
                raise self.client.refusal(error.status_code, message) from None

    async def _ask_all(self, questions: list[Question], progress: Callable[[int, int], None]) -> None:
        fruitless, answered = 0, 0
        while True:
            await self._collect(progress, len(questions))
            pending = self._without_rejected(questions)
            progress(len(questions) - len(pending), len(questions))
            if not pending:
                return
            before, answered = answered, sum(self.queue.answers.get(key) is not None for key in self._sent)
            fruitless = fruitless + 1 if self._sent and answered == before else 0
            if fruitless > _ROUNDS:
                last = f", last with {self._last_error}" if self._last_error else ""
                raise BenchError(
                    f"{len(pending)} questions failed in {fruitless} batches in a row{last}. Answers are kept"
                )
            affordable = list(self._affordable(questions, pending))
            for start in range(0, len(affordable), LARGEST):
                await self._send(affordable[start : start + LARGEST])

    def _without_rejected(self, questions: list[Question]) -> list[Request]:
        """The pending requests; those that the server rejected count as answered if it has answered others."""
        pending = self.queue.pending(questions)
        if not self._rejected or len(pending) == len(questions):
            return pending
        self.client.note(
            f"{len(self._rejected)} questions count as rejected, the last of them because of {self._last_error}"
        )
        for key in self._rejected:
            self.queue.answers.remember(key, placeholder(Outcome.REJECTED, self.client.judge.model))
        self._rejected.clear()
        return self.queue.pending(questions)

    def _affordable(self, questions: list[Question], pending: list[Request]) -> Iterator[Request]:
        """The first pending requests, as many as the budget allows if each costs the most that it can."""
        self.budget.spent = self.queue.spent(questions, self.budget.prices)
        if not self.budget.affords(pending[0]):
            raise self.budget.limit_reached()
        for request in pending:
            if not self.budget.affords(request):
                return
            self.budget.spent += self.budget.prices.upper_bound(request)
            yield request

    @asynccontextmanager
    async def _one_process(self) -> AsyncIterator[None]:
        """Let one process at a time send to this server, so that no two send the same questions."""
        path = self.folder / f"{digest(self.client.judge.base_url)[:16]}.lock"

        def on_wait() -> None:
            self.client.note("another process has batches in progress at this server; waiting for it")

        async with locked(path, poll_interval=min(self.poll, 1.0), on_wait=on_wait):
            yield

    async def _send(self, requests: list[Request]) -> None:
        token = uuid.uuid4().hex
        path = self.folder / f"{token}.json"
        sent = SentBatch(base_url=self.client.judge.base_url, requests={r.key: r for r in requests})
        write_sealed_json(path, sent.model_dump(exclude_none=True))
        lines = (
            {
                "custom_id": request.key,
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": request.body.model_dump(exclude_none=True),
            }
            for request in requests
        )
        data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        api = self.client.api
        file = await self.client.call(lambda: api.files.create(file=("questions.jsonl", data), purpose="batch"))
        attempts = 0

        async def create() -> str:
            nonlocal attempts
            attempts += 1
            if attempts > 1 and (found := await self._find(token)):  # created, though the server's answer was lost
                return found
            batch = await api.batches.create(
                input_file_id=file.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={TAG: token},
            )
            return batch.id

        batch_id = await self.client.call(create)
        write_sealed_json(path, sent.model_copy(update={"batch": batch_id}).model_dump(exclude_none=True))
        self._sent.update(sent.requests)
        self.client.note(
            f"batch {batch_id} with {len(requests)} questions is in progress; if this process stops, the same command "
            "waits for it"
        )

    async def _collect(self, progress: Callable[[int, int], None], total: int) -> None:
        """Wait for all batches noted for this server and keep their answers."""
        for path in sorted(self.folder.glob("*.json")):
            sent = self._read(path)
            if sent is None or sent.base_url != self.client.judge.base_url:
                continue
            batch_id = sent.batch or await self.client.call(partial(self._find, path.stem))
            try:
                if batch_id is not None:
                    await self._wait_for(batch_id, sent.requests, progress, total)
            except openai.NotFoundError:
                self.client.note(f"the server no longer knows batch {batch_id}; its questions are asked again")
            except _BatchRefused:
                path.unlink(missing_ok=True)
                raise
            path.unlink(missing_ok=True)

    def _read(self, path: Path) -> SentBatch | None:
        try:
            return SentBatch.model_validate(read_sealed_json(path))
        except (OSError, ValueError):
            self.client.note(f"{path} is damaged and left out; the server lists its batches too")
            return None

    async def _find(self, token: str) -> str | None:
        """The id of a batch whose sender was stopped before the server told it."""
        async for batch in self.client.api.batches.list(limit=100):
            if (batch.metadata or {}).get(TAG) == token:
                return batch.id
        return None

    async def _wait_for(
        self, batch_id: str, requests: dict[str, Request], progress: Callable[[int, int], None], total: int
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
            message = self.client.redacted("; ".join(str(error.message) for error in errors) or "no reason given")
            raise _BatchRefused(f"the judge at {self.client.judge.base_url} refused the batch: {message}")
        if batch.status == "completed":
            for key in requests.keys() - seen:  # its line is missing or cut off, so it may have been billed
                self.queue.answers.add_unanswered(key)

    def _keep(self, text: str, requests: dict[str, Request]) -> str:
        """Keep the answer in a line of a batch's results; a question that failed remains pending.

        Returns:
            The key of the request that the line is about; empty if the line cannot be read.
        """
        try:
            line = json.loads(text)
            key, response = line["custom_id"], line.get("response") or {}
            body, status = without_key(response.get("body"), self.client.key), response.get("status_code")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
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
            message = error_message(error)
            outcome = outcome_of_error(status or 0, error.get("code"), message)
            if outcome is None:
                self._last_error = self.client.redacted(f"status {status}: {message}"[:300])
                if status in (400, 422):
                    self._rejected.add(key)
                return str(key)
            answer = placeholder(outcome, requests[key].body.model)
        self.queue.answers.put(requests[key], answer)
        return str(key)
