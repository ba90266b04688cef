"""Questions through the batch API: half the price at OpenAI's, answers within a day.

What was sent is written down before it is sent, so that a process that is killed finds its batches again: nothing is
paid for twice.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import openai

from bench.errors import BenchError
from bench.files import read_json, write_json
from bench.judge.asking import Court, Question
from bench.judge.client import Client, no_answer, now, said_by, without_key
from bench.judge.cost import Purse
from bench.judge.requests import MalformedAnswer, Request, answer_from

FOLDER = "judge-batches"
TAG = "distillm_bench"
LARGEST = 20_000  # requests of one batch; OpenAI takes 50,000 and 200 MB
_ENDED = ("completed", "failed", "expired", "cancelled")


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
        self.court, self.client, self.purse, self.rounds, self.poll, self.note = (
            court,
            client,
            purse,
            rounds,
            poll,
            note,
        )
        self.folder = root / FOLDER

    async def ask_all(self, questions: Iterable[Question], progress: Callable[[int, int], None]) -> None:
        """Have every question answered.

        Raises:
            BenchError: the server refuses, or does not recover. What it did answer is kept.
        """
        asked = list(dict.fromkeys(questions))
        try:
            for _ in range(self.rounds + 1 + self.court.reasks):
                await self._collect(progress, len(asked))
                pending = {request.key: request for request in self.court.pending(asked)}
                progress(len(asked) - len(pending), len(asked))
                if not pending:
                    return
                requests = list(pending.values())
                for start in range(0, len(requests), LARGEST):
                    await self._send(requests[start : start + LARGEST])
        except openai.APIStatusError as error:
            said = self.client.hide(said_by(error.body) or error.response.reason_phrase)
            raise self.client.refusal(error.status_code, said) from None
        except openai.APIConnectionError as error:
            reason = self.client.hide(str(error.__cause__ or error))
            raise BenchError(
                f"cannot reach the judge at {self.client.judge.base_url}: {reason}. Batches go on there: the same "
                "command collects them"
            ) from None
        left = len(self.court.pending(asked))
        raise BenchError(f"{left} questions failed in {self.rounds + 1} batches in a row. Answers are kept")

    async def _send(self, requests: list[Request]) -> None:
        for request in requests:
            self.purse.reserve(request)
        token = uuid.uuid4().hex
        noted = self.folder / f"{token}.json"
        plain = {"base_url": self.client.judge.base_url, "requests": {r.key: r.plain for r in requests}}
        write_json(noted, plain | {"batch": None})
        lines = (
            {"custom_id": r.key, "method": "POST", "url": "/v1/chat/completions", "body": r.body} for r in requests
        )
        data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        file = await self.client.api.files.create(file=("questions.jsonl", data), purpose="batch")
        batch = await self.client.api.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={TAG: token},
        )
        write_json(noted, plain | {"batch": batch.id})
        self.note(
            f"batch {batch.id} with {len(requests)} questions is under way; if this stops, the same command waits on"
        )

    async def _collect(self, progress: Callable[[int, int], None], total: int) -> None:
        """Wait for the batches noted for this server, and keep their answers."""
        for noted in sorted(self.folder.glob("*.json")):
            written = read_json(noted)
            if written["base_url"] != self.client.judge.base_url:
                continue
            batch_id = written["batch"] or await self._find(noted.stem)
            if batch_id is not None:
                await self._wait_for(batch_id, written["requests"], progress, total)
            noted.unlink()

    async def _find(self, token: str) -> str | None:
        """A batch that was sent by a process killed before it could note its id."""
        async for batch in self.client.api.batches.list(limit=100):
            if (batch.metadata or {}).get(TAG) == token:
                return batch.id
        return None

    async def _wait_for(
        self, batch_id: str, requests: dict[str, Any], progress: Callable[[int, int], None], total: int
    ) -> None:
        while (batch := await self.client.api.batches.retrieve(batch_id)).status not in _ENDED:
            done = batch.request_counts.completed if batch.request_counts else 0
            progress(total - len(requests) + done, total)
            await asyncio.sleep(self.poll)
        files = [file for file in (batch.output_file_id, batch.error_file_id) if file]
        for file in files:
            text = (await self.client.api.files.content(file)).text
            for line in text.splitlines():
                self._keep(json.loads(line), requests)
        if batch.status == "failed" and not files:
            errors = batch.errors.data if batch.errors and batch.errors.data else []
            said = "; ".join(str(error.message) for error in errors) or "no reason given"
            raise BenchError(f"the judge at {self.client.judge.base_url} refused the batch: {self.client.hide(said)}")

    def _keep(self, line: dict[str, Any], requests: dict[str, Any]) -> None:
        """Keep one line's answer; a question that failed stays pending."""
        key, response = line.get("custom_id"), line.get("response") or {}
        if key not in requests:
            return
        body = without_key(response.get("body"), self.client.key)
        if response.get("status_code") == 200:
            try:
                answer = answer_from(body, now())
            except MalformedAnswer:
                return
        else:
            error = (body or {}).get("error") if isinstance(body, dict) else None
            error = error if isinstance(error, dict) else line.get("error") or {}
            turned_down = self.client.turned_down(error.get("code"), said_by(error))
            if turned_down is None:
                return
            answer = no_answer(turned_down, self.client.judge.model)
        self.court.cache.put_plain(key, requests[key], answer)
