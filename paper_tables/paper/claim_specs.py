"""What the paper claims, as `claims.yaml` has it. Nothing here reads a record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, get_args

import yaml

Kind = Literal["quality", "time", "share", "convergence", "estimate", "bounded"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""The kinds of test; the head of `claims.yaml` says what each asks for."""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        id: what the command line takes.
        claim: in words.
        where: in the paper.
        source: tags of those who report it.
        sureness: H, M or L: how sure it is that the paper says so.
        suite: makes the runs that it needs.
        kind: of test.
        test: what is tested, by the kind.
        note: what else a reader has to know about the claim.
    """

    id: str
    claim: str
    where: str
    source: str
    sureness: str
    suite: str
    kind: Kind
    test: Mapping[str, Any]
    note: str = ""


@cache
def claims() -> tuple[Claim, ...]:
    """All claims, in the order of their file."""
    text = (resources.files("paper_tables") / "paper" / "claims.yaml").read_text(encoding="utf-8")
    found = []
    for entry in yaml.safe_load(text):
        (kind,) = entry.keys() & set(KINDS)
        found.append(Claim(kind=kind, test=entry.pop(kind), **entry))
    return tuple(found)


def timed_rows() -> frozenset[tuple[str, str]]:
    """Table and row of each kind of run on whose wall-clock a claim rests."""
    rows = set()
    for claim in claims():
        if claim.kind == "time":
            rows |= {(claim.test["table"], row) for row in (*claim.test["of"], claim.test["over"])}
        elif claim.kind == "share":
            rows |= {(claim.test["table"], row) for row in claim.test["rows"]}
    return frozenset(rows)
