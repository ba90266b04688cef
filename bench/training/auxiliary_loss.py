"""The auxiliary language-model loss on plain text, one option for all methods."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from baselines.kld import KLD
from baselines.sft import CrossEntropy
from bench.data.content import clean_text
from bench.data.hub import stream_texts
from bench.data.readers import Progress, RawRecord, read_records
from bench.data.task import HubSource
from bench.models.encoded import EncodedSplit, EncodedSplitBuilder
from bench.models.tokenizer import TokenizerAdapter
from bench.synthetic import plain_text
from bench.system.artifacts import ArtifactCache
from bench.system.errors import BenchError
from bench.system.files import read_text
from distillm import Objective, TokenSequence
from distillm.divergences import Kernel

_PARAGRAPHS = 2000
_TEXTS = "texts.jsonl.gz"
_CHARACTERS_A_TOKEN = 16  # web pages are long; no more of one is kept than its first tokens can be made of
_SHORTEST = 4  # tokens; below, nothing is left to predict on either side of the cut


@dataclass(frozen=True)
class AuxiliaryLoss:
    """A second objective on other sequences, added to the method's loss at each step.

    Attributes:
        objective: what each token costs.
        weight: of its mean beside the method's.
        sequences: what it is taken on.
        batch_size: how many of them at each step.
    """

    objective: Objective
    weight: float
    sequences: Sequence[TokenSequence]
    batch_size: int


@dataclass(frozen=True)
class LanguageModelling:
    """(1 - k) cross-entropy + k KL(p || q), with k = `kl_share`; MiniLLM's plain-text term for k = 0.5."""

    kl_share: float = 0.0
    per_token: ClassVar[bool] = True

    @property
    def needs_teacher(self) -> bool:
        """Only for the KL part."""
        return self.kl_share > 0

    @property
    def kernel(self) -> Kernel | None:
        """That of plain cross-entropy; a mixture is left to automatic differentiation."""
        return None if self.kl_share else CrossEntropy().kernel

    def __call__(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: Tensor, batch: list[TokenSequence]
    ) -> Tensor:
        """Per-token loss (N,); see `distillm.interface.Objective`."""
        loss = (1.0 - self.kl_share) * CrossEntropy()(student_logits, None, tokens, batch)
        if self.kl_share:
            loss = loss + self.kl_share * KLD()(student_logits, teacher_logits, tokens, batch)
        return loss


def load_plain_text(file: str | None) -> list[str]:
    """Paragraphs of a file (.txt: one a line; record files: the column `text`), or generated ones.

    Raises:
        BenchError: the file cannot be read or holds no text.
    """
    if file is None:
        return plain_text.generate(_PARAGRAPHS)
    path = Path(file)
    if path.suffix == ".txt":
        # only a line feed, with or without a carriage return, ends a line: other marks of Unicode stand inside text
        texts = [line.strip() for line in read_text(path).split("\n")]
    else:
        texts = list(map(_paragraph, read_records(path)))
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise BenchError(f"plain_text.file: {path} holds no text; expected one paragraph a line, or a column 'text'")
    return texts


def load_hub_text(
    source: HubSource, count: int, max_length: int, cache: ArtifactCache, progress: Progress
) -> Iterator[str]:
    """The first texts of a data set on the hub, each cut to what the loss can read of it; kept in the cache.

    Twenty epochs need hundreds of thousands of web pages: they are read from the cache one by one.

    Args:
        source: the data set, at a commit; it has a column `text`.
        count: how many texts that are not blank.
        max_length: tokens of a text that are used.
        cache: where texts are kept once they were downloaded.
        progress: told how many there are so far.

    Raises:
        BenchError: they cannot be had.
    """
    longest = _CHARACTERS_A_TOKEN * max_length
    key = {"source": source.text, "texts": count, "characters": longest}

    def build(folder: Path) -> None:
        texts = stream_texts(source, count, longest, lambda done: progress(done, count, f"texts of {source.id}"))
        with gzip.open(folder / _TEXTS, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)

    return _texts_in(cache.get("plain-text", key, build) / _TEXTS)


def _texts_in(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]


def _paragraph(record: RawRecord) -> str:
    if "text" not in record.values:
        raise BenchError(f"{record.where}: no column 'text'; found: {', '.join(record.values) or 'none'}")
    return clean_text(record, "text", record.values["text"])


def encode_plain_text(texts: Iterable[str], tokenizer: TokenizerAdapter, max_length: int) -> EncodedSplit:
    """Paragraphs as sequences, cut at `max_length` tokens.

    A causal model predicts every token after the first. An encoder-decoder reads the first half and predicts the
    second (prefix language modelling).
    """
    sequences = EncodedSplitBuilder()  # as Python's numbers, the ids of a large corpus would fill the memory
    for index, whole in enumerate(tokenizer.responses_ids(texts)):
        ids = whole[:max_length]
        if len(ids) >= _SHORTEST:
            cut = 1 if tokenizer.kind == "causal" else len(ids) // 2
            sequences.add(f"plain-text-{index}", ids[:cut], ids[cut:])
    encoded = sequences.finish()
    if not encoded:
        raise BenchError(f"plain text: no paragraph has {_SHORTEST} tokens or more within plain_text.max_length")
    return encoded
