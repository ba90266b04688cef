"""Answers on disk: written atomically as they arrive, found by their request's hash, asked for by one process only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import filelock

from bench.judge.messages import Answer, Request
from bench.system.files import cannot_write, read_sealed_json, remove, write_sealed_json

FOLDER = "judge-answers"


class AnswerCache:
    """The answers below one folder.

    Args:
        root: the artifact cache's folder; answers are in its sub-folder `judge-answers`.
        note: receives messages for the user.
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
        """The answer to a request; None if there is none, or none that can be read."""
        if key not in self._known:
            try:
                self._known[key] = Answer.model_validate(read_sealed_json(self.path(key))["answer"])
            except FileNotFoundError:
                return None
            except (OSError, ValueError, TypeError, KeyError):
                if key not in self._damaged:
                    self.note(f"cache: {self.path(key)} is damaged; the question is asked again")
                self._damaged.add(key)
                return None
        return self._known[key]

    def put(self, request: Request, answer: Answer) -> None:
        """Keep an answer together with its request.

        Raises:
            BenchError: the folder cannot be written.
        """
        kept = {"request": request.model_dump(exclude_none=True), "answer": answer.model_dump()}
        if self.path(request.key).is_dir():
            remove(self.path(request.key))
        write_sealed_json(self.path(request.key), kept)
        self._known[request.key] = answer

    def remember(self, key: str, answer: Answer) -> None:
        """Keep an answer for this process only."""
        self._known[key] = answer

    @asynccontextmanager
    async def claim(self, key: str) -> AsyncIterator[None]:
        """Keep other processes from asking the same question at the same time.

        Requests share 4,096 lock files, so that the folder stays small.

        Raises:
            BenchError: the lock file cannot be made.
        """
        async with locked(self.folder / "locks" / f"{key[:3]}.lock"):
            yield


@asynccontextmanager
async def locked(
    path: Path, *, poll_interval: float = 0.05, on_wait: Callable[[], None] = lambda: None
) -> AsyncIterator[None]:
    """Hold a lock between processes. Other tasks run while it is waited for; the system frees a killed process's lock.

    Args:
        path: the lock file.
        poll_interval: seconds between two attempts.
        on_wait: called once if another process or task holds the lock.

    Raises:
        BenchError: the lock file cannot be made.
    """
    lock = filelock.AsyncFileLock(path)
    try:
        try:
            await lock.acquire(blocking=False)
        except filelock.Timeout:
            on_wait()
            await lock.acquire(poll_interval=poll_interval)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield
    finally:
        await lock.release()
