"""What the paper claims, read from `claims.yaml`; its head says what each kind of test compares."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Literal

import yaml
from pydantic import model_validator

from bench.system.manifest import Plain


class ClaimTest(Plain):
    """What is compared. With `any`, one comparison is enough; else all have to hold."""

    any: bool = False


class ScoreTest(ClaimTest):
    """`row` scores higher than each row in `than`, in each of `columns`; in all where none is named.

    Attributes:
        task: only columns of this task.
        mean: the mean over the five instruction sets takes the place of columns.
        scaled: only where the preset scales what the rows are named for, or, if false, only where it does not.
    """

    table: str
    row: str
    than: tuple[str, ...]
    columns: tuple[str, ...] = ()
    task: str = ""
    mean: bool = False
    scaled: bool | None = None


class ColumnScoreTest(ClaimTest):
    """Each of `rows` scores higher in `column` than in `than_column`, by `margin` points; with `lower`, lower."""

    table: str
    rows: tuple[str, ...]
    column: str
    than_column: str
    margin: float = 0.0
    lower: bool = False


class SpreadTest(ClaimTest):
    """In each of `columns`, no two of `rows` are `below` points or more apart; of all rows where none is named."""

    table: str
    columns: tuple[str, ...]
    below: float
    rows: tuple[str, ...] = ()


class JudgeTest(ClaimTest):
    """A language model rates the responses of `row` higher than those of each row in `than`, in each of `columns`."""

    table: str
    row: str
    than: tuple[str, ...]
    columns: tuple[str, ...]


class TimeTest(ClaimTest):
    """The training time of each row in `of` over that of the row `over` lies between the limits that are given."""

    table: str
    of: tuple[str, ...]
    over: str
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _limited(self) -> TimeTest:
        if self.at_least is None and self.at_most is None:
            raise ValueError("give at_least, at_most or both")
        return self


class TimeShareTest(ClaimTest):
    """The share of training time that goes into `phase`, in each of `rows`."""

    table: str
    rows: tuple[str, ...]
    phase: str
    at_least: float


class ConvergenceTest(ClaimTest):
    """The validation score of each of `rows`, mean over the course of training, is above that of each in `than`."""

    table: str
    rows: tuple[str, ...]
    than: tuple[str, ...]


class EstimationErrorTest(ClaimTest):
    """The plug-in estimate from `tokens` tokens has its smallest normalised error at skew `alpha`."""

    alpha: float
    tokens: int


class CoefficientBoundTest(ClaimTest):
    """No gradient coefficient of `losses` is larger than its bound."""

    losses: tuple[str, ...]


TESTS: dict[str, type[ClaimTest]] = {
    "score": ScoreTest,
    "column_score": ColumnScoreTest,
    "spread": SpreadTest,
    "judge": JudgeTest,
    "time": TimeTest,
    "time_share": TimeShareTest,
    "convergence": ConvergenceTest,
    "estimation_error": EstimationErrorTest,
    "coefficient_bound": CoefficientBoundTest,
}
"""The kinds of test, as `claims.yaml` names them."""


class ClaimSpec(Plain):
    """A claim of the paper.

    Attributes:
        id: what the command line takes.
        claim: in words.
        where: in the paper.
        source: tags of those who report it, separated by commas.
        confidence: that the paper says so: H, M or L.
        suite: makes the runs that it needs.
        test: what it is held to.
        note: what else a reader has to know about the claim.
    """

    id: str
    claim: str
    where: str
    source: str
    confidence: Literal["H", "M", "L"]
    suite: str
    test: ClaimTest
    note: str = ""

    @property
    def sources(self) -> tuple[str, ...]:
        """The tags one by one."""
        return tuple(tag.strip() for tag in self.source.split(","))

    @property
    def is_sourced(self) -> bool:
        """Whether anybody reports it."""
        return self.sources != ("none",)


@cache
def claim_specs() -> tuple[ClaimSpec, ...]:
    """All claims, in the order of their file."""
    text = (resources.files("paper_tables") / "paper" / "claims.yaml").read_text(encoding="utf-8")
    found = []
    for entry in yaml.safe_load(text):
        (kind,) = entry.keys() & TESTS.keys()
        found.append(ClaimSpec(test=TESTS[kind].model_validate(entry.pop(kind)), **entry))
    return tuple(found)


def timed_rows() -> frozenset[tuple[str, str]]:
    """Table and row of the runs on whose training time a claim rests."""
    rows = set()
    for claim in claim_specs():
        match claim.test:
            case TimeTest() as test:
                rows |= {(test.table, row) for row in (*test.of, test.over)}
            case TimeShareTest() as test:
                rows |= {(test.table, row) for row in test.rows}
    return frozenset(rows)
