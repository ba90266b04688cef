"""What runs with other settings say of the claims: those with tuned rates, and those that take equal time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from bench.system.errors import BenchError
from paper_tables.claims.comparisons import ClaimComparison, outcomes
from paper_tables.claims.verdicts import VERDICT_WORDS, ClaimVerdict, verdicts
from paper_tables.numbers.runs import RunIndex

ONE_RATE = "one rate"
FILES = {"tuned": "tuning/{}-tuned.yaml", "equal time": "{}-as-long-as-distillm.yaml"}
"""Presets in a results folder that extend one whose runs it holds, by what is other in them."""
LEGEND = (
    "Each column is corrected for itself. In brackets: how many of the claim's comparisons hold, and how many fail; "
    "the rest is open. Other sets: the same on the sets of the claim's table that it does not name, which decide "
    "nothing. Empty: not asked with these settings, or runs are missing; claims about time are asked of the "
    "runs with one rate alone."
)


def beside(index: RunIndex) -> dict[str, RunIndex]:
    """The runs of presets in the same folder that extend the index's own, with the same seeds, by what is other."""
    files = {name: index.store.root / form.format(index.preset_name) for name, form in FILES.items()}
    if index.own is not None or index.keys:  # the other settings were run on the paper's tasks, under keys of their own
        return {}
    recorded = (
        {record.config.preset for record in index.store.all()}
        if any(path.is_file() for path in files.values())
        else set()
    )
    return {
        name: RunIndex(index.store, str(path), index.seeds, warn=index.warn)
        for name, path in files.items()
        if path.is_file() and path.stem in recorded
    }


def columns_of(
    found: Sequence[ClaimVerdict], others: Mapping[str, Sequence[ClaimVerdict]], own: str = ONE_RATE
) -> dict[str, Mapping[str, str]]:
    """By heading and a claim's id, what the runs of each setting say of it, in few words; "" where they cannot.

    Args:
        found: verdicts of the runs that are told of first.
        others: verdicts of runs with other settings, by their headings.
        own: heading of the first.
    """
    columns: dict[str, Mapping[str, str]] = {own: {one.claim.id: short(one) for one in found}}
    for name, asked in others.items():
        columns[name] = {one.claim.id: "" for one in found} | {one.claim.id: short(one) for one in asked}
    return columns


def verdicts_beside(others: Mapping[str, RunIndex]) -> dict[str, list[ClaimVerdict]]:
    """By their names, the verdicts of runs with other settings, on claims that these can be asked."""
    asked: dict[str, list[ClaimVerdict]] = {}
    for name, index in others.items():
        try:
            told = verdicts(index)
        except BenchError as error:
            index.warn(f"left out what runs of {index.preset_name} say: {error}")
            continue
        # runs of other settings were not timed alone, or take equal time
        asked[name] = [one for one in told if not one.is_about_time and _is_complete(one)]
    return asked


def short(found: ClaimVerdict) -> str:
    """A verdict in few words, with how many of its comparisons hold and fail."""
    elsewhere = f"; other sets ({_held_and_failed(found.elsewhere)})" if found.elsewhere else ""
    return f"{VERDICT_WORDS[found.verdict].short} ({_held_and_failed(found.comparisons)}){elsewhere}"


def _held_and_failed(found: Iterable[ClaimComparison]) -> str:
    came_out = Counter(outcomes(found))
    failed = came_out.total() - came_out["holds"] - came_out["open"]
    return f"{came_out['holds']}, {failed} of {came_out.total()}"


def _is_complete(found: ClaimVerdict) -> bool:
    return bool(found.comparisons) and all(c.effect is not None and not c.missing for c in found.comparisons)
