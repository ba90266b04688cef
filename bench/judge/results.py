"""What `bench judge` writes beside a run, as typed values: one `Judgement` (JSON) and its items (JSON lines, gzip).

A field of one protocol only, or of one kind of server only, is absent from the files of the other. `read` takes every
file written so far.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from bench.judge.messages import Parameters
from bench.judge.protocol import Outcome, ProtocolName
from bench.record.read import Unreadable
from bench.system.files import checksum_of, read_bytes, write_bytes, write_json, write_jsonl_gz
from bench.system.hashing import digest
from bench.system.manifest import Plain
from bench.system.names import LongName
from bench.system.strict import first_error

SCHEMA: Literal[1] = 1
CHECKSUMS = "checksums"  # folder beside judgements, with the checksum of each in a file of its name
_CONDITIONS = {"judge", "protocol", "prompt", "against", "sets", "decoding_seeds", "limit", "repeats"}


class JudgeScore(Plain):
    """A score and its 95 % bootstrap interval over examples.

    Attributes:
        value: `rating`: 100 x sum of the run's ratings / sum of the other side's; `pairwise`: the run's win rate in
            percent, a tie counting half.
        low, high: None with a single example.
        examples: how many it rests on.
    """

    value: float
    low: float | None
    high: float | None
    examples: int


class ReadingCounts(Plain):
    """Single verdicts, two orders and all repeats of each item: how many ended how, and how many were asked again."""

    outcomes: dict[Outcome, int]
    asked_again: int


class Flags(Plain):
    """Responses that address the judge: items with such a response, and matches of each pattern in the run's responses.

    Attributes:
        by_pattern_against: matches in the other run's responses; `pairwise` only.
    """

    items: int
    by_pattern: dict[str, int]
    by_pattern_against: dict[str, int] | None = None


class PositionBias(Plain):
    """How much a response gains from being shown first, over both orders in equal numbers.

    Attributes:
        first_minus_second: `rating`: the first response's mean rating minus the second's; 0 = no bias.
        first_preferred: `pairwise`: share of decided verdicts for the first response; 0.5 = no bias.
        verdicts: how many it rests on.
    """

    first_minus_second: float | None = None
    first_preferred: float | None = None
    verdicts: int


class Agreement(Plain):
    """How far pairs of verdicts on the same item agree.

    Attributes:
        pairs: how many.
        kappa: Cohen's kappa of which response is better; None where chance alone would always agree.
        spearman: Spearman's correlation of the run's ratings, None where they do not vary; `rating` only.
    """

    pairs: int
    kappa: float | None
    spearman: float | None = None


class SetResult(Plain):
    """The result on one evaluation set.

    Attributes:
        items: responses judged.
        outcomes: how many of them ended how.
        score: of the items that were scored; None without any.
        score_without_flagged: the same without flagged items; None where none of the scored items is flagged.
        position_bias, agreement_of_orders, agreement_of_repeats: None where too few verdicts tell.
        wins, ties, losses: scored items; `pairwise` only.
    """

    items: int
    outcomes: dict[Outcome, int]
    readings: ReadingCounts
    score: JudgeScore | None
    flagged: Flags
    score_without_flagged: JudgeScore | None
    position_bias: PositionBias | None
    agreement_of_orders: Agreement | None
    agreement_of_repeats: Agreement | None
    wins: int | None = None
    ties: int | None = None
    losses: int | None = None


class JudgeInfo(Parameters):
    """The judge of a judgement: its parameters and its server."""

    base_url: str


class Judgement(Plain):
    """All that one judge made of one run under one protocol, without texts.

    Attributes:
        schema_version: `schema` in the file.
        run_id: the run that was judged.
        version: of this package.
        prompt: fingerprint of the prompt's texts.
        against: the run that it was compared with; None for references.
        sets: evaluation sets judged.
        decoding_seeds: how many decoding seeds were judged.
        limit: at most so many examples of a set; None for all.
        repeats: judgements of each order.
        models_served: what the server called the model.
        asked: dates of the answers.
        answers, prompt_tokens, completion_tokens: in all, as far as the server counts tokens.
        patterns: names of the patterns that flag responses.
        results: by evaluation set.
    """

    schema_version: Literal[1] = Field(alias="schema")
    run_id: LongName
    version: str
    judge: JudgeInfo
    protocol: ProtocolName
    prompt: str
    against: LongName | None
    sets: list[str]
    decoding_seeds: int
    limit: int | None
    repeats: int
    prompt_version: str
    prompt_source: str
    models_served: list[str]
    asked: list[str]
    answers: int
    prompt_tokens: int
    completion_tokens: int
    patterns: list[str]
    results: dict[str, SetResult]

    def plain(self) -> dict[str, Any]:
        """As plain values, as they stand in the file."""
        return _plain(self)

    @property
    def name(self) -> str:
        """Name of the files, without suffix: equal for equal conditions, so that a judgement replaces its like."""
        model = re.sub(r"[^A-Za-z0-9.]+", "-", self.judge.model).strip("-.")[:80] or "model"
        conditions = self.model_dump(mode="json", include=_CONDITIONS, exclude_unset=True)
        return f"{self.protocol}-{model}-{digest(conditions)[:10]}"


class ReadingRow(Plain):
    """One verdict on an item.

    Attributes:
        response_shown: where the run's response stood.
        verdict: what the first and the second response got; None unless the outcome is `scored`.
        answers: the judge's words, those that could not be read first.
        keys: of the answers in the cache.
    """

    response_shown: Literal["first", "second"]
    repeat: int
    outcome: Outcome
    verdict: tuple[float, float] | None
    answers: list[str]
    keys: list[str]


class ItemRow(Plain):
    """One item with every verdict on it.

    Attributes:
        pair: what the run's response and the other one got, over both orders and all repeats; None if not scored.
        suspicions: patterns that the run's response matches.
        suspicions_against: patterns that the other run's response matches; `pairwise` only.
    """

    set: str
    id: str
    seed: int
    outcome: Outcome
    pair: tuple[float, float] | None
    suspicions: list[str]
    suspicions_against: list[str] | None = None
    readings: list[ReadingRow]


def _plain(value: Plain) -> dict[str, Any]:
    return value.model_dump(mode="json", by_alias=True, exclude_unset=True)


def write(folder: Path, judgement: Judgement, rows: Iterable[ItemRow]) -> Path:
    """Write a judgement and its items into a folder.

    Returns:
        The judgement's file.

    Raises:
        BenchError: the folder cannot be written.
    """
    path = folder / f"{judgement.name}.json"
    write_jsonl_gz(path.with_suffix(".jsonl.gz"), map(_plain, rows))
    beside = folder / CHECKSUMS / path.stem
    beside.unlink(missing_ok=True)
    write_json(path, judgement.plain())
    write_bytes(beside, f"{checksum_of(path)}\n".encode())
    return path


def read(path: Path) -> Judgement:
    """The judgement in a file.

    Raises:
        Unreadable: the file is missing, damaged, changed, of a newer schema or no judgement; a wrong field is named.
    """
    try:
        judgement = Judgement.model_validate_json(read_bytes(path))
        beside = path.parent / CHECKSUMS / path.stem
        if beside.is_file() and beside.read_bytes().strip() != checksum_of(path).encode():
            raise Unreadable(f"changed since it was written; remove {beside} if you changed it")
        return judgement
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error
    except ValidationError as error:
        raise Unreadable(f"not a judgement of bench judge: {first_error(error)}") from error
