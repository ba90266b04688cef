"""What a verification finds: cells that hold something else than they should, and what could not be checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.config.comparable import differences
from bench.record.store import RECORD

SHOWN = 120  # characters of a cell


@dataclass(frozen=True)
class Mismatch:
    """A cell that holds something else than it should.

    Attributes:
        file: where it stands.
        row, column: of a table, the labels in its first cells and the heading; of JSON, "" and the dotted key.
        holds: what is there.
        should: what follows from the texts, or from the records.
    """

    file: str
    row: str
    column: str
    holds: str
    should: str

    def __str__(self) -> str:
        where = ", ".join(part for part in (self.row, self.column) if part)
        return f"{self.file}: {where}: holds {_short(self.holds)}, should hold {_short(self.should)}"


@dataclass
class Findings:
    """What was checked, how often; what was not, and why; what is wrong, and what may be wrong for that reason alone.

    Attributes:
        unsealed: records without a checksum.
        follow_ups: cells of files that do not follow from records, where a record is wrong itself.
    """

    checked: Counter[str] = field(default_factory=Counter)
    unchecked: Counter[str] = field(default_factory=Counter)
    wrong: list[Mismatch] = field(default_factory=list)
    follow_ups: list[Mismatch] = field(default_factory=list)
    unsealed: int = 0

    def equal(self, what: str, file: Path, row: str, column: str, holds: object, should: object) -> bool:
        """Count a check, and keep it if it fails."""
        self.checked[what] += 1
        if same := holds == should:
            return same
        self.wrong.append(Mismatch(str(file), row, column, str(holds), str(should)))
        return same

    def fields(self, what: str, file: Path, holds: Mapping[str, object], should: Mapping[str, object]) -> None:
        """Compare nested plain values; each key that differs is a cell."""
        self.checked[what] += 1
        for one in differences(holds, should):
            self.wrong.append(Mismatch(str(file), "", one.key, str(one.first), str(one.second)))

    def unreadable(self, folder: Path, told: str) -> None:
        """Keep what a store says of a record that cannot be read, or is not what was sealed."""
        where, named, reason = told.removeprefix("skipped ").partition(f"{RECORD}: ")
        file, holds = (f"{where}{RECORD}", reason) if named else (str(folder), told)
        self.wrong.append(Mismatch(file, "", "record", holds, "a record as it was written"))

    def plain(self) -> dict[str, object]:
        """As plain values."""
        return {
            "checked": dict(self.checked),
            "not_checked": dict(self.unchecked),
            "unsealed": self.unsealed,
            "wrong": [asdict(one) for one in self.wrong],
            "follow_ups": [asdict(one) for one in self.follow_ups],
        }


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")
