"""Verdicts on the paper's claims: reproduced, not reproduced, mechanism not active, or not enough evidence.

A claim is a set of comparisons. One holds when its whole 95 % interval lies on the claimed side, fails when it lies on
the other, and is open otherwise.

Of most claims all comparisons have to hold. That they do is an intersection-union test (Berger 1982): it needs every
one of them at the level, and no correction for their number. That one fails is a union of tests: its p-value is the
smallest that Holm's correction over the claim's comparisons leaves. Of a claim that says "up to", one has to hold and
all have to fail, and the two rules change places.

Each verdict is a one-sided test, and needs its p-value to be at most 2.5 %: that of a 95 % interval. Beyond that, the
smaller p-value of each claim is corrected over the claims with evidence by Benjamini and Hochberg (1995), so that of
the verdicts other than "not enough evidence" at most 5 % are wrong on average: of the two verdicts that a claim can
get, one is right. A list of verdicts is read for what holds and what does not, and the share of wrong ones among these
is what its reader has to know. Where half of the claims are decided, the correction asks for no more than the interval
does. A claim that says all that a refuted one says, and more, is refuted with it, which is no test of its own.

A theorem is no test of chance, and counts in no correction. Neither does a claim whose mechanism was not active
(`paper_tables.claims.scope`): no comparison speaks for it or against it.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, get_args

from bench.analysis.significance import MOST_SEEDS, benjamini_hochberg, holm
from bench.record.record import RunRecord
from bench.system.errors import BenchError, did_you_mean
from paper_tables.claims.comparisons import NOT_JUDGED, NOT_SCALED, SCALED, ClaimComparison, Comparisons, outcomes
from paper_tables.claims.scope import Used, not_active, scope, used, with_generated
from paper_tables.numbers.cells import SIGNIFICANCE
from paper_tables.numbers.runs import RunIndex
from paper_tables.paper.claim_specs import (
    ClaimSpec,
    CoefficientBoundTest,
    ColumnScoreTest,
    ConvergenceTest,
    EstimationErrorTest,
    JudgeTest,
    ScoreTest,
    SpreadTest,
    TimeShareTest,
    TimeTest,
    claim_specs,
)

Verdict = Literal["reproduced", "not reproduced", "mechanism not active", "not enough evidence"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


SCORE_TESTS = (ScoreTest, ColumnScoreTest, SpreadTest, ConvergenceTest, JudgeTest)


@dataclass(frozen=True)
class VerdictWords:
    """A verdict for readers: in a cell, above the claims that have it, and its colour in a terminal."""

    short: str
    heading: str
    style: str


VERDICT_WORDS: Mapping[Verdict, VerdictWords] = {
    "reproduced": VerdictWords("holds", "Holds here", "green"),
    "not reproduced": VerdictWords("does not hold", "Does not hold here", "red"),
    "mechanism not active": VerdictWords("not active", "Not tested: the mechanism was not active", "yellow"),
    "not enough evidence": VerdictWords("open", "Open", "yellow"),
}


@dataclass(frozen=True)
class ClaimVerdict:
    """A claim with its verdict, why, and every comparison.

    Attributes:
        p: twice the smaller of its one-sided p-values, or this p-value corrected over the claims that have evidence,
            whichever is larger: the level that its verdict needs. None where nothing can be told, or nothing is left
            to chance.
        scope: preset, model sizes and hardware that it speaks of, in a line.
        corrected_for: how many claims have evidence, whichever were asked for.
        p_of_scores: of a claim about scores, `p` as it were if claims about scores alone were corrected.
        scores_corrected_for: how many of these have evidence.
        elsewhere: its comparisons on the sets of its table that it does not name; they decide nothing.
        given: what a claim about the time of adaptive use holds or fails with, in words.
    """

    claim: ClaimSpec
    verdict: Verdict
    reason: str
    comparisons: tuple[ClaimComparison, ...]
    p: float | None = None
    scope: str = ""
    corrected_for: int = 0
    p_of_scores: float | None = None
    scores_corrected_for: int = 0
    elsewhere: tuple[ClaimComparison, ...] = ()
    given: str = ""

    @property
    def title(self) -> str:
        """The claim in words, with what a verdict on its times must not be read without."""
        return f"{self.claim.claim}, here {self.given}" if self.given else self.claim.claim

    @property
    def is_about_time(self) -> bool:
        """It is of training times or of shares of them."""
        return isinstance(self.claim.test, TimeTest | TimeShareTest)

    @property
    def asked(self) -> int:
        """How many comparisons it makes; two limits of one are one."""
        return len(outcomes(self.comparisons))

    @property
    def runs(self) -> list[str]:
        """Ids of the runs behind all comparisons, each once."""
        return sorted({run for comparison in self.comparisons for run in comparison.runs})

    @property
    def deciding(self) -> ClaimComparison | None:
        """Of the measured comparisons that came out as the claim did, the one that speaks most against it.

        Where one has to hold, it is the one that speaks most for it.
        """
        came_out = {"reproduced": True, "not reproduced": False}.get(self.verdict)
        measured = [c for c in self.comparisons if c.effect is not None]
        # each of them may be decided by itself, and the claim not
        measured = [c for c in measured if c.holds is came_out] or measured
        strongest = max if self.claim.test.any else min
        return strongest(measured, key=lambda c: c.lead, default=None)

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return {
            **self.claim.model_dump(exclude={"test"}),
            "verdict": self.verdict,
            "scope": self.scope,
            "reason": self.reason,
            "p": self.p,
            "p_of_scores": self.p_of_scores,
            "given": self.given,
            "elsewhere": [c.as_dict() for c in self.elsewhere],
            "comparisons": [c.as_dict() for c in self.comparisons],
        }


def verdicts(index: RunIndex, ids: Sequence[str] = ()) -> list[ClaimVerdict]:
    """Each claim with its verdict; without ids all of them.

    A verdict is the same whichever others are asked for: the correction is over all claims that have evidence.

    Args:
        index: the runs; model probes are read from its results folder.
        ids: of claims.

    Raises:
        BenchError: no such claim, or runs that would be compared for it cannot be.
    """
    known = {claim.id: claim for claim in claim_specs()}
    for name in ids:
        if name not in known:
            raise BenchError(f"unknown claim {name!r}: {did_you_mean(name, known)}")
    if index.own is not None:  # what is claimed of one task is asked of another's runs by the main table's claim alone
        about = {claim.id for claim in known.values() if isinstance(claim.test, ScoreTest) and claim.test.task}
        if asked := about & set(ids):
            raise BenchError(f"--task {index.own.name}: {min(asked)} is about one of the paper's tasks")
        known = {name: claim for name, claim in known.items() if name not in about}
    comparisons = Comparisons(index)
    found: dict[str, tuple[ClaimComparison, ...]] = {}
    for name, claim in known.items():
        try:
            found[name] = tuple(comparisons.of(claim))
        except BenchError:
            if name in ids or not ids:
                raise
    records = {record.run_id: record for record in index.records}
    runs_of = {
        name: [records[run] for run in dict.fromkeys(run for comparison in its for run in comparison.runs)]
        for name, its in found.items()
    }
    arms = {name: used(index.store, runs) for name, runs in runs_of.items()}
    timed = {name for name, claim in known.items() if isinstance(claim.test, TimeTest | TimeShareTest)}
    inactive = {name: why for name, its in arms.items() if (why := not_active(its, of_time=name in timed))}
    judged = judge({known[name]: its for name, its in found.items()}, ids, inactive)
    judged = [
        replace(
            one,
            scope=_scope(one, runs_of[one.claim.id], arms[one.claim.id], comparisons),
            given=with_generated(arms[one.claim.id]) if one.claim.id in timed else "",
            elsewhere=tuple(comparisons.elsewhere(one.claim)) if one.comparisons else (),
        )
        for one in judged
    ]
    if index.own is None:
        return judged
    own, of_task = index.own, f"--task {shlex.quote(index.own.file or index.own.name)}"
    direct = own.teacher is not None  # a suite takes no two models that were given directly

    def command(suite: str) -> str:
        if direct:
            return f"bench tables {suite.removeprefix('table')} {of_task}"
        preset = "" if index.preset == "tiny" else f" --preset {shlex.quote(index.preset)}"
        settings = "".join(f" --set {shlex.quote(option)}" for option in own.options)
        return f"bench suite {suite}{preset} {of_task} --models {shlex.quote(own.models)}{settings}"

    return [
        replace(one, reason=one.reason.replace(f"bench suite {one.claim.suite}", command(one.claim.suite)))
        for one in judged
    ]


def _scope(one: ClaimVerdict, runs: Sequence[RunRecord], arms: Mapping[str, Used], comparisons: Comparisons) -> str:
    index, hardware = comparisons.index, ""
    if isinstance(one.claim.test, EstimationErrorTest | CoefficientBoundTest) and (probe := comparisons.probe):
        models = probe.config.get("models")
        name = models.get("name") if isinstance(models, dict) else None
        runs = [record for record in index.records if record.config.models.name == name]
        hardware = probe.environment.hardware
    return scope(index.scope, runs, arms, hardware)


def judge(
    found: Mapping[ClaimSpec, tuple[ClaimComparison, ...]],
    ids: Sequence[str] = (),
    inactive: Mapping[str, str] = MappingProxyType({}),
) -> list[ClaimVerdict]:
    """The verdicts on claims by their comparisons, all corrected together; with ids, those of these claims.

    Args:
        found: by claim.
        ids: of claims.
        inactive: by a claim's id, why its mechanism was not active.
    """
    both = {claim.id: p_values(claim, its) for claim, its in found.items()}
    chances = {
        claim.id: min(both[claim.id])
        for claim, its in found.items()
        if not isinstance(claim.test, CoefficientBoundTest)
        and claim.id not in inactive
        and any(c.p_holds is not None for c in its)
    }
    about_scores = {claim.id for claim in found if isinstance(claim.test, SCORE_TESTS)}
    corrected = _corrected(chances)
    of_scores = _corrected({name: chance for name, chance in chances.items() if name in about_scores})
    judged = {
        claim.id: _not_active(claim, its, inactive[claim.id])
        if claim.id in inactive
        else _of_scores(
            _verdict(claim, its, both[claim.id], corrected.get(claim.id), len(chances)),
            of_scores.get(claim.id),
            len(of_scores),
        )
        for claim, its in found.items()
    }
    refuted = [one for one in judged.values() if one.verdict == "not reproduced" and not one.claim.test.any]
    asked = [_with_implied(judged[name], refuted) for name in ids or judged]
    return [replace(one, corrected_for=len(chances)) for one in asked]


def _corrected(chances: Mapping[str, float]) -> dict[str, float]:
    """See `ClaimVerdict.p`, by claim; from their smaller one-sided p-values, all of one correction."""
    corrected = benjamini_hochberg(list(chances.values()))
    return {name: min(1.0, max(2 * chances[name], p)) for name, p in zip(chances, corrected, strict=True)}


def _of_scores(one: ClaimVerdict, p: float | None, claims: int) -> ClaimVerdict:
    """A verdict with its p-value among so many claims about scores alone, told where it would then be open."""
    one = replace(one, p_of_scores=p, scores_corrected_for=claims if p is not None else 0)
    if p is None or one.p is None or not one.p <= SIGNIFICANCE < p:
        return one
    told = f"corrected among the {claims} claims about scores alone it would be open ({p_in_words(p)})"
    return replace(one, reason=f"{one.reason}; {told}")


def _with_implied(one: ClaimVerdict, refuted: Sequence[ClaimVerdict]) -> ClaimVerdict:
    """A claim that says all that a refuted one says, and more, is refuted with it."""
    if one.verdict != "not enough evidence" or one.claim.test.any:
        return one
    own = {_asked(c) for c in one.comparisons}
    for other in refuted:
        if {_asked(c) for c in other.comparisons} <= own:
            reason = f"{held_of(one.comparisons)}; it says all that {other.claim.id} says, which is not reproduced"
            reason = f"{reason} ({p_in_words(other.p)})"
            return replace(one, verdict="not reproduced", reason=reason, p=other.p, p_of_scores=other.p_of_scores)
    return one


def _asked(found: ClaimComparison) -> tuple[object, ...]:
    return found.what, found.side, found.threshold, found.runs


def p_values(claim: ClaimSpec, found: Sequence[ClaimComparison]) -> tuple[float, float]:
    """Of a claim, the p-values for it being reproduced and for it being refuted; 1 where runs are missing."""
    holds = [c.p_holds for c in found if c.p_holds is not None]
    fails = [c.p_fails for c in found if c.p_fails is not None]
    complete = bool(found) and len(holds) == len(found)
    every, one = (fails, holds) if claim.test.any else (holds, fails)
    p_every = max(every) if complete else 1.0
    p_one = min(holm(one), default=1.0)
    return (p_one, p_every) if claim.test.any else (p_every, p_one)


def _not_active(claim: ClaimSpec, found: tuple[ClaimComparison, ...], why: str) -> ClaimVerdict:
    return ClaimVerdict(claim, "mechanism not active", f"{why}; {held_of(found)}", found)


def held_of(found: Sequence[ClaimComparison]) -> str:
    """How many comparisons hold, and how the decided others came out."""
    came_out = Counter(outcomes(found))
    decided = [f"{n} {what}" for what, n in came_out.items() if what not in ("holds", "open")]
    return ", ".join([f"{came_out['holds']} of {came_out.total()} comparisons hold", *decided])


def _verdict(
    claim: ClaimSpec,
    found: tuple[ClaimComparison, ...],
    p_values: tuple[float, float],
    p: float | None,
    claims: int,
) -> ClaimVerdict:
    """A claim's verdict.

    Args:
        claim: the claim.
        found: its comparisons.
        p_values: for its being reproduced, and for its being refuted.
        p: see `ClaimVerdict`.
        claims: how many claims have evidence.
    """
    counted = held_of(found)
    reproduced, refuted = p_values
    if (min(p_values) if p is None else p) <= SIGNIFICANCE and min(p_values) < 1:
        verdict: Verdict = "reproduced" if reproduced < refuted else "not reproduced"
        return ClaimVerdict(claim, verdict, counted + (f" ({p_in_words(p)})" if p is not None else ""), found, p)
    missing = list(dict.fromkeys(c.missing for c in found if c.missing))
    if missing:
        by_suite = not {*missing} & {SCALED, NOT_SCALED, NOT_JUDGED}
        by_suite &= not isinstance(claim.test, EstimationErrorTest | CoefficientBoundTest)
        reason = "; ".join(missing) + (f": bench suite {claim.suite}" if by_suite else "")
    elif min(p_values) <= SIGNIFICANCE / 2:  # enough by itself
        reason = f"{counted}; among {claims} claims this may be chance ({p_in_words(p)})"
    elif any(c.holds is not None for c in found):
        reason = f"{counted}, the whole cannot be told ({p_in_words(p)})"
    else:
        reason = f"{counted}, the others cannot be told ({p_in_words(p)})"
    judged = ClaimVerdict(claim, "not enough evidence", reason, found, p)
    power = power_of(found, _repeats(claim), any_one=claim.test.any)
    return replace(judged, reason=f"{reason}; {power}") if power else judged


def _repeats(claim: ClaimSpec) -> str:
    """What a claim needs more of to be decided."""
    if isinstance(claim.test, TimeTest | TimeShareTest):
        return "timed runs of each"
    return "students" if isinstance(claim.test, EstimationErrorTest) else "training seeds"


def p_in_words(p: float | None) -> str:
    """A p-value to two digits; 1 where there is none."""
    return "p = 1" if p is None else f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"


def power_of(found: Sequence[ClaimComparison], repeats: str = "training seeds", *, any_one: bool = False) -> str:
    """What the open comparisons of a claim could have shown, and how many seeds would decide it; "" if none is open.

    What was seen points to a verdict: to "reproduced" where all comparisons lie on the claimed side, or one of them
    where one is enough. Of the open ones that lie on its side the text is about the hardest to see where all of them
    have to be seen, else about the easiest.

    Args:
        found: the comparisons.
        repeats: what more of would decide it.
        any_one: whether one that holds is enough.
    """
    measured = [c for c in found if c.effect is not None]
    for_it = (any if any_one else all)(c.lead > 0 for c in measured)
    asked = [c for c in measured if c.visible is not None and (c.lead > 0) is for_it]
    if not asked:
        return ""
    of_all = any_one is not for_it
    if of_all and len(measured) < len(found):  # no number of seeds decides it while runs of others are missing
        return ""
    one = (max if of_all else min)(asked, key=lambda c: c.repeats or MOST_SEEDS + 1)
    visible, factor = one.visible or 0.0, one.unit == "times" and one.threshold > 0
    size = f"a factor of {visible:.2f}" if factor else f"{visible:.2f} {one.unit}"
    if factor:
        seen = f"the factor seen, {(one.effect or 0.0) / one.threshold:.2f}"
    else:
        seen = f"the distance seen, {one.lead:+.2f}"
    needed = f"{one.repeats} {repeats}" if one.repeats else f"not even {MOST_SEEDS} {repeats}"
    which = f" of {one.what}" if len(found) > 1 else ""
    end = "reproduce" if for_it else "refute"
    return f"smallest visible distance{which} from the limit: {size} (80 % power); with {seen}, {needed} would {end} it"
