"""A split as token ids in a few arrays: four bytes a token, where objects take forty."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from bench.system.files import read_json, write_json
from distillm import TokenSequence

Ids = array  # of C integers: its parts are put together without a Python object a token


class EncodedSplit(Sequence[TokenSequence]):
    """Sequences that are made when they are asked for.

    Args:
        ids: of the examples.
        tokens: (T,), prompt and response of each sequence, one after the other.
        ends: (2N + 1,), 0, and where each prompt and each response ends in `tokens`.
    """

    def __init__(self, ids: list[str], tokens: NDArray[np.int32], ends: NDArray[np.int64]) -> None:
        self.ids, self.tokens, self.ends = ids, tokens, ends

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, place: int) -> TokenSequence: ...
    @overload
    def __getitem__(self, place: slice) -> list[TokenSequence]: ...
    def __getitem__(self, place: int | slice) -> TokenSequence | list[TokenSequence]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        start, middle, end = self.ends[2 * place : 2 * place + 3].tolist()
        both = self.tokens[start:end].tolist()
        return TokenSequence(self.ids[place], tuple(both[: middle - start]), tuple(both[middle - start :]))

    def __eq__(self, other: object) -> bool:
        """Whether another sequence holds the same."""
        return isinstance(other, Sequence) and list(self) == list(other)

    def save(self, folder: Path) -> None:
        """Write it as files of an artifact."""
        write_json(folder / "ids.json", self.ids)
        np.save(folder / "tokens.npy", self.tokens)
        np.save(folder / "ends.npy", self.ends)

    @classmethod
    def load(cls, folder: Path) -> EncodedSplit:
        """Read what `save` wrote."""
        return cls(read_json(folder / "ids.json"), np.load(folder / "tokens.npy"), np.load(folder / "ends.npy"))


class EncodedSplitBuilder:
    """Collects the sequences of a split."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.lengths: list[int] = [0]
        self.parts: list[NDArray[np.int32]] = [np.zeros(0, np.int32)]
        self._open = array("i")

    def add(self, example: str, prompt: Ids[int], response: Ids[int]) -> None:
        """Add a sequence."""
        self.ids.append(example)
        for part in (prompt, response):
            self._open.extend(part)
            self.lengths.append(len(part))
        if len(self._open) > 2**16:
            self._close()

    def finish(self) -> EncodedSplit:
        """The split."""
        self._close()
        return EncodedSplit(self.ids, np.concatenate(self.parts), np.cumsum(self.lengths, dtype=np.int64))

    def _close(self) -> None:
        self.parts.append(np.array(self._open, dtype=np.int32))
        self._open = array("i")


def lengths(sequences: Sequence[TokenSequence]) -> list[int]:
    """Tokens of each sequence, prompt and response together."""
    if isinstance(sequences, EncodedSplit):
        found: list[int] = np.diff(sequences.ends[::2]).tolist()
        return found
    return [len(s.prompt) + len(s.response) for s in sequences]
