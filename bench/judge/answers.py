"""Answers on disk: written atomically as they arrive, found by their request's hash, asked for by one process only.

Beside them, requests that were sent and never answered, but perhaps billed: no interruption loses their number.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import filelock

from bench.judge.messages import Answer, Request
from bench.system.files import cannot_write, read_sealed_json, remove, write_sealed_json

ANSWERS, UNANSWERED = "judge-answers", "judge-unanswered"
"""Folders in the artifact cache's: answers, and numbers of requests without one."""


class AnswerCache:
    """The answers below one folder, and how often each request was sent without one.

    That number is the size of a file, one byte for each time. Whoever changes it holds the lock of the request's key
    (`claim`).

    Args:
        root: the artifact cache's folder; answers are in its sub-folder `judge-answers`, numbers of requests without
            one in `judge-unanswered`.
        note: receives messages for the user.
    """

    def __init__(self, root: Path, note: Callable[[str], None]) -> None:
        self.root, self.folder = root, root / ANSWERS
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

    def unanswered(self, key: str) -> int:
        """Requests without an answer, those in flight included."""
        try:
            return self._unanswered(key).stat().st_size
        except OSError:
            return 0

    def add_unanswered(self, key: str) -> None:
        """Count a request that is about to be sent.

        Raises:
            BenchError: the folder cannot be written.
        """
        path = self._unanswered(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(b".")
        except OSError as error:
            raise cannot_write(path, error) from error

    def remove_unanswered(self, key: str) -> None:
        """Take back the count of a request that was answered or has cost nothing.

        Raises:
            BenchError: the folder cannot be written.
        """
        path, left = self._unanswered(key), self.unanswered(key) - 1
        try:
            if left > 0:
                with path.open("r+b") as file:
                    file.truncate(left)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error

    def _unanswered(self, key: str) -> Path:
        return self.root / UNANSWERED / key[:2] / key

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
