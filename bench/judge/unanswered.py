"""Requests that were sent and never answered, but perhaps billed: counted on disk, where no interruption loses them."""

from __future__ import annotations

from pathlib import Path

from bench.system.files import cannot_write

FOLDER = "judge-unanswered"


class UnansweredRequests:
    """How often each request was sent without an answer: the size of a file, one byte for each time.

    Whoever changes the count of a key holds its lock (`AnswerCache.claim`).

    Args:
        root: the artifact cache's folder; the counts are in its sub-folder `judge-unanswered`.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / FOLDER

    def count(self, key: str) -> int:
        """Requests without an answer, those in flight included."""
        try:
            return self._path(key).stat().st_size
        except OSError:
            return 0

    def add(self, key: str) -> None:
        """Count a request that is about to be sent.

        Raises:
            BenchError: the folder cannot be written.
        """
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(b".")
        except OSError as error:
            raise cannot_write(path, error) from error

    def remove(self, key: str) -> None:
        """Take back the count of a request that was answered or has cost nothing.

        Raises:
            BenchError: the folder cannot be written.
        """
        path, left = self._path(key), self.count(key) - 1
        try:
            if left > 0:
                with path.open("r+b") as file:
                    file.truncate(left)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key
