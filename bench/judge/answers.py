"""Answers on disk: each written whole as it comes, found by the hash of its request, asked for by one process only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import filelock
from pydantic import ValidationError

from bench.judge.messages import Answer, Request
from bench.system.files import cannot_write, read_json, write_json

FOLDER = "judge-answers"
_POLL_SECONDS = 0.05


class AnswerCache:
    """The answers below one folder.

    Args:
        root: the artifact cache's folder; answers lie in its sub-folder `judge-answers`.
        note: told what a user should know.
    """

    def __init__(self, root: Path, note: Callable[[str], None]) -> None:
        self.folder = root / FOLDER
        self.note = note
        self._known: dict[str, Answer] = {}
        self._damaged: set[str] = set()

    def path(self, key: str) -> Path:
        """File of an answer."""
        return self.folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> Answer | None:
        """The answer to a request, if there is one."""
        if key not in self._known:
            try:
                self._known[key] = Answer.model_validate(read_json(self.path(key))["answer"])
            except FileNotFoundError:
                return None
            except (OSError, ValueError, TypeError, KeyError, ValidationError):
                if key not in self._damaged:
                    self.note(f"cache: {self.path(key)} is damaged; the question is asked again")
                self._damaged.add(key)
                return None
        return self._known[key]

    def put(self, request: Request, answer: Answer) -> None:
        """Keep an answer, with the request it belongs to.

        Raises:
            BenchError: the folder cannot be written.
        """
        self.put_plain(request.key, request.plain, answer)

    def put_plain(self, key: str, request: dict[str, Any], answer: Answer) -> None:
        """Keep the answer to a request of which the key and the plain values are at hand.

        Raises:
            BenchError: the folder cannot be written.
        """
        write_json(self.path(key), {"request": request, "answer": answer.model_dump()})
        self._known[key] = answer

    def remember(self, key: str, answer: Answer) -> None:
        """Keep an answer for this process only."""
        self._known[key] = answer

    @asynccontextmanager
    async def claim(self, key: str) -> AsyncIterator[None]:
        """Keep other processes from asking the same question at the same time.

        Requests share 4,096 lock files, so that the folder stays small; the system frees a killed process's locks.

        Raises:
            BenchError: the lock file cannot be made.
        """
        async with held(self.folder / "locks" / f"{key[:3]}.lock", _POLL_SECONDS):
            yield


@asynccontextmanager
async def held(path: Path, poll: float, waiting: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
    """Hold a lock between processes, other tasks going on while it is waited for.

    Args:
        path: the lock file.
        poll: seconds between two tries.
        waiting: called once if it is not to be had at once.

    Raises:
        BenchError: the lock file cannot be made.
    """
    lock = filelock.FileLock(path)
    told = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                lock.acquire(blocking=False)
                break
            except filelock.Timeout:
                if not told:
                    waiting()
                told = True
                await asyncio.sleep(poll)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield
    finally:
        lock.release()
