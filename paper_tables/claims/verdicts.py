"""Verdicts on the paper's claims: reproduced, not reproduced, or not enough evidence.

A claim is a set of comparisons. One holds when its whole confidence interval lies on the claimed side, fails when it
lies on the other, and is open otherwise. The intervals of a claim's comparisons hold together at 95 % (Bonferroni). All
have to hold: one that fails refutes the claim, whatever the others; an open or missing one leaves it open. Of a claim
that says "up to", one has to hold, and all have to fail to refute it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.system.errors import BenchError, did_you_mean
from paper_tables.claims.comparisons import Comparison, Evidence
from paper_tables.numbers.runs import Library
from paper_tables.paper.claim_specs import Claim, claims

Verdict = Literal["reproduced", "not reproduced", "not enough evidence"]
VERDICTS: tuple[Verdict, ...] = ("reproduced", "not reproduced", "not enough evidence")


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict and every comparison."""

    claim: Claim
    verdict: Verdict
    comparisons: tuple[Comparison, ...]
    reason: str

    @property
    def deciding(self) -> Comparison | None:
        """Of the measured comparisons that came out as the claim did, the one that speaks most against it.

        Where one has to hold, it is the one that speaks most for it.
        """
        came_out = {"reproduced": True, "not reproduced": False, "not enough evidence": None}[self.verdict]
        measured = [c for c in self.comparisons if c.effect is not None and c.holds is came_out]
        strongest = max if self.claim.test.get("any") else min
        return strongest(measured, key=lambda c: c.lead, default=None)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        about = ("id", "claim", "where", "source", "sureness", "note", "suite")
        return {
            **{key: getattr(self.claim, key) for key in about},
            "verdict": self.verdict,
            "reason": self.reason,
            "comparisons": [c.as_dict() for c in self.comparisons],
        }


def judge(library: Library, out: Path, ids: Sequence[str] = (), resamples: int = 10_000) -> Iterator[Judged]:
    """Each claim with its verdict; without ids all of them.

    Args:
        library: the records.
        out: the results folder, for measurements on the models.
        ids: of claims.
        resamples: of the bootstrap.

    Raises:
        BenchError: no such claim, or runs that would be compared cannot be.
    """
    known = {claim.id: claim for claim in claims()}
    for name in ids:
        if name not in known:
            raise BenchError(f"unknown claim {name!r}: {did_you_mean(name, known)}")
    evidence = Evidence(library, out, resamples)
    for name in ids or known:
        found = tuple(evidence.on(known[name]))
        yield Judged(known[name], *_verdict(known[name], found))


def _verdict(claim: Claim, found: tuple[Comparison, ...]) -> tuple[Verdict, tuple[Comparison, ...], str]:
    held = sum(c.holds is True for c in found)
    failed = sum(c.holds is False for c in found)
    one_will_do = bool(claim.test.get("any"))
    outcomes = Counter(c.outcome for c in found if c.holds is False)
    counted = ", ".join([f"{held} of {len(found)} comparisons hold", *(f"{n} {what}" for what, n in outcomes.items())])
    if failed == len(found) or (failed and not one_will_do):
        return "not reproduced", found, counted
    if held == len(found) or (held and one_will_do):
        return "reproduced", found, counted
    missing = list(dict.fromkeys(c.missing for c in found if c.missing))
    if missing:
        more = "" if claim.kind in ("estimate", "bounded") else f": bench suite {claim.suite}"
        return "not enough evidence", found, "; ".join(missing) + more
    return "not enough evidence", found, f"{counted}, the others cannot be told"
