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
from typing import Literal

from bench.system.errors import BenchError, did_you_mean
from paper_tables.claims.comparisons import ClaimComparison, Comparisons
from paper_tables.numbers.runs import RunIndex
from paper_tables.paper.claim_specs import ClaimSpec, CoefficientBoundTest, EstimationErrorTest, claim_specs

Verdict = Literal["reproduced", "not reproduced", "not enough evidence"]
VERDICTS: tuple[Verdict, ...] = ("reproduced", "not reproduced", "not enough evidence")


@dataclass(frozen=True)
class ClaimVerdict:
    """A claim with its verdict, why, and every comparison."""

    claim: ClaimSpec
    verdict: Verdict
    reason: str
    comparisons: tuple[ClaimComparison, ...]

    @property
    def runs(self) -> list[str]:
        """Ids of the runs behind all comparisons, each once."""
        return sorted({run for comparison in self.comparisons for run in comparison.runs})

    @property
    def deciding(self) -> ClaimComparison | None:
        """Of the measured comparisons that came out as the claim did, the one that speaks most against it.

        Where one has to hold, it is the one that speaks most for it.
        """
        came_out = {"reproduced": True, "not reproduced": False, "not enough evidence": None}[self.verdict]
        measured = [c for c in self.comparisons if c.effect is not None and c.holds is came_out]
        strongest = max if self.claim.test.any else min
        return strongest(measured, key=lambda c: c.lead, default=None)

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return {
            **self.claim.model_dump(exclude={"test"}),
            "verdict": self.verdict,
            "reason": self.reason,
            "comparisons": [c.as_dict() for c in self.comparisons],
        }


def verdicts(index: RunIndex, ids: Sequence[str] = (), resamples: int = 10_000) -> Iterator[ClaimVerdict]:
    """Each claim with its verdict; without ids all of them.

    Args:
        index: the runs; model probes are read from its results folder.
        ids: of claims.
        resamples: of the bootstrap.

    Raises:
        BenchError: no such claim, or runs that would be compared cannot be.
    """
    known = {claim.id: claim for claim in claim_specs()}
    for name in ids:
        if name not in known:
            raise BenchError(f"unknown claim {name!r}: {did_you_mean(name, known)}")
    comparisons = Comparisons(index, resamples)
    for name in ids or known:
        found = tuple(comparisons.of(known[name]))
        yield ClaimVerdict(known[name], *_verdict(known[name], found), found)


def _verdict(claim: ClaimSpec, found: tuple[ClaimComparison, ...]) -> tuple[Verdict, str]:
    held = sum(c.holds is True for c in found)
    failed = sum(c.holds is False for c in found)
    outcomes = Counter(c.outcome for c in found if c.holds is False)
    counted = ", ".join([f"{held} of {len(found)} comparisons hold", *(f"{n} {what}" for what, n in outcomes.items())])
    if failed == len(found) or (failed and not claim.test.any):
        return "not reproduced", counted
    if held == len(found) or (held and claim.test.any):
        return "reproduced", counted
    missing = list(dict.fromkeys(c.missing for c in found if c.missing))
    if missing:
        probed = isinstance(claim.test, EstimationErrorTest | CoefficientBoundTest)
        return "not enough evidence", "; ".join(missing) + ("" if probed else f": bench suite {claim.suite}")
    return "not enough evidence", f"{counted}, the others cannot be told"
