"""Plain text as sequences to pretrain a student on: texts one after the other, cut into pieces of one length."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.config.sections import StudentPretraining
from bench.data.readers import EXTENSIONS, Progress
from bench.data.sources import SPLIT_NAMES
from bench.models.encoded import EncodedSplit, EncodedSplitBuilder
from bench.models.tokenizer import Kind, TokenizerAdapter
from bench.synthetic import plain_text
from bench.system.errors import BenchError
from bench.system.files import sha256_of
from bench.system.hashing import digest
from bench.system.paths import check_file
from bench.training.auxiliary_loss import load_plain_text

_GENERATED = {"train": 4000, "validation": 400}  # paragraphs
_AT_ONCE = 200  # texts


@dataclass(frozen=True)
class PretrainingText:
    """What a student is pretrained on, and what it is validated on."""

    train: EncodedSplit
    held_out: EncodedSplit


def text_checksum(file: str | None) -> str:
    """What determines the text: checksums of the files it is read from.

    Raises:
        BenchError: a file cannot be read.
    """
    if file is None:
        return "generated"
    paths = _files(Path(file)).values()
    for path in paths:
        check_file(path, "student_pretraining.file", there=True)
    return digest([sha256_of(path) for path in paths])


def pretraining_text(given: StudentPretraining, tokenizer: TokenizerAdapter, progress: Progress) -> PretrainingText:
    """Read as much text as the training takes, and cut it.

    Without a validation file, held-out sequences are taken from all over the text.

    Raises:
        BenchError: the text cannot be read, or is too short.
    """
    needed = None if given.steps is None else given.steps * given.batch_size
    files = {"train": None, "validation": None} if given.file is None else _files(Path(given.file))
    apart = "validation" in files
    pieces = {
        split: _pieces(
            plain_text.generate(_GENERATED[split], seed=split == "validation")
            if file is None
            else load_plain_text(str(file)),
            given,
            tokenizer,
            given.held_out if split == "validation" else needed and needed + (0 if apart else given.held_out),
            progress,
        )
        for split, file in files.items()
    }
    train = pieces["train"]
    held_out = pieces.get("validation")
    if held_out is None:
        every = max(2, len(train) // given.held_out)
        chosen = range(0, len(train), every)[: given.held_out]
        held_out, train = [train[i] for i in chosen], [one for i, one in enumerate(train) if i not in chosen]
    if not train or not held_out:
        raise BenchError(
            f"student_pretraining: {given.file or 'the text'} is too short for a sequence of {given.length} tokens to "
            "train on and one to validate on; give more text or a lower student_pretraining.length"
        )
    return PretrainingText(_encoded("text", train, tokenizer.kind), _encoded("held-out", held_out, tokenizer.kind))


def _files(path: Path) -> dict[str, Path]:
    """The files of text by split: of a folder, train and, where it is there, validation."""
    if not path.is_dir():
        return {"train": path}
    found: dict[str, Path] = {}
    for split in ("train", "validation"):
        names = [f"{name}{end}" for name in SPLIT_NAMES[split] for end in (*EXTENSIONS, ".txt")]
        there = [path / name for name in names if (path / name).is_file()]
        if len(there) > 1:
            listed = ", ".join(file.name for file in there)
            raise BenchError(f"student_pretraining.file={path}: {len(there)} files for {split}: {listed}; keep one")
        if there:
            found[split] = there[0]
    if "train" not in found:
        raise BenchError(
            f"student_pretraining.file={path}: the folder has no file train ({', '.join((*EXTENSIONS, '.txt'))}); "
            "give one, or a file"
        )
    return found


def _pieces(
    texts: Sequence[str], given: StudentPretraining, tokenizer: TokenizerAdapter, most: int | None, progress: Progress
) -> list[array[int]]:
    """Texts, each closed by EOS, as pieces of the length that is asked for; the last is left out if it is shorter."""
    pieces: list[array[int]] = []
    left = array("i")
    for place, ids in enumerate(tokenizer.responses_ids(texts)):
        if place % _AT_ONCE == 0:
            progress(place, len(texts), "texts as tokens")
        left.extend(ids)
        whole = len(left) // given.length * given.length
        pieces += [left[start : start + given.length] for start in range(0, whole, given.length)]
        left = left[whole:]
        if most is not None and len(pieces) >= most:
            return pieces[:most]
    return pieces


def _encoded(name: str, pieces: Sequence[array[int]], kind: Kind) -> EncodedSplit:
    """A causal model predicts every token after the first; an encoder-decoder reads one half and predicts the other."""
    split = EncodedSplitBuilder()
    for place, piece in enumerate(pieces):
        cut = 1 if kind == "causal" else len(piece) // 2
        split.add(f"{name}-{place}", piece[:cut], piece[cut:])
    return split.finish()
